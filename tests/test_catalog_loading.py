"""The catalog follows Triton's models: what is read at the start, and what is picked up afterwards."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from export.demo.serving import REPOSITORY
from fake_triton import FakeTriton, Offering, reached
from gateway.catalog import Variant
from gateway.catalog_loading import AGREEING_LOOKS, CatalogError, CatalogLoader, NotReadyError
from gateway.errors import StatusError, TritonUnavailableError
from gateway.pipelines.detection import GROUNDING_DINO
from gateway.pipelines.gaze import GAZE
from gateway.pipelines.segmentation import SAM, SAM2
from gateway.services.registry import FAMILIES
from gateway.triton import ModelConfig
from offered_models import Models, gaze, grounding_dino, sam, sam2


@asynccontextmanager
async def loader_of(
    *fakes: FakeTriton, repository: Path = Path("nowhere"), families: Any = FAMILIES
) -> AsyncIterator[CatalogLoader]:
    async with reached(*fakes) as triton:
        yield CatalogLoader(triton, repository, families)


@asynccontextmanager
async def loaded(*fakes: FakeTriton, **others: Any) -> AsyncIterator[CatalogLoader]:
    async with loader_of(*fakes, **others) as loader:
        await loader.load()
        yield loader


async def look(loader: CatalogLoader, times: int = AGREEING_LOOKS) -> None:
    for _ in range(times):
        await loader.update()


def names(loader: CatalogLoader) -> list[tuple[str, str, bool]]:
    return [(each.family.name, each.name, each.is_default) for each in loader.catalog.variants]


def sentences(loader: CatalogLoader) -> list[str]:
    return [fault.sentence for fault in loader.catalog.faults]


def without(models: Models, name: str) -> Models:
    return {key: value for key, value in models.items() if key != name}


# At the start


async def test_variants_lie_side_by_side_and_the_plain_name_is_the_default() -> None:
    others: dict[str, ModelConfig | str] = {
        "something_else": sam()["sam_decoder"],
        "sam_decoder-vit_l": "",
        "sam_encoder-vit_l": "",
    }
    async with loaded(Offering({**sam("vit_b"), **sam("vit_h", "-vit_h"), **others})) as loader:
        assert names(loader) == [("sam", "vit_b", True), ("sam", "vit_h", False)]
        assert loader.catalog.choose(SAM, "").name == "vit_b"
        assert loader.catalog.choose(SAM, "vit_h").triton_models["sam_decoder"] == "sam_decoder-vit_h"


async def test_alternative_families_share_one_default_and_one_set_of_names() -> None:
    models = sam2() | sam2("hiera_large", "-hiera_large") | sam() | sam("vit_h", "-vit_h")
    async with loaded(Offering(models)) as loader:
        assert names(loader) == [
            ("sam", "vit_b", True),
            ("sam2", "hiera_large", False),
            ("sam2", "hiera_tiny", False),
            ("sam", "vit_h", False),
        ]
        chosen = loader.catalog.choose(SAM, "hiera_tiny")
        assert chosen.family is SAM2
        assert chosen.spec.stretches
        assert chosen.max_batch_sizes == {"sam2_encoder": 4, "sam2_decoder": 4}


@pytest.mark.parametrize(
    ("models", "default"),
    [
        (sam2(), "hiera_tiny"),
        # The plain name goes before a suffixed one, also where that is of the first family.
        (sam2() | sam("vit_h", "-vit_h"), "hiera_tiny"),
        (sam("vit_l", "-vit_l") | sam("vit_h", "-vit_h"), "vit_h"),
        (sam2("a", "-a") | sam("b", "-b"), "b"),
    ],
)
async def test_there_is_one_default_whatever_the_names(models: Models, default: str) -> None:
    async with loaded(Offering(models)) as loader:
        assert [each.name for each in loader.catalog.variants if each.is_default] == [default]
        assert loader.catalog.choose(SAM, "").name == default
        assert loader.catalog.lacks(SAM) == []


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ({}, "Triton has loaded none of the models that visiongate serves: .*sam_encoder"),
        (without(sam(), "sam_decoder"), "^model sam_decoder is not loaded .* but sam_encoder needs it$"),
        (
            without(sam2(), "sam2_decoder") | {"gaze": "UNAVAILABLE: no memory"},
            "model sam2_decoder is not loaded.*; Triton could not load model gaze: no memory|"
            "could not load model gaze: no memory; model sam2_decoder is not loaded",
        ),
    ],
)
async def test_without_anything_to_serve_there_is_no_start(models: Any, says: str) -> None:
    async with loader_of(Offering(models)) as loader:
        with pytest.raises(CatalogError, match=says):
            await loader.load()


async def test_what_is_broken_does_not_keep_others_from_being_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    models = (
        sam() | {"gaze": "UNAVAILABLE: no memory"} | without(sam2("hiera_tiny", "-tiny"), "sam2_encoder-tiny")
    )
    async with loaded(Offering(models)) as loader:
        assert names(loader) == [("sam", "vit_b", True)]
        said = [
            "Triton could not load model gaze: no memory",
            "model sam2_encoder-tiny is not loaded in Triton, but sam2_decoder-tiny needs it",
        ]
        assert sorted(sentences(loader)) == said
        await look(loader, 5)
        assert sorted(record.message for record in caplog.records if record.levelname == "ERROR") == said
        with pytest.raises(TritonUnavailableError, match="model gaze gaze cannot"):
            loader.catalog.choose(GAZE, "")


async def test_a_broken_default_stays_the_default() -> None:
    models = without(sam(), "sam_decoder") | sam("vit_h", "-vit_h") | sam2()
    async with loaded(Offering(models)) as loader:
        assert names(loader) == [("sam2", "hiera_tiny", False), ("sam", "vit_h", False)]
        with pytest.raises(TritonUnavailableError, match="model sam vit_b cannot be used"):
            loader.catalog.choose(SAM, "")


async def test_of_two_variants_of_one_name_the_later_is_a_fault() -> None:
    async with loaded(Offering(sam("large", "-large") | sam2("large"))) as loader:
        # The default is the first, whatever its family.
        assert names(loader) == [("sam2", "large", True)]
        assert sentences(loader) == [
            "models sam2_decoder and sam_decoder-large are both variant 'large': export one of them under "
            "another name"
        ]


async def test_the_start_waits_for_what_is_being_loaded() -> None:
    fake = Offering(sam() | {"gaze": "LOADING"})
    async with loader_of(fake) as loader:
        with pytest.raises(NotReadyError, match="Triton has not loaded and warmed up model gaze yet"):
            await loader.load()
        fake.models |= gaze()
        await loader.load()
        assert [name for _, name, _ in names(loader)] == ["resnet50", "vit_b"]


async def test_a_fault_of_the_program_is_none_of_the_models() -> None:
    def read_spec(*_: object) -> Any:
        raise TypeError("a bug")

    async with loader_of(Offering(sam()), families=[replace(SAM, read_spec=read_spec)]) as loader:
        with pytest.raises(TypeError, match="a bug"):
            await loader.load()


# Afterwards


async def test_a_new_variant_is_there_after_a_few_looks_and_the_others_stay_as_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "gateway.catalog_loading")
    fake = Offering(sam() | gaze())
    async with loaded(fake) as loader:
        before = loader.catalog.variants
        await look(loader, 4)
        assert not caplog.records
        fake.models |= sam("vit_h", "-vit_h")
        await look(loader, AGREEING_LOOKS - 1)
        assert loader.catalog.variants == before
        await look(loader, 1)
        assert loader.catalog.choose(SAM, "vit_h").triton_models["sam_encoder"] == "sam_encoder-vit_h"
        assert [each for each in loader.catalog.variants if each.name != "vit_h"] == before
        assert all(new is old for new, old in zip(loader.catalog.variants, before, strict=False))
        assert loader.catalog.is_ready(loader.catalog.choose(SAM, "vit_h"))
        await look(loader, 4)
    assert [record.message for record in caplog.records] == ["the models have changed: new: sam vit_h"]


@pytest.mark.parametrize("end", ["absent", "", "UNAVAILABLE: unloaded"])
async def test_an_unloaded_variant_goes_and_another_becomes_the_default(
    end: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.catalog_loading")
    fake = Offering(sam() | sam("vit_h", "-vit_h"))
    async with loaded(fake) as loader:
        named = loader.catalog.choose(SAM, "vit_h")
        for name in sam():
            fake.models[name] = end
            if end == "absent":
                del fake.models[name]
        await look(loader, AGREEING_LOOKS - 1)
        assert loader.catalog.choose(SAM, "").name == "vit_b"
        await look(loader, 1)
        assert names(loader) == [("sam", "vit_h", True)]
        assert loader.catalog.choose(SAM, "").fingerprint == named.fingerprint
    assert [record.message for record in caplog.records] == [
        "the models have changed: gone: sam vit_b; now the default: sam vit_h"
    ]


async def test_all_may_go_and_come_again() -> None:
    fake = Offering(sam())
    async with loaded(fake) as loader:
        fake.models = {}
        await look(loader)
        assert not loader.catalog.entries
        fake.models = dict(sam())
        await look(loader)
        assert names(loader) == [("sam", "vit_b", True)]


def loading(fake: Offering) -> None:
    fake.models |= dict.fromkeys(sam(), "LOADING")


def unloading(fake: Offering) -> None:
    fake.models["sam_decoder"] = "UNLOADING"


def away(fake: Offering) -> None:
    fake.is_away = True


@pytest.mark.parametrize("change", [loading, unloading, away])
async def test_nothing_is_dropped_while_models_are_on_their_way(change: Callable[[Offering], None]) -> None:
    fake = Offering(sam(export="12") | gaze())
    async with loaded(fake) as loader:
        variant = loader.catalog.choose(SAM, "")
        change(fake)
        await look(loader, 2 * AGREEING_LOOKS)
        assert loader.catalog.choose(SAM, "") is variant
        assert not loader.catalog.is_ready(variant)
        fake.is_away = False
        fake.models |= sam(export="12")
        await look(loader, 1)
        assert loader.catalog.choose(SAM, "") is variant
        assert loader.catalog.is_ready(variant)


async def test_a_new_export_under_the_same_name_is_loaded_anew(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.catalog_loading")
    fake = Offering(sam(export="12") | gaze())
    async with loaded(fake) as loader:
        old, other = loader.catalog.choose(SAM, ""), loader.catalog.choose(GAZE, "")
        fake.models |= sam(export="34")
        await look(loader, AGREEING_LOOKS - 1)
        assert loader.catalog.choose(SAM, "") is old
        await look(loader, 1)
        new = loader.catalog.choose(SAM, "")
        assert (old.fingerprint[:3], new.fingerprint[:3]) == ("12#", "34#")
        assert loader.catalog.choose(GAZE, "") is other
        # What was answered between Triton's change and its notice must not count for the first weights.
        fake.models |= sam(export="12")
        await look(loader)
        assert loader.catalog.choose(SAM, "").fingerprint not in (old.fingerprint, new.fingerprint)
    assert [record.message for record in caplog.records] == [
        "the models have changed: loaded anew: sam vit_b"
    ] * 2


@pytest.mark.parametrize("change", [loading, away])
async def test_a_variant_made_by_hand_may_come_back_as_another(change: Callable[[Offering], None]) -> None:
    fake = Offering(sam())
    async with loaded(fake) as loader:
        before = loader.catalog.choose(SAM, "")
        await look(loader, 5)
        assert loader.catalog.choose(SAM, "") is before
        change(fake)
        await look(loader, 1)
        fake.is_away = False
        fake.models |= sam()
        # Before it is asked again, not some looks later.
        assert loader.catalog.choose(SAM, "").fingerprint != before.fingerprint
        assert loader.catalog.choose(SAM, "").spec is before.spec


async def test_a_variant_that_breaks_is_unavailable_until_it_is_mended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "gateway.catalog_loading")
    fake = Offering(sam() | gaze())

    def reloads() -> list[float]:
        found = (
            REGISTRY.get_sample_value("visiongate_reloads_total", {"what": "models", "result": result})
            for result in ("ok", "failed")
        )
        return [value or 0 for value in found]

    async with loaded(fake) as loader:
        ok, failed = reloads()
        fake.models["sam_decoder"] = "UNAVAILABLE: no memory"
        await look(loader, AGREEING_LOOKS - 1)
        assert loader.catalog.choose(SAM, "").name == "vit_b"
        await look(loader, 5)
        with pytest.raises(TritonUnavailableError, match="model sam vit_b cannot"):
            loader.catalog.choose(SAM, "")
        assert reloads() == [ok, failed + 1]
        # While it is loaded again it is no better.
        fake.models["sam_decoder"] = "LOADING"
        await look(loader)
        with pytest.raises(TritonUnavailableError, match="model sam vit_b cannot"):
            loader.catalog.choose(SAM, "vit_b")
        fake.models |= sam()
        await look(loader)
        assert loader.catalog.choose(SAM, "").name == "vit_b"
        assert reloads() == [ok + 1, failed + 1]
    assert REGISTRY.get_sample_value("visiongate_triton_retries_total", {"model": "sam_decoder"}) is not None
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "the models have changed: broken: sam vit_b"),
        ("ERROR", "Triton could not load model sam_decoder: no memory"),
        ("INFO", "the models have changed: mended: sam vit_b"),
    ]


async def test_a_missing_file_may_come_later(tmp_path: Path) -> None:
    fake = Offering(gaze() | grounding_dino())
    async with loaded(fake, repository=tmp_path) as loader:
        path = tmp_path / "grounding_dino" / "tokenizer.json"
        assert sentences(loader) == [f"model grounding_dino: There is no file {path}."]
        await look(loader)
        assert loader.catalog.faults
        path.parent.mkdir()
        shutil.copy(REPOSITORY / "grounding_dino" / "tokenizer.json", path)
        await look(loader, 1)
        assert loader.catalog.choose(GROUNDING_DINO, "").spec.input_size == 1333


async def test_files_are_read_only_when_their_variant_has_changed() -> None:
    read: list[str] = []

    def read_spec(parameters: Any, folder: Path) -> Any:
        read.append(folder.name)
        return SAM.read_spec(parameters, folder)

    fake = Offering(sam() | sam("vit_h", "-vit_h"))
    async with loaded(fake, families=[replace(SAM, read_spec=read_spec)]) as loader:
        assert read == ["sam_encoder", "sam_encoder-vit_h"]
        fake.models |= sam("vit_h", "-vit_h", export="12")
        await look(loader, 2 * AGREEING_LOOKS)
        assert read == ["sam_encoder", "sam_encoder-vit_h", "sam_encoder-vit_h"]


async def test_a_bug_in_one_variant_leaves_the_others_as_they_are() -> None:
    def read_spec(parameters: Any, folder: Path) -> Any:
        if "export" in parameters:
            raise TypeError("a bug")
        return SAM.read_spec(parameters, folder)

    fake = Offering(sam())
    async with loaded(fake, families=[replace(SAM, read_spec=read_spec)]) as loader:
        before = loader.catalog.entries
        fake.models |= sam(export="12") | sam("vit_h", "-vit_h")
        await look(loader, AGREEING_LOOKS - 1)
        with pytest.raises(TypeError, match="a bug"):
            await look(loader, 1)
        assert loader.catalog.entries == before
        await look(loader, 1)
        assert [each.name for each in loader.catalog.variants] == ["vit_b", "vit_h"]


# Several Tritons


async def test_a_model_that_one_of_them_has_is_offered() -> None:
    one, two = Offering(sam()), Offering(sam())
    async with loaded(one, two) as loader:
        one.models |= sam("vit_h", "-vit_h")
        await look(loader)
        assert [each.name for each in loader.catalog.variants] == ["vit_b", "vit_h"]
        del two.models["sam_decoder"]
        for _ in range(5):
            await loader.update()
            assert loader.catalog.is_ready(loader.catalog.choose(SAM, ""))


async def test_of_two_exports_the_one_in_use_stays_until_another_has_more_servers() -> None:
    """As while one server after the other gets new weights."""
    fakes = [Offering(sam(export="old")) for _ in range(3)]
    async with loaded(*fakes) as loader:
        before = loader.catalog.variants
        fakes[0].models |= sam(export="new")
        await look(loader)
        assert loader.catalog.variants == before
        fakes[1].models |= sam(export="new")
        await look(loader)
        assert loader.catalog.variants != before
        assert all(isinstance(each, Variant) for each in loader.catalog.variants)


async def test_while_one_of_two_is_silent_models_stay_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.triton_server.HEALTH_TIMEOUT_S", 0.2)
    one, two = Offering(sam()), Offering(sam())
    async with loaded(one, two) as loader:
        variant = loader.catalog.choose(SAM, "")
        one.is_silent = True
        for _ in range(4):
            await loader.update()
            assert loader.catalog.is_ready(variant)
        two.is_silent = True
        await loader.update()
        assert not loader.catalog.is_ready(variant)
        one.is_silent = two.is_silent = False


# Waiting


async def test_a_triton_that_goes_away_under_way_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    fake = Offering(sam())
    fake.is_away = True
    async with loader_of(fake) as loader:
        with pytest.raises(StatusError):
            await loader.load()
        with pytest.raises(NotReadyError, match="Triton at here: the model server cannot be reached"):
            await loader.load_when_ready("here", wait_s=0)
        waiting = asyncio.create_task(loader.load_when_ready("here", wait_s=60))
        while not caplog.records:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        fake.is_away = False
        await waiting
        assert isinstance(loader.catalog.entries[0], Variant)
    assert [record.message[:17] for record in caplog.records] == ["waiting: Triton a"]
