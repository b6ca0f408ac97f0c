import re
from collections.abc import Callable

import pytest

from gateway.models.parameters import ParameterReader

Read = Callable[[ParameterReader], object]


@pytest.mark.parametrize(
    ("value", "read", "expected"),
    [
        ("ab c ", lambda reader: reader.text("it"), "ab c "),
        ("two", lambda reader: reader.one_of("it", ("one", "two")), "two"),
        ("12", lambda reader: reader.whole_number("it"), 12),
        (" 0 ", lambda reader: reader.whole_number("it", 0), 0),
        ("255", lambda reader: reader.whole_number("it", 0, 255), 255),
        ("96", lambda reader: reader.multiple("it", 32), 96),
        ("16, 32,64", lambda reader: reader.rising_numbers("it"), (16, 32, 64)),
        ("7", lambda reader: reader.rising_numbers("it"), (7,)),
        ("32x128", lambda reader: reader.size("it"), (32, 128)),
        ("32x128, 1x2", lambda reader: reader.sizes("it"), ((32, 128), (1, 2))),
        ("1.5", lambda reader: reader.positive_number("it"), 1.5),
        ("0", lambda reader: reader.fraction("it"), 0),
        ("1", lambda reader: reader.fraction("it", 0.5), 1),
    ],
)
def test_values(value: str, read: Read, expected: object) -> None:
    assert read(ParameterReader({"it": value})) == expected


def test_defaults_stand_in_for_missing_values() -> None:
    reader = ParameterReader({})
    assert reader.one_of("it", ("one", "two"), "two") == "two"
    assert reader.fraction("it", 0.25) == 0.25


@pytest.mark.parametrize(
    ("read", "requirement", "values"),
    [
        (lambda reader: reader.text("it"), "a text that is not empty", [""]),
        (lambda reader: reader.one_of("it", ("one", "two"), "two"), "one of one, two", ["", "three", "ONE"]),
        (
            lambda reader: reader.whole_number("it"),
            "a whole number of at least 1",
            ["", "0", "-5", "1.5", "big", "1,2", "0x10", "²", "٣"],
        ),
        (lambda reader: reader.whole_number("it", 0, 255), "a whole number from 0 to 255", ["-1", "256"]),
        (lambda reader: reader.multiple("it", 32), "a positive multiple of 32", ["", "0", "-32", "650"]),
        (
            lambda reader: reader.rising_numbers("it"),
            "positive whole numbers in rising order, separated by commas",
            ["", "0,1", "32,16", "16,16", "16,", "16;32", "16,much"],
        ),
        (
            lambda reader: reader.sizes("it"),
            "sizes as HEIGHTxWIDTH, separated by commas",
            ["", "8", "8*8", "8x", "0x8", "8x8,", "8x8x8"],
        ),
        (lambda reader: reader.size("it"), "a size as HEIGHTxWIDTH", ["", "32", "32x0", "1x2,3x4"]),
        (
            lambda reader: reader.positive_number("it"),
            "a number above 0",
            ["", "0", "-1", "much", "nan", "inf"],
        ),
        (
            lambda reader: reader.fraction("it", 0.5),
            "a number from 0 to 1",
            ["", "1.5", "-0.1", "nan", "inf", "much"],
        ),
    ],
)
def test_wrong_values_are_named_with_what_they_must_be(
    read: Read, requirement: str, values: list[str]
) -> None:
    for value in values:
        message = re.escape(f"Parameter it is {value!r}; it must be {requirement}.")
        with pytest.raises(ValueError, match=f"^{message}$"):
            read(ParameterReader({"it": value}))


@pytest.mark.parametrize(
    "read",
    [
        lambda reader: reader.text("it"),
        lambda reader: reader.one_of("it", ("one", "two")),
        lambda reader: reader.whole_number("it"),
        lambda reader: reader.multiple("it", 32),
        lambda reader: reader.rising_numbers("it"),
        lambda reader: reader.sizes("it"),
        lambda reader: reader.size("it"),
        lambda reader: reader.positive_number("it"),
        lambda reader: reader.fraction("it"),
    ],
)
def test_missing_parameters_are_named(read: Read) -> None:
    with pytest.raises(ValueError, match=r"^The model has no parameter it\.$"):
        read(ParameterReader({"another": "1"}))
