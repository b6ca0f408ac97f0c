"""The demo's picture and its rows, asked of a client that knows the truth and of one that does not."""

from typing import Any

import numpy as np

from export.demo import show
from export.demo.families.grounding_dino import ABSENT
from export.demo.scenes import Scene

from .conftest import Knowing


async def test_the_truth_makes_every_row_right() -> None:
    scene = show.scene(0)
    client: Any = Knowing([scene])
    rows, picture = await show.ask(client, scene)
    assert [row.truth for row in rows] == [
        *(thing.phrase for thing in scene.things),
        *(f"no {phrase}" for phrase in ABSENT),
        *(f"the word {word.text}" for word in scene.words),
        "a face that looks 28° left, 12° down",
    ]
    assert all(row.is_right for row in rows), rows
    assert rows[0].answer == "red circle 0.90; CLIP says red circle"
    assert rows[-1].agreement == "0° apart"
    assert picture.size == show.SIZE
    assert (np.asarray(picture) != scene.image).any()


async def test_wrong_answers_are_marked() -> None:
    scene = show.scene(0)
    client: Any = Knowing([scene], wrong=True)
    rows, _ = await show.ask(client, scene)
    right = [row.truth for row in rows if row.is_right]
    assert right == [f"no {phrase}" for phrase in ABSENT]


async def test_what_is_missing_and_what_is_too_much_have_rows() -> None:
    scene = show.scene(0)
    nothing = Scene(scene.image)
    blind: Any = Knowing([nothing])
    rows, _ = await show.ask(blind, scene)
    missing = [row for row in rows if row.answer == "not found"]
    assert len(missing) == len(scene.things) + len(scene.words) + len(scene.faces)
    assert not any(row.is_right for row in missing)
    dreaming: Any = Knowing([scene])
    rows, _ = await show.ask(dreaming, nothing)
    extra = [row for row in rows if row.truth == "nothing"]
    assert len(extra) == len(scene.things) + len(scene.words) + len(scene.faces)
    assert not any(row.is_right for row in extra)


def test_another_seed_changes_the_picture_but_not_what_is_on_it() -> None:
    scene, other = show.scene(0), show.scene(1)
    assert (scene.image != other.image).any()
    assert [thing.phrase for thing in scene.things] == [thing.phrase for thing in other.things]
    assert [word.text for word in scene.words] == [word.text for word in other.words]
