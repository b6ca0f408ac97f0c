"""docTR: the text detection network and the text recognition network as two graphs."""

from copy import deepcopy
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from export import attention, photos
from export.doctr_pixels import normalised
from export.doctr_weights import Networks, build
from export.families.doctr import DETECTORS, FAMILY, RECOGNIZERS
from export.graph import Arrays, Export, Graph
from export.measures import MIN_IOU, text_maps, words, words_of
from export.pictures import text_images
from export.pixels import Normalise
from export.weights import Options


def prepare(options: Options) -> Export:
    """Describe both graphs, with the reference that each must agree with."""
    networks = build(options)
    is_trained = options.weights != "random"
    return Export([detection_graph(networks, is_trained), recognition_graph(networks, is_trained)])


class Detector(nn.Module):
    """Pixels to the probability of text."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        # Padding too: docTR pads before it normalises.
        self.normalise = Normalise(model.cfg["mean"], model.cfg["std"])
        self.model = model
        # FAST widens its words again in its last step.
        self.pooling = getattr(model, "pooling", nn.Identity())

    def forward(self, image: Tensor) -> tuple[Tensor]:
        logits = self.model(self.normalise(image))["logits"]
        return (torch.sigmoid(self.pooling(logits))[:, 0],)


class Recognizer(nn.Module):
    """Pixels to the best character of each step and its probability, and to the logits of all."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        # Padding too: docTR pads before it normalises.
        self.normalise = Normalise(model.cfg["mean"], model.cfg["std"])
        self.model = model

    def forward(self, crop: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from doctr.models.modules.transformer import MultiHeadAttention

        with mock.patch.object(MultiHeadAttention, "forward", multi_head):
            logits = self.logits(self.normalise(crop))
        return logits.argmax(-1).to(torch.int32), logits.softmax(-1).amax(-1), logits

    def logits(self, pixels: Tensor) -> Tensor:
        """Return the logits [B,L,V] for normalised pixels."""
        logits: Tensor = self.model(pixels)["logits"]
        return logits


class ParseqRecognizer(Recognizer):
    """The same for PARSeq, whose own decoding cannot be traced.

    docTR's decoding drops the batch axis of a batch of one, and stops early. Stopping early changes nothing
    before the end of a word.
    """

    def logits(self, pixels: Tensor) -> Tensor:
        model = self.model
        memory = model.feat_extractor(pixels)["features"][:, 1:]
        steps = model.max_length + 1
        end = model.vocab_size
        queries = model.pos_queries[:, :steps].expand(memory.shape[0], -1, -1)
        # A first guess, character by character. At first only the start of the word is known.
        tokens = torch.full_like(memory[:, :1, 0], end + 1, dtype=torch.int64)
        for step in range(steps - 1):
            state = model.decode(tokens, memory, None, target_query=queries[:, step : step + 1])
            following = model.head(state).squeeze(1).argmax(-1, keepdim=True)
            tokens = torch.cat([tokens, following], dim=1)
        # Then every character once more, given all others up to the guessed end.
        place = torch.arange(steps, device=pixels.device)
        others = place[None, :] != place[:, None] + 1
        before_end = (tokens == end).to(torch.int64).cumsum(1) == 0
        mask = (before_end[:, None, None, :] & others).to(torch.int32)
        logits: Tensor = model.head(model.decode(tokens, memory, mask, target_query=queries))
        return logits


def multi_head(self: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend as the layer of ViTSTR and PARSeq does. The mask is 0 at hidden keys."""
    q, k, v = (layer(x) for layer, x in zip(self.linear_layers, (query, key, value), strict=True))
    bias = None if mask is None else mask != 0
    mixed: Tensor = self.output_linear(attention.multi_head(q, k, v, self.num_heads, bias=bias))
    return mixed


def detection_graph(networks: Networks, is_trained: bool = False) -> Graph:
    """Describe the detection network's graph.

    The maps of seeded weights are noise on both sides of the threshold, so that they have no limit.
    """
    from doctr.models.detection.fast import reparameterize

    model, size = networks.detector, networks.pair.image_size
    exported = deepcopy(model)
    exported.exportable = True
    if hasattr(exported, "pooling"):
        # FAST is trained with several branches per layer, which add up to one. `ocr_predictor` does the same.
        exported = reparameterize(exported)
    post = model.postprocessor
    return Graph(
        model="doctr_detection",
        module=Detector(exported),
        inputs={"image": text_images(1, 2, size, size)},
        outputs={"probability_map": ("batch", size, size)},
        dynamic={"image": {0: "batch"}},
        cases=[{"image": text_images(2, 1, size, size)}, {"image": text_images(3, 3, size, size)}],
        reference=partial(detection_reference, model),
        measures=text_maps(
            "probability_map", above=float(post.bin_thresh), limit=MIN_IOU if is_trained else 0
        ),
        photos=partial(photos.pages, size, size),
        warmup=[{"image": np.zeros((1, size, size, 3), np.uint8)}],
        parameters=_names(networks)
        | {
            "image_size": str(size),
            "bin_threshold": str(post.bin_thresh),
            "box_threshold": str(post.box_thresh),
            "unclip_ratio": str(post.unclip_ratio),
            "min_box_size": str(DETECTORS[networks.pair.detector]),
        },
        # Of a probability. ResNet-50 with random weights is off by a sixth of this in float32 already.
        tolerance=1e-3,
        # Of single pixels at an edge, where the sigmoid is steepest. The measures say what the map is worth.
        half_tolerance=1.0,
        # The older exporter writes the same graph in a third of the time. Only it can export PARSeq's loop.
        dynamo=False,
        opset=17,
    )


@torch.no_grad()
def detection_reference(model: Any, inputs: Arrays, _outputs: Arrays) -> Arrays:
    """Return docTR's own probability maps, made image by image: a page of full size takes gigabytes."""
    maps = []
    for image in inputs["image"]:
        output = model(normalised(image[None], model), return_model_output=True)
        maps.append(output["out_map"][:, 0].numpy())
    return {"probability_map": np.concatenate(maps)}


def recognition_graph(networks: Networks, is_trained: bool = False) -> Graph:
    """Describe the recognition network's graph. What seeded weights read has no limit."""
    model = networks.recognizer
    exported = deepcopy(model)
    exported.exportable = True
    is_parseq = hasattr(exported, "decode_autoregressive")
    _, height, width = model.cfg["input_shape"]
    example = text_images(1, 2, height, width)
    module = (ParseqRecognizer if is_parseq else Recognizer)(exported)
    with torch.no_grad():
        _, steps, classes = module.eval()(torch.from_numpy(example))[-1].shape
    decoder = RECOGNIZERS[networks.pair.recognizer]

    return Graph(
        model="doctr_recognition",
        module=module,
        inputs={"crop": example},
        outputs={"classes": ("batch", steps), "probabilities": ("batch", steps)},
        probes={"logits": ("batch", steps, classes)},
        dynamic={"crop": {0: "batch"}},
        cases=[{"crop": text_images(2, 1, height, width)}, {"crop": text_images(3, 5, height, width)}],
        reference=partial(recognition_reference, model),
        measures=[words(words_of(decoder, model.vocab), limit=1 if is_trained else 0)],
        photos=partial(photos.words, height, width),
        warmup=[{"crop": np.zeros((1, height, width, 3), np.uint8)}],
        parameters=_names(networks)
        | {
            "crop_size": f"{height}x{width}",
            "vocabulary": model.vocab,
            "decoder": decoder,
        },
        dynamo=False,
        opset=17,
    )


@torch.no_grad()
def recognition_reference(model: Any, inputs: Arrays, outputs: Arrays) -> Arrays:
    """Return docTR's own logits, and what follows from the graph's."""
    expected = model(normalised(inputs["crop"], model), return_model_output=True)["out_map"]
    # Of two classes that are as good as equal, rounding chooses. So the choice is compared with the graph's
    # own logits, which in turn agree with docTR's.
    logits = torch.from_numpy(outputs["logits"])
    return {
        "logits": expected.numpy(),
        "classes": logits.argmax(-1).to(torch.int32).numpy(),
        "probabilities": logits.softmax(-1).amax(-1).numpy(),
    }


def _names(networks: Networks) -> dict[str, str]:
    return {"family": FAMILY.name, "variant": networks.variant}
