import numpy as np

from export.demo import clip_captions, scenes
from export.demo.clip_captions import OPEN, matches
from export.demo.scenes import Plan


def said(*things: tuple[str | None, str | None]) -> list[tuple[int, int]]:
    """Content of captions: None is left open."""
    indices = [
        (
            OPEN if colour is None else clip_captions.COLOURS.index(colour),
            OPEN if kind is None else clip_captions.KINDS.index(kind),
        )
        for colour, kind in things
    ]
    return [*indices, (0, 0)][:2]


def test_captions_that_are_true_of_a_picture() -> None:
    shown = np.array(
        [
            said(("red", "circle"), ("blue", "square")),
            said(("red", "square"), ("blue", "circle")),
            said(("red", "circle")),
            said(("", "face")),
        ]
    )
    captions = {
        "both": said(("red", "circle"), ("blue", "square")),
        "in the other order": said(("blue", "square"), ("red", "circle")),
        "half of it": said(("red", "circle")),
        "one open": said((None, "square"), ("red", "circle")),
        "open colour": said((None, "circle")),
        "open kind": said(("red", None)),
        "face": said(("", "face")),
    }
    true = matches(shown, np.array(list(captions.values()))).T.astype(int).tolist()
    assert dict(zip(captions, true, strict=True)) == {
        "both": [1, 0, 0, 0],
        "in the other order": [1, 0, 0, 0],
        "half of it": [0, 0, 1, 0],
        "one open": [1, 0, 0, 0],
        "open colour": [0, 0, 1, 0],
        "open kind": [0, 0, 1, 0],
        "face": [0, 0, 0, 1],
    }


def test_captions_say_what_is_shown() -> None:
    random = np.random.default_rng(0)
    content = np.array(said(("orange", "circle"), ("blue", "cross")))
    captions = {clip_captions.caption(random, content) for _ in range(100)}
    assert len(captions) > 50
    for text in captions:
        assert "orange circle" in text
        assert "blue cross" in text
        assert "a blue" in text or "an blue" not in text
    open_colour = clip_captions.caption(random, np.array(said((None, "star"))))
    assert "star" in open_colour
    assert not any(colour in open_colour for colour in scenes.COLOURS)


def test_most_rivals_are_false() -> None:
    random = np.random.default_rng(0)
    for shown in (said(("red", "star")), said(("red", "star"), ("blue", "cross")), said(("", "word"))):
        content = np.array(shown)
        rivals = np.stack([clip_captions.rival(random, content) for _ in range(200)])
        assert 0.7 < 1 - matches(content[None], rivals).mean() <= 1
        # The captions' words are there for all of them.
        assert all(clip_captions.caption(random, content) for content in rivals)


def test_contents_that_cannot_be_told() -> None:
    plan = Plan((1, 6), (0, 0), (0, 0))
    counts = set()
    for seed in range(40):
        scene = scenes.draw(seed, 64, 64, plan)
        content = clip_captions.content_of(scene)
        phrases = {thing.phrase for thing in scene.things}
        assert (content is not None) == (len(phrases) == len(scene.things) <= 2)
        if content is not None:
            counts.add(int((content[:, 1] > 0).sum()))
    assert counts == {1, 2}
