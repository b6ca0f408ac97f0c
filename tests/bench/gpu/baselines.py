"""The models that are compared with, by their own packages: each takes the graph's inputs, at half precision.

`size` "tiny" is a toy of the same architecture. `config` is that of the exported model, where transformers
makes it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Config = Mapping[str, Any]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Pixels(nn.Module):
    """RGB bytes, NHWC, to normalised pixels, NCHW, in the precision of the model."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(MEAN).reshape(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(STD).reshape(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return (image.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std


class Model(nn.Module):
    """A network with its pixels in front, called by the names of the graph's inputs."""

    def __init__(self, network: Any, call: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.network, self.pixels, self._call = network, Pixels(), call

    def forward(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        return self._call(self, **inputs)


def clip_image(size: str, _config: Config) -> Model:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    toy: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
    }
    config = CLIPVisionConfig(**(toy if size == "tiny" else {}))
    return Model(
        CLIPVisionModelWithProjection(config),
        lambda self, image: (self.network(pixel_values=self.pixels(image)).image_embeds,),
    )


def clip_text(size: str, _config: Config) -> Model:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    toy: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = CLIPTextConfig(**(toy if size == "tiny" else {}))
    return Model(
        CLIPTextModelWithProjection(config),
        lambda self, input_ids: (self.network(input_ids=input_ids).text_embeds,),
    )


def _sam(config: Config) -> Any:
    from transformers import SamConfig, SamModel

    return SamModel(SamConfig(**config))


def sam_encoder(_size: str, config: Config) -> Model:
    return Model(
        _sam(config).vision_encoder,
        lambda self, image, valid_size: (self.network(self.pixels(image)).last_hidden_state,),
    )


def sam_decoder(_size: str, config: Config) -> Model:
    def call(self: Any, image_embedding: Tensor, points: Tensor, labels: Tensor, **_masks: Tensor) -> Any:
        half = next(self.network.parameters()).dtype
        output = self.network(
            image_embeddings=image_embedding.to(half),
            input_points=points.to(half),
            input_labels=labels,
            multimask_output=True,
        )
        return output.pred_masks, output.iou_scores

    return Model(_sam(config), call)


def grounding_dino(_size: str, config: Config) -> Model:
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

    def call(self: Any, image: Tensor, input_ids: Tensor, attention_mask: Tensor, **_rest: Tensor) -> Any:
        output = self.network(
            pixel_values=self.pixels(image), input_ids=input_ids, attention_mask=attention_mask
        )
        # Tokens that are not there have scores of minus infinity.
        return (output.pred_boxes,)

    return Model(GroundingDinoForObjectDetection(GroundingDinoConfig(**config)), call)


def doctr_detection(size: str, _config: Config) -> Model:
    from doctr.models import detection

    network = detection.db_mobilenet_v3_large if size == "tiny" else detection.db_resnet50
    return Model(
        network(pretrained=False, pretrained_backbone=False, exportable=True),
        lambda self, image: (self.network(self.pixels(image))["logits"],),
    )


def doctr_recognition(size: str, _config: Config) -> Model:
    from doctr.models import recognition

    network = recognition.crnn_mobilenet_v3_small if size == "tiny" else recognition.crnn_vgg16_bn
    return Model(
        network(pretrained=False, pretrained_backbone=False, exportable=True),
        lambda self, crop: (self.network(self.pixels(crop))["logits"],),
    )


def gaze(size: str, _config: Config) -> Model:
    from torchvision.models import resnet18, resnet50  # type: ignore[import-untyped]

    network = (resnet18 if size == "tiny" else resnet50)(weights=None, num_classes=180)
    return Model(network, lambda self, face: (self.network(self.pixels(face)),))


MODELS: dict[str, Callable[[str, Config], Model]] = {
    maker.__name__: maker
    for maker in (
        clip_image, clip_text, sam_encoder, sam_decoder, grounding_dino,
        doctr_detection, doctr_recognition, gaze,
    )
}  # fmt: skip
