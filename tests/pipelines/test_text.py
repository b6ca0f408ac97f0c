"""Which kind of text model a repository holds."""

from pathlib import Path

import pytest

from gateway.models.doctr import DoctrSpec
from gateway.models.text_lines import LineSpec
from gateway.pipelines.text import DOCTR

BOTH = {
    "bin_threshold": "0.3",
    "box_threshold": "0.5",
    "unclip_ratio": "1.6",
    "min_box_size": "3",
    "vocabulary": "abc ",
}
WORDS = {**BOTH, "image_size": "256", "crop_size": "32x128", "decoder": "ctc"}
LINES = {
    **BOTH,
    "min_side": "736",
    "max_side": "2016",
    "crop_height": "48",
    "crop_widths": "320,1280",
    "padding": "128",
    "min_confidence": "0.5",
}


def test_words_unless_the_model_says_lines() -> None:
    for parameters in (WORDS, {**WORDS, "unit": "word"}):
        spec = DOCTR.read_spec(parameters, Path())
        assert isinstance(spec, DoctrSpec)
        assert (spec.min_confidence, spec.by_columns) == (0, False)
    spec = DOCTR.read_spec({**LINES, "unit": "line"}, Path())
    assert isinstance(spec, LineSpec)
    assert (spec.min_confidence, spec.by_columns) == (0.5, True)
    assert DOCTR.characters(spec) == "abc "


def test_other_units_are_refused() -> None:
    with pytest.raises(ValueError, match="unit is 'page'; it must be one of word, line"):
        DOCTR.read_spec({**LINES, "unit": "page"}, Path())
