"""Train the demo CLIP, with a vocabulary of its own, on drawn scenes and what can be said of them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from export import clip, clip_weights
from export.demo import command, training
from export.demo.clip_captions import caption, matches, rival, with_open
from export.demo.clip_exam import Exam
from export.demo.clip_pictures import Square, draw_pictures, vary
from export.demo.clip_vocabulary import tokenizer, write_vocabulary
from export.demo.training import Recipe
from export.families.clip import DEMO, DEMO_VOCABULARY

RECIPE = Recipe(steps=2400, learning_rate=2e-3, weight_decay=0.05, average=0.995, bfloat16=True)
# Pictures in a batch. It has two captions for each of them.
BATCH = 128
# Seeds whose pictures are drawn before the training. Each is seen in many variations.
POOL = 10_000
MAX_SCALE = 100.0


class Learner:
    """A CLIP that learns by contrasting pictures with captions. Several captions can be true of one picture.

    pool: how many seeds are drawn, to be trained on again and again. examined: how many to report on.
    """

    network: Any

    def __init__(self, device: torch.device, pool: int = POOL, examined: int = 300) -> None:
        from open_clip import CLIP

        self.network = model = CLIP(**DEMO)
        clip_weights.set_preprocessing(model, {})
        self._pictures = draw_pictures(Square(model), range(pool))
        self._tokenize = tokenizer()
        self._exam = Exam(Square(model), examined)
        self._device = device

    def loss(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        chosen = random.integers(len(self._pictures.images), size=BATCH)
        images = np.stack([vary(random, image) for image in self._pictures.images[chosen]])
        contents = self._pictures.contents[chosen]
        said = np.stack(
            [with_open(random, content) for content in contents]
            + [with_open(random, rival(random, content)) for content in contents]
        )
        ids = self._tokenize([caption(random, content) for content in said])
        with torch.no_grad():
            self.network.logit_scale.clamp_(max=math.log(MAX_SCALE))
        (pictures,) = clip.ImageTower(self.network)(torch.from_numpy(images).to(self._device))
        captions = encode(self.network, ids.to(self._device))
        return contrast(pictures, captions, matches(contents, said), self.network.logit_scale)

    def report(self) -> str:
        return self._exam.report(self.network, self._tokenize, self._device)

    def save(self, folder: Path) -> None:
        training.save_halves(self.network.state_dict(), folder / "model.safetensors")
        write_vocabulary(folder / DEMO_VOCABULARY)


def contrast(
    pictures: Tensor, captions: Tensor, true: NDArray[np.bool_], log_scale: Tensor
) -> dict[str, Tensor]:
    """Return the cross-entropies from pictures [N,D] to their captions [M,D], and back.

    `true` [N,M] says which captions are true of which pictures. If several are, each has an equal share.
    Captions that are true of no picture are only wrong answers for the pictures.
    """
    pictures, captions = (functional.normalize(rows.float(), dim=1) for rows in (pictures, captions))
    logits = log_scale.exp() * pictures @ captions.T
    targets = torch.from_numpy(true).to(logits)
    shown = targets.any(0)
    back = targets.T[shown]
    return {
        "to captions": functional.cross_entropy(logits, targets / targets.sum(1, keepdim=True)),
        "to pictures": functional.cross_entropy(logits.T[shown], back / back.sum(1, keepdim=True)),
    }


def encode(model: Any, ids: Tensor) -> Tensor:
    """Return what `encode_text` does, but skip the empty places after the longest text, without effect."""
    length = int(ids.argmax(1).max()) + 1
    ids = ids[:, :length]
    rows = model.token_embedding(ids) + model.positional_embedding[:length]
    rows = model.ln_final(model.transformer(rows, attn_mask=model.attn_mask[:length, :length]))
    ends: Tensor = rows[torch.arange(len(ids)), ids.argmax(1)] @ model.text_projection
    return ends


def run(device: str, steps: int | None, states: Path, weights: Path) -> None:
    """Train and write the weights."""
    training.train_family(
        Learner, RECIPE, "clip", device=device, steps=steps, states=states, weights=weights / "clip"
    )


if __name__ == "__main__":
    command.main(run)
