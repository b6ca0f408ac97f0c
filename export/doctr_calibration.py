"""Random weights for docTR's networks, whose outputs vary as those of trained weights do.

With the statistics of a new BatchNorm, signals grow from layer to layer until everything saturates. So the
statistics are those of pictures of text.
"""

from typing import Any

import torch
from torch import Tensor, nn

from export.doctr_pixels import normalised
from export.pictures import text_images

# The share of a page that random detection weights take for text.
TEXT_SHARE = 0.15
# The weight of the coarse levels beside that of the finest one.
DEEP_LEVELS = 0.05
# Pixels: the side of the pictures, and the padding of pages.
CALIBRATION_SIZE, MARGIN = 512, 64
# The standard deviation of all logits.
LOGIT_SPREAD = 3.0


def calibrate_detector(model: Any) -> None:
    """Scale random weights so that a share of every page is text in places as large as words."""
    for level in list(getattr(model.fpn, "out_branches", []) if hasattr(model, "fpn") else [])[1:]:
        # The neighbourhood of a pixel must decide. Otherwise only a few blobs as large as the page are found.
        level[1].weight.mul_(DEEP_LEVELS)
    head = model.prob_head if hasattr(model, "prob_head") else model.classifier
    layers = [module for module in head.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    for layer in layers:
        if isinstance(layer, nn.ConvTranspose2d):
            # The same weight everywhere in the kernel: random ones make a pattern too fine for words.
            layer.weight.copy_(layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
    images = text_images(0, 2, CALIBRATION_SIZE, CALIBRATION_SIZE)
    # Black margins, as padded pages have.
    images[0, :, :MARGIN] = images[0, :, -MARGIN:] = images[1, :MARGIN] = images[1, -MARGIN:] = 0
    pixels = normalised(images, model)
    _calibrate_norms(model, pixels)
    logits = _logits(model, pixels)
    layers[-1].weight.mul_(LOGIT_SPREAD / logits.std())
    if layers[-1].bias is not None:
        threshold = torch.logit(torch.tensor(model.postprocessor.bin_thresh))
        share = _logits(model, pixels).flatten().kthvalue(round((1 - TEXT_SHARE) * logits.numel())).values
        layers[-1].bias.add_(threshold - share)


def calibrate_recognizer(model: Any) -> None:
    """Scale random weights so that all characters are read about as often."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.normal_(std=module.in_features**-0.5)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(std=module.embedding_dim**-0.5)
    _, height, width = model.cfg["input_shape"]
    pixels = normalised(text_images(0, 16, height, width), model)
    _calibrate_norms(model, pixels)
    head = model.linear if hasattr(model, "linear") else model.head
    logits = _logits(model, pixels)
    # Every character as likely as any other. Otherwise only a few of them are ever read.
    centred = logits - logits.mean((0, 1))
    head.bias.sub_(logits.mean((0, 1)))
    for parameter in (head.weight, head.bias):
        parameter.mul_(LOGIT_SPREAD / centred.std())


def _calibrate_norms(model: Any, pixels: Tensor) -> None:
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None
    _logits(model, pixels)
    for norm in norms:
        norm.eval()


def _logits(model: Any, pixels: Tensor) -> Tensor:
    model.exportable = True
    try:
        return torch.as_tensor(model(pixels)["logits"])
    finally:
        model.exportable = False
