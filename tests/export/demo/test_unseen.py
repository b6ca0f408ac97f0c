from export.demo.scenes import FIRST_UNSEEN_SEED, PHRASES
from export.demo.unseen import PHRASES_ASKED, asked_phrases, unseen


def test_unseen_scenes_hold_everything_and_have_unseen_seeds() -> None:
    pictures = unseen(12)
    assert all(any(getattr(scene, kind) for scene in pictures) for kind in ("things", "words", "faces"))
    assert {scene.image.shape for scene in pictures} == {(360, 480, 3), (480, 360, 3), (400, 400, 3)}
    assert FIRST_UNSEEN_SEED > 10**8


def test_phrases_asked_are_those_there_and_others() -> None:
    for index, scene in enumerate(unseen(6)):
        phrases = asked_phrases(scene, index)
        assert len(phrases) == len(set(phrases)) == PHRASES_ASKED
        assert {thing.phrase for thing in scene.things} <= set(phrases) <= set(PHRASES)
