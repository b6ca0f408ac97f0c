"""Where docTR's weights come from."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from export import doctr_weights
from export.errors import ExportError
from export.families.doctr import DEFAULT, DETECTORS, RECOGNIZERS, TINY
from export.weights import Options

RANDOM = Options(weights="random", size="tiny")


@pytest.fixture(scope="module", autouse=True)
def _uncalibrated() -> Iterator[None]:
    """Calibration takes seconds, and gives the weights no other source."""
    with pytest.MonkeyPatch.context() as context:
        for name in ("calibrate_detector", "calibrate_recognizer"):
            context.setattr(doctr_weights, name, lambda model: None)
        yield


@pytest.fixture(scope="module")
def networks() -> doctr_weights.Networks:
    return doctr_weights.build(RANDOM)


def save(networks: doctr_weights.Networks, folder: Path, suffix: str) -> None:
    states = {TINY.detector: networks.detector, TINY.recognizer: networks.recognizer}
    for name, model in states.items():
        state = model.state_dict()
        if suffix == ".safetensors":
            save_file(state, folder / f"{name}{suffix}")
        else:
            # As docTR's own cache names its files.
            torch.save(state, folder / f"{name}-0123abcd{suffix}")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_of_a_folder(networks: doctr_weights.Networks, tmp_path: Path, suffix: str) -> None:
    save(networks, tmp_path, suffix)
    loaded = doctr_weights.build(replace(RANDOM, weights=str(tmp_path), seed=9))
    for one, other in (
        (loaded.detector, networks.detector),
        (loaded.recognizer, networks.recognizer),
    ):
        for name, value in other.state_dict().items():
            assert torch.equal(one.state_dict()[name], value), name


def test_a_folder_with_another_vocabulary(tmp_path: Path) -> None:
    file = tmp_path / "vocabulary.txt"
    file.write_text("abc", encoding="utf-8")
    options = replace(RANDOM, vocabulary=file)
    save(doctr_weights.build(options), tmp_path, ".safetensors")
    with pytest.raises(ExportError, match="--vocabulary"):
        doctr_weights.build(replace(RANDOM, weights=str(tmp_path)))
    assert doctr_weights.build(replace(options, weights=str(tmp_path))).recognizer.vocab == "abc"


def test_a_pickle_that_runs_code_is_refused(networks: doctr_weights.Networks, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "ran").touch, ())

    torch.save({"weight": Evil()}, tmp_path / f"{TINY.detector}.pt")
    with pytest.raises(ExportError, match="Cannot read"):
        doctr_weights.build(replace(RANDOM, weights=str(tmp_path)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda state: state.pop("fpn.in_branches.0.0.weight"),
            "lacks weights .* fpn.in_branches.0.0.weight",
        ),
        (lambda state: state.update(extra=torch.zeros(1)), "it has extra"),
        (lambda state: state.update({"fpn.in_branches.0.0.weight": torch.zeros(1, 2)}), r"is \[1, 2\], not"),
        (lambda state: state.update(epoch=3), "something other"),
    ],
)
def test_other_weights_are_refused(
    networks: doctr_weights.Networks, tmp_path: Path, change: Callable[[Any], Any], says: str
) -> None:
    state = dict(networks.detector.state_dict())
    change(state)
    torch.save(state, tmp_path / f"{TINY.detector}.pt")
    with pytest.raises(ExportError, match=says):
        doctr_weights.build(replace(RANDOM, weights=str(tmp_path)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(weights="random", variant="db_resnet50"), "a hyphen"),
        (Options(weights="random", variant="db_resnet99-parseq"), "db_resnet99-parseq"),
        (replace(RANDOM, revision="main"), "--revision"),
        (replace(RANDOM, weights="hub"), "no tiny weights"),
        (replace(RANDOM, weights="/nowhere"), "not a folder"),
        (replace(RANDOM, vocabulary=Path(__file__)), "no vocabulary"),
        (Options(vocabulary=Path(__file__)), "--vocabulary"),
    ],
)
def test_options_that_cannot_be(options: Options, says: str) -> None:
    with pytest.raises(ExportError, match=says):
        doctr_weights.build(options)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"no {TINY.detector}.pt"):
        doctr_weights.build(replace(RANDOM, weights=str(tmp_path)))


def test_the_hub_is_doctrs_own_download(monkeypatch: pytest.MonkeyPatch) -> None:
    from doctr.models import detection, recognition

    asked = []

    def stub(name: str, tiny: Callable[..., Any]) -> Callable[..., Any]:
        def make(pretrained: bool, **arguments: Any) -> Any:
            asked.append((name, pretrained, arguments))
            return tiny()

        return make

    networks = doctr_weights.build(RANDOM)
    monkeypatch.setattr(detection, "db_resnet50", stub("db_resnet50", lambda: networks.detector))
    monkeypatch.setattr(recognition, "crnn_vgg16_bn", stub("crnn_vgg16_bn", lambda: networks.recognizer))
    built = doctr_weights.build(Options())
    assert built.variant == DEFAULT
    assert asked == [
        ("db_resnet50", True, {"pretrained_backbone": False}),
        ("crnn_vgg16_bn", True, {"pretrained_backbone": False}),
    ]


def test_a_failed_download_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from doctr.models import detection

    def fail(**_arguments: Any) -> Any:
        raise OSError("no route to host")

    monkeypatch.setattr(detection, "db_resnet50", fail)
    with pytest.raises(ExportError, match=r"Cannot fetch db_resnet50: .*no route"):
        doctr_weights.build(Options())


def test_every_architecture_is_doctrs() -> None:
    from doctr.models import detection, recognition

    assert all(hasattr(detection, name) for name in DETECTORS)
    assert all(hasattr(recognition, name) for name in RECOGNIZERS)
    # A variant's name is split at its hyphen.
    assert not any("-" in name for name in (*DETECTORS, *RECOGNIZERS))


def test_the_same_seed_is_the_same_model() -> None:
    one, same, other = (doctr_weights.build(replace(RANDOM, seed=seed)) for seed in (1, 1, 2))
    weights = [networks.recognizer.linear.weight for networks in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
