"""What holds for the specs of all models: how they are read, and which errors they raise."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from gateway.models.clip import END, START, ClipSpec
from gateway.models.doctr import DoctrSpec
from gateway.models.face_detection import YuNetSpec
from gateway.models.gaze import GazeSpec
from gateway.models.grounding_dino import GroundingDinoSpec
from gateway.models.grounding_dino_text import NEEDED_TOKENS
from gateway.models.sam import SamSpec
from gateway.models.spec import ModelSpec

# Checked by mypy: each of them gives a ModelSpec.
READERS: Mapping[str, Callable[[Mapping[str, str], Path], ModelSpec]] = {
    "clip": ClipSpec.from_parameters,
    "doctr": DoctrSpec.from_parameters,
    "face_detection": YuNetSpec.from_parameters,
    "gaze": GazeSpec.from_parameters,
    "grounding_dino": GroundingDinoSpec.from_parameters,
    "sam": SamSpec.from_parameters,
}
PARAMETERS: Mapping[str, Mapping[str, str]] = {
    "clip": {
        "image_size": "224",
        "resize_mode": "shortest",
        "interpolation": "bicubic",
        "fill_color": "0",
        "context_length": "77",
        "logit_scale": "100",
        "embedding_size": "512",
    },
    "doctr": {
        "image_size": "1024",
        "bin_threshold": "0.3",
        "box_threshold": "0.1",
        "unclip_ratio": "1.5",
        "min_box_size": "0",
        "crop_size": "32x128",
        "vocabulary": " abc",
        "decoder": "ctc",
    },
    "face_detection": {"canvas": "640", "small_faces_canvas": "1280"},
    "gaze": {"face_size": "448", "crop_size": "224"},
    "grounding_dino": {
        "shortest_edge": "800",
        "longest_edge": "1333",
        "canvases": "800x800,800x1344,1344x800",
        "text_lengths": "16,256",
    },
    "sam": {"image_size": "1024", "mask_size": "256"},
}
OPTIONAL_FRACTIONS = ("box_threshold", "text_threshold", "nms_iou_threshold")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder whose tokenizer has the tokens that any model needs."""
    folder = tmp_path_factory.mktemp("model")
    tokens = (START, END, *NEEDED_TOKENS)
    Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="[PAD]")).save(
        str(folder / "tokenizer.json")
    )
    return folder


@pytest.mark.parametrize(
    ("family", "side"),
    [
        ("clip", 224),
        ("doctr", 1024),
        ("face_detection", 640),
        ("gaze", 448),
        ("grounding_dino", 1333),
        ("sam", 1024),
    ],
)
def test_input_size_is_the_longest_side(folder: Path, family: str, side: int) -> None:
    assert READERS[family](PARAMETERS[family], folder).input_size == side


@pytest.mark.parametrize("family", READERS)
def test_parameters_of_others_do_not_matter(folder: Path, family: str) -> None:
    READERS[family]({"family": family, "variant": "tiny", **PARAMETERS[family]}, folder)


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family in PARAMETERS for name in PARAMETERS[family]]
)
def test_missing_parameters_are_named(folder: Path, family: str, name: str) -> None:
    parameters = {key: value for key, value in PARAMETERS[family].items() if key != name}
    with pytest.raises(ValueError, match=rf"^The model has no parameter {name}\.$"):
        READERS[family](parameters, folder)


@pytest.mark.parametrize(
    ("family", "name", "value", "requirement"),
    [
        ("clip", "image_size", "0", "a whole number of at least 1"),
        ("clip", "resize_mode", "stretch", "one of shortest, longest, squash"),
        ("clip", "interpolation", "nearest", "one of bicubic, bilinear"),
        ("clip", "fill_color", "256", "a whole number from 0 to 255"),
        ("clip", "context_length", "2", "a whole number of at least 3"),
        ("clip", "logit_scale", "nan", "a number above 0"),
        ("clip", "embedding_size", "", "a whole number of at least 1"),
        ("doctr", "image_size", "0", "a whole number of at least 1"),
        ("doctr", "bin_threshold", "2", "a number from 0 to 1"),
        ("doctr", "box_threshold", "low", "a number from 0 to 1"),
        ("doctr", "unclip_ratio", "0", "a number above 0"),
        ("doctr", "min_box_size", "-1", "a whole number of at least 0"),
        ("doctr", "crop_size", "32", "a size as HEIGHTxWIDTH"),
        ("doctr", "vocabulary", "", "a text that is not empty"),
        ("doctr", "decoder", "beam", "one of ctc, attention"),
        ("face_detection", "canvas", "650", "a positive multiple of 32"),
        ("face_detection", "small_faces_canvas", "-32", "a positive multiple of 32"),
        ("gaze", "face_size", "0", "a whole number of at least 1"),
        ("gaze", "crop_size", "half", "a whole number of at least 1"),
        ("grounding_dino", "shortest_edge", "eight", "a whole number of at least 1"),
        ("grounding_dino", "longest_edge", "1333,1334", "a whole number of at least 1"),
        ("grounding_dino", "canvases", "800*800", "sizes as HEIGHTxWIDTH, separated by commas"),
        ("grounding_dino", "canvases", "800x800", "sizes of which one holds 800x1333"),
        ("grounding_dino", "canvases", "800x1344", "sizes of which one holds 1333x800"),
        (
            "grounding_dino",
            "text_lengths",
            "32,16",
            "positive whole numbers in rising order, separated by commas",
        ),
        *(("grounding_dino", name, "1.5", "a number from 0 to 1") for name in OPTIONAL_FRACTIONS),
        ("sam", "image_size", "big", "a whole number of at least 1"),
        ("sam", "image_size", "1000", "a multiple of mask_size, 256"),
        ("sam", "mask_size", "0", "a whole number of at least 1"),
        ("sam", "fit", "crop", "one of longest, stretch"),
        ("sam", "padding_point", "", "one of without_box, always"),
    ],
)
def test_wrong_parameters_are_named(
    folder: Path, family: str, name: str, value: str, requirement: str
) -> None:
    message = re.escape(f"Parameter {name} is {value!r}; it must be {requirement}.")
    with pytest.raises(ValueError, match=f"^{message}$"):
        READERS[family]({**PARAMETERS[family], name: value}, folder)


@pytest.mark.parametrize("family", ["clip", "grounding_dino"])
def test_models_that_read_text_need_their_tokenizer(tmp_path: Path, family: str) -> None:
    with pytest.raises(ValueError, match=r"^There is no file .+/tokenizer\.json\.$"):
        READERS[family](PARAMETERS[family], tmp_path)
    Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"^The model's tokenizer\.json has no token "):
        READERS[family](PARAMETERS[family], tmp_path)
