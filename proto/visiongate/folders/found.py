"""What the labels of a folder are, for people: how many of each class, and examples to look at."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from visiongate.batch.item import Item
from visiongate.batch.wording import counted
from visiongate.detections import Detections
from visiongate.folders.labelled import LabelledPhotos
from visiongate.folders.page import Section, Tile
from visiongate.folders.previews import preview, sample
from visiongate.folders.thumbnails import MAX_SIDE

EXAMPLES = 24
"""Photos of each section of a page: enough to see what goes wrong."""

_NOTHING = ""
_FAILED = "No model could label these. They are not in the data set."


@dataclass(frozen=True, slots=True)
class Found:
    """What there is.

    objects, photos: how many objects each class has, and on how many photos they are. unlabelled: how many
    photos have none. examples: ids of some photos of each class, and of "" for those without labels.
    """

    objects: Counter[str]
    photos: Counter[str]
    unlabelled: int
    examples: Mapping[str, Sequence[str]]


def count(labelled: LabelledPhotos) -> Found:
    """Go through all labels."""
    objects: Counter[str] = Counter()
    photos: Counter[str] = Counter()
    ids: defaultdict[str, list[str]] = defaultdict(list)
    for name, labels in labelled.detections():
        counts = Counter(labels.phrases)
        objects += counts
        photos.update(counts.keys())
        for each in counts or [_NOTHING]:
            ids[each].append(name)
    examples = {each: sample(names, EXAMPLES) for each, names in ids.items()}
    return Found(objects, photos, len(ids[_NOTHING]), examples)


def sections(labelled: LabelledPhotos, found: Found) -> list[Section]:
    """Return what a page shows: examples of each class, of photos without labels, and what failed."""
    wanted = {name for names in found.examples.values() for name in names}
    labels = {name: each for name, each in labelled.detections() if name in wanted}

    def tiles(names: Sequence[str]) -> list[Tile]:
        return [
            Tile(_drawn(labelled.items[name], labels[name]), name, detail=_summary(labels[name]))
            for name in names
        ]

    made = [
        Section(
            f"{name}: {found.objects[name]:,}",
            _where(found.photos[name]),
            tiles(found.examples.get(name, [])),
        )
        for name in labelled.settings["phrases"]
    ]
    if found.unlabelled:
        made.append(
            Section(
                f"No labels: {found.unlabelled:,}",
                "Nothing was found here. If something is missing, a lower --min-score finds more.",
                tiles(found.examples[_NOTHING]),
            )
        )
    failures = list(labelled.failures())
    if failures:
        made.append(
            Section(
                f"Failed: {len(failures):,}",
                _FAILED,
                [Tile(labelled.items[name].read, name, detail=error) for name, error in failures[:EXAMPLES]],
            )
        )
    return made


def _drawn(item: Item, labels: Detections) -> Callable[[], Image.Image]:
    # Drawn as small as it is shown: captions that are made smaller afterwards cannot be read.
    return lambda: preview(item.read(), labels, MAX_SIDE)


def _where(photos: int) -> str:
    if not photos:
        return "Nothing of this class was found."
    rest = f"; here are {EXAMPLES} of them, from all over the folder" if photos > EXAMPLES else ""
    return f"On {counted(photos, 'photo')}{rest}."


def _summary(labels: Detections) -> str:
    return ", ".join(f"{number} {name}" for name, number in Counter(labels.phrases).items())
