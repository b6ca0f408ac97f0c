"""What people read about a setting's values."""

import pytest

from gateway.settings_words import allowed, metavar


@pytest.mark.parametrize(
    ("schema", "words", "placeholder"),
    [
        ({"type": "number", "minimum": 0.01, "maximum": 1}, "a number from 0.01 to 1", "NUMBER"),
        ({"type": "integer", "exclusiveMinimum": 0}, "a whole number above 0", "INTEGER"),
        ({"type": "integer", "minimum": 0}, "a whole number of at least 0", "INTEGER"),
        ({"type": "string", "enum": ["text", "json"]}, "one of text, json", "text|json"),
        ({"type": "string", "format": "path", "optional": True}, "a path, or empty for none", "PATH"),
        ({"type": "array"}, "a list of texts (with commas between them)", "A,B,…"),
    ],
)
def test_values_in_words(schema: dict[str, object], words: str, placeholder: str) -> None:
    assert allowed(schema) == words
    assert metavar(schema) == placeholder
