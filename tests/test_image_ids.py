import hashlib
import hmac
import re
from pathlib import Path

import pytest

from gateway.image_ids import ImageIds, read_secret, secret_of
from gateway.process import check
from gateway.settings import Settings

SECRET = bytes(range(32))
HASH = hashlib.sha256(b"a photo").hexdigest()


def test_an_id_is_the_hash_and_a_tag_of_it_and_the_caller() -> None:
    tag = hmac.new(SECRET, f"{HASH} mobile-app".encode(), hashlib.sha256).digest()[:16]
    assert ImageIds(SECRET).make(HASH, "mobile-app") == HASH + tag.hex()


@pytest.mark.parametrize("caller", ["", "mobile-app"])
def test_an_id_is_good_for_its_caller_wherever_the_secret_is_the_same(caller: str) -> None:
    image_id = ImageIds(SECRET).make(HASH, caller)
    assert ImageIds(SECRET).make(HASH, caller) == image_id
    assert ImageIds(SECRET).content_hash(image_id, caller) == HASH


def test_an_id_is_good_for_nobody_else_and_nowhere_else() -> None:
    ids = ImageIds(SECRET)
    image_id = ids.make(HASH, "a")
    for caller in ("", "b", "a ", " a", "A"):
        assert ids.content_hash(image_id, caller) is None
    assert ImageIds(secret_of(None)).content_hash(image_id, "a") is None


def test_no_other_text_is_an_id() -> None:
    ids = ImageIds(SECRET)
    image_id = ids.make(HASH, "a")
    other = hashlib.sha256(b"another photo").hexdigest()
    texts = [
        *("", HASH, HASH[:-1], image_id[:-1], image_id + "0", image_id.upper(), " " + image_id),
        *(other + image_id[64:], HASH + "0" * 32, "0" * 96, "\0" * 96, "\u00e9" * 96),
        # Each digit counts.
        *(image_id[:place] + "x" + image_id[place + 1 :] for place in range(len(image_id))),
    ]
    assert [text for text in texts if ids.content_hash(text, "a") is not None] == []


def test_secrets_are_new_each_time() -> None:
    assert len({secret_of(None) for _ in range(5)}) == 5
    assert len(secret_of(None)) == 32


def test_the_secret_of_a_file_is_its_content(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    assert secret_of(path) == read_secret(path) == SECRET


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot read image_id_secret {path}: No such file"),
        (b"", "image_id_secret {path} has 0 bytes"),
        (
            bytes(31),
            "image_id_secret {path} has 31 bytes, and needs 32 or more: head -c 32 /dev/urandom",
        ),
    ],
)
def test_a_file_without_a_secret_is_said_before_the_start(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(says.format(path=path))):
        check(Settings(port=0, image_id_secret=path))
    path.write_bytes(bytes(32))
    check(Settings(port=0, image_id_secret=path))
