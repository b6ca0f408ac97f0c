"""How the demo models learn: one loop for all, which can be stopped at any time and continues from there."""

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from visiongate.commands.common import note

SAVE_EVERY_S = 60


class Learner(Protocol):
    """One model, and what it should learn."""

    network: nn.Module
    """In training mode in `loss`; in evaluation mode, with averaged weights, in `report` and `save`."""

    def loss(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        """Draw a batch and return the terms of its loss, which are added up.

        `random` belongs to the step. `progress` goes from 0 to 1 over the training.
        """

    def report(self) -> str:
        """Return a line of figures on scenes that are not trained on."""

    def save(self, folder: Path) -> None:
        """Write the weights as the family's exporter reads them with `--weights demo`."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast a model learns.

    The optimiser is AdamW. The learning rate rises linearly in the warm-up, and then falls along a cosine to
    a hundredth. average: the decay of the moving average of the weights, which is what is kept. bfloat16:
    whether products and convolutions compute in it.
    """

    steps: int
    learning_rate: float
    warmup: int = 200
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    average: float = 0.998
    bfloat16: bool = False
    report_every: int = 500
    seed: int = 0


def train(
    make: Callable[[torch.device], Learner],
    recipe: Recipe,
    name: str,
    *,
    state: Path,
    weights: Path,
    device: str = "cpu",
) -> None:
    """Train to the end of the recipe and write the weights to the folder `weights`.

    `state` is the file from which a stopped training continues.
    """
    torch.manual_seed(recipe.seed)
    learner = make(torch.device(device))
    network = learner.network.to(device)
    averaged = deepcopy(network).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(_groups(network, recipe), lr=recipe.learning_rate)
    done = _resume(state, network, averaged, optimizer, device)
    if done:
        note(f"{name}: continues after step {done}")
    last_save, start, started_at = time.monotonic(), time.monotonic(), done
    sums: dict[str, float] = {}
    for step in range(done, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, recipe)
        random = np.random.default_rng([recipe.seed, step])
        network.train()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=recipe.bfloat16):
            terms = learner.loss(random, step / recipe.steps)
        loss = torch.stack([term.float() for term in terms.values()]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), recipe.max_gradient_norm)
        optimizer.step()
        _average(averaged, network, min(recipe.average, (1 + step) / (10 + step)))
        for term, value in terms.items():
            sums[term] = sums.get(term, 0.0) + float(value.detach())
        count = step + 1
        if count % recipe.report_every == 0 or count == recipe.steps:
            every = (time.monotonic() - start) / (count - started_at)
            losses = ", ".join(f"{term} {total / recipe.report_every:.3f}" for term, total in sums.items())
            left = every * (recipe.steps - count) / 60
            note(
                f"{name}: step {count} of {recipe.steps}, {every:.2f} s each, {left:.0f} min left; {losses}; "
                + _with_weights(learner, averaged, learner.report)
            )
            sums.clear()
        if time.monotonic() - last_save > SAVE_EVERY_S or count == recipe.steps:
            _keep(state, network, averaged, optimizer, count)
            last_save = time.monotonic()
    weights.mkdir(parents=True, exist_ok=True)
    _with_weights(learner, averaged, lambda: learner.save(weights))
    note(f"{name}: the weights are in {weights}")


def train_family(
    make: Callable[[torch.device], Learner],
    recipe: Recipe,
    name: str,
    *,
    device: str,
    steps: int | None,
    states: Path,
    weights: Path,
) -> None:
    """Train for `steps`, or as many as the recipe has. The state is a file in the folder `states`."""
    chosen = replace(recipe, steps=steps or recipe.steps)
    train(make, chosen, name, state=states / f"{name}.pt", weights=weights, device=device)


def save_halves(state: dict[str, Tensor], path: Path) -> None:
    """Write weights to a safetensors file, with floats in half precision."""
    halves = {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in state.items()
    }
    save_file(halves, path)


def _groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the groups of the optimiser: norms and biases do not decay."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _rate(step: int, recipe: Recipe) -> float:
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    share = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    ours, theirs = averaged.state_dict(), network.state_dict()
    for name, value in ours.items():
        if value.is_floating_point():
            value.lerp_(theirs[name], 1 - decay)
        else:
            value.copy_(theirs[name])


def _with_weights(learner: Learner, averaged: nn.Module, function: Callable[[], Any]) -> Any:
    """Call a function while the averaged weights are in place of the current ones."""
    network = learner.network
    current = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(averaged.state_dict())
    network.eval()
    try:
        with torch.no_grad():
            return function()
    finally:
        network.load_state_dict(current)


def _keep(
    state: Path, network: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer, step: int
) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    partial = state.with_suffix(".partial")
    torch.save(
        {
            "network": network.state_dict(),
            "averaged": averaged.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
        },
        partial,
    )
    partial.replace(state)


def _resume(
    state: Path, network: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer, device: str
) -> int:
    if not state.is_file():
        return 0
    kept = torch.load(state, map_location=device, weights_only=True)
    network.load_state_dict(kept["network"])
    averaged.load_state_dict(kept["averaged"])
    optimizer.load_state_dict(kept["optimizer"])
    return int(kept["step"])
