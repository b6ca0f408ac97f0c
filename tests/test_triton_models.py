"""What one look at a Triton tells."""

from dataclasses import replace

import grpc
import pytest

from fake_triton import Offering, reached
from gateway.pipelines.segmentation import SAM, SAM2
from gateway.triton_models import Look, look
from offered_models import gaze, sam, sam2

FAMILIES = [SAM, SAM2]
PLAIN, LARGE = (SAM, ""), (SAM, "-vit_h")


async def looked(fake: Offering, *known: tuple[object, str]) -> Look:
    async with reached(fake) as triton:
        return await look(triton, FAMILIES, known)  # type: ignore[arg-type]


async def test_variants_are_told_by_the_names_of_their_models() -> None:
    fake = Offering(sam("vit_h", "-vit_h") | sam2() | gaze() | {"sam_encoder": "", "sam": "READY"})
    seen = await looked(fake)
    assert list(seen.keys(FAMILIES)) == [LARGE, (SAM2, "")]
    assert seen.seen(LARGE) == tuple(sam("vit_h").values())
    # Models of other families are nobody's business.
    assert set(fake.asked) == {*sam("vit_h", "-vit_h"), *sam2()}


@pytest.mark.parametrize(
    ("decoder", "undecided", "part"),
    [
        ("", None, None),
        ("UNAVAILABLE: unloaded", None, None),
        ("UNAVAILABLE: no memory", None, "no memory"),
        ("UNAVAILABLE", None, "no reason given"),
        ("LOADING", "sam_decoder", None),
        ("UNLOADING", "sam_decoder", None),
    ],
)
async def test_a_model_is_there_or_broken_or_absent_or_on_its_way(
    decoder: str, undecided: str | None, part: str | None
) -> None:
    encoder = sam()["sam_encoder"]
    seen = await looked(Offering({"sam_encoder": encoder, "sam_decoder": decoder}), PLAIN)
    assert seen.undecided(PLAIN) == undecided
    assert seen.is_away(PLAIN)
    if undecided is None:
        assert seen.seen(PLAIN) == (encoder, part)


async def test_a_triton_that_is_away_tells_nothing_but_that() -> None:
    fake = Offering(sam())
    fake.is_away = True
    seen = await looked(fake, PLAIN)
    assert seen.error is not None
    assert seen.error.code is grpc.StatusCode.UNAVAILABLE
    assert seen.undecided(PLAIN) == "sam_encoder"
    assert seen.is_away(PLAIN)


async def test_silence_is_told_from_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.triton_server.HEALTH_TIMEOUT_S", 0.2)
    fake = Offering(sam())
    fake.is_silent = True
    seen = await looked(fake, PLAIN)
    assert seen.silent == {"sam_encoder", "sam_decoder"}
    assert seen.undecided(PLAIN)
    assert not seen.is_away(PLAIN)


async def test_what_is_known_of_the_config_is_what_is_sent() -> None:
    models = {name: replace(config, max_batch_size=7) for name, config in sam(export="12").items()}
    assert (await looked(Offering(models))).configs == models
