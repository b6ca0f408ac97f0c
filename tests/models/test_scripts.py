import string

from gateway.models.scripts import letters_by_script


def test_letters_are_counted_by_script() -> None:
    greek = "αβγδεζηθικλμνξοπρστυφχψω"
    kana = "あいうえおかきくけこさしすせそたちつてとな"
    characters = string.printable + "éñ" + greek + kana + "€£½①"
    assert letters_by_script(characters) == {"Latin": 54, "Greek": 24, "Hiragana": 21}


def test_ideographs_are_han() -> None:
    assert letters_by_script("".join(map(chr, range(0x4E00, 0x4E00 + 30)))) == {"Han": 30}


def test_a_few_letters_are_no_script() -> None:
    assert letters_by_script("฿ℵΩδ" + string.digits) == {}
    assert letters_by_script("") == {}


def test_forms_of_a_letter_count_once() -> None:
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in string.ascii_letters)
    assert letters_by_script(string.ascii_letters + wide) == {"Latin": 52}
