from export.demo.families.clip import GALLERY, gallery


def test_captions_of_a_gallery_say_different_things() -> None:
    pictures, captions = gallery(0)
    assert len(pictures) == len(set(captions)) == GALLERY
    phrases_said = [frozenset(caption.replace("a ", "").split(" and ")) for caption in captions]
    assert len(set(phrases_said)) == GALLERY
    for scene, phrases in zip(pictures, phrases_said, strict=True):
        assert {thing.phrase for thing in scene.things} == phrases
