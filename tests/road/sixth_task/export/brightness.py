"""The mean brightness of an image: arithmetic, as a network of PyTorch's."""

import numpy as np
from torch import Tensor, nn

from export.families.brightness import FAMILY
from export.graph import Arrays, Export, Graph
from export.weights import Options

SIDE = 32


class Brightness(nn.Module):
    """Mean of all bytes [B,S,S,3], as a share of white."""

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Return [B,1], 0 to 1."""
        return (image.float().mean((1, 2, 3))[:, None] / 255,)


def prepare(options: Options) -> Export:
    """Describe the one file: it must agree with NumPy's mean."""

    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        return {"brightness": inputs["image"].mean((1, 2, 3), np.float32)[:, None] / np.float32(255)}

    graph = Graph(
        model="brightness",
        module=Brightness(),
        inputs=_case(0, 2),
        outputs={"brightness": ("batch", 1)},
        dynamic={"image": {0: "batch"}},
        cases=[_case(1, 1), _case(2, 3)],
        reference=reference,
        parameters={"family": FAMILY.name, "variant": FAMILY.variants[0], "image_size": str(SIDE)},
        dynamo=False,
        opset=17,
    )
    return Export([graph])


def _case(seed: int, batch: int) -> Arrays:
    random = np.random.default_rng(seed)
    return {"image": random.integers(0, 256, (batch, SIDE, SIDE, 3), np.uint8)}
