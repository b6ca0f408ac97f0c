import hashlib
import logging
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from gateway.api_keys import ApiKey, ApiKeys, read_keys, write_keys
from gateway.errors import UnauthenticatedError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def written(path: Path, *names: str) -> list[str]:
    """The texts of new keys, the only ones of the file."""
    made = [ApiKey.generate(name) for name in names]
    write_keys(path, [key for key, _ in made])
    return [text for _, text in made]


def refusal(keys: ApiKeys, **metadata: str) -> str:
    with pytest.raises(UnauthenticatedError) as caught:
        keys.authenticate({name.replace("_", "-"): value for name, value in metadata.items()})
    assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED
    return caught.value.message


def refusals(reason: str) -> float:
    return REGISTRY.get_sample_value("visiongate_refusals_total", {"reason": reason}) or 0


def reloads(result: str) -> float:
    return REGISTRY.get_sample_value("visiongate_reloads_total", {"what": "keys", "result": result}) or 0


def test_a_key_names_its_caller(path: Path) -> None:
    first, second = written(path, "mobile-app", "batch.jobs")
    keys = ApiKeys(path)
    assert keys.authenticate({"authorization": f"Bearer {first}"}) == "mobile-app"
    assert keys.authenticate({"authorization": f"bearer  {second}"}) == "batch.jobs"
    assert keys.authenticate({"x-api-key": second}) == "batch.jobs"


def test_a_key_of_its_own_header_goes_before_a_proxys_token(path: Path) -> None:
    (text,) = written(path, "app")
    keys = ApiKeys(path)
    assert keys.authenticate({"authorization": "Bearer of-the-proxy", "x-api-key": text}) == "app"
    assert keys.authenticate({"authorization": "Basic dXNlcg==", "x-api-key": text}) == "app"


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"x_api_key": ""},
    ],
)
def test_no_key_says_how_to_send_one(path: Path, metadata: dict[str, str]) -> None:
    written(path, "app")
    before = refusals("key_missing")
    assert "authorization: Bearer KEY" in refusal(ApiKeys(path), **metadata)
    assert refusals("key_missing") == before + 1


def test_a_wrong_key_learns_nothing(path: Path) -> None:
    (text,) = written(path, "app")
    keys = ApiKeys(path)
    before = refusals("key_unknown")
    wrong = ["app", text[:-1], text + "A", text.swapcase(), "ключ", "A" * 100_000]
    assert {refusal(keys, x_api_key=key) for key in wrong} == {"the API key is not valid"}
    assert refusals("key_unknown") == before + len(wrong)


def test_a_key_costs_one_hash_however_many_there_are(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *_, last = written(path, *(f"app-{number}" for number in range(20)))
    keys = ApiKeys(path)
    hashed: list[bytes] = []

    def sha256(data: bytes) -> Any:
        hashed.append(data)
        return hashlib.sha256(data)

    monkeypatch.setattr("gateway.api_keys.hashlib", SimpleNamespace(sha256=sha256))
    assert keys.authenticate({"x-api-key": first}) == "app-0"
    assert keys.authenticate({"x-api-key": last}) == "app-19"
    refusal(keys, x_api_key="wrong")
    refusal(keys, x_api_key="A" * 100_000)
    assert hashed == [first.encode(), last.encode(), b"wrong"]


def test_the_file_has_no_key_and_only_its_owner_reads_it(path: Path) -> None:
    texts = written(path, "app", "other")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_text()
    assert not any(text in content or text.removeprefix("vg_") in content for text in texts)
    app, other = read_keys(path)
    assert app.name == "app"
    assert app.created.utcoffset() is not None
    assert app.sha256 == hashlib.sha256(texts[0].encode()).digest()
    write_keys(path, [app, other])
    assert path.read_text() == content


def test_a_failed_write_leaves_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(path, "app")
    before = path.read_text()

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("gateway.api_keys.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        written(path, "other")
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_does_not_take_the_file_from_the_gateways_user(path: Path) -> None:
    written(path, "app")
    os.chown(path, 1234, 1235)
    written(path, "app", "other")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


@pytest.mark.parametrize("name", ["", " ", "a b", 'a"]', "x" * 65, "-a", "a\n", "ключ"])
def test_names_fit_logs_and_metrics(name: str) -> None:
    with pytest.raises(ValueError, match="not a name for a key"):
        ApiKey.generate(name)


HASH = f'sha256 = "{"0" * 64}"\n'
CREATED = "created = 2026-01-01T00:00:00Z\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "it is empty"),
        ("[app", "not a file of API keys"),
        (b"\xff\xfe", "not a file of API keys"),
        ("app = 1", "'app' is not a name with"),
        (f"[app]\n{HASH}", "'app' is not a name with"),
        (f"[app]\n{CREATED}", "'app' is not a name with"),
        (f'[app]\n{CREATED}sha256 = "00"', "'app' is not a name with"),
        (f"[app]\n{CREATED}sha256 = 7", "'app' is not a name with"),
        (f'[app]\n{CREATED}sha256 = "xy"', "'app' is not a name with"),
        (f'[app]\n{CREATED}{HASH}salt = "00ff"', "make the keys anew with `visiongate keys add`"),
        (f'["a b"]\n{CREATED}{HASH}', "'a b' is not a name with"),
        (f"[app]\n{CREATED}{HASH}[app]\n{CREATED}{HASH}", "not a file of API keys"),
    ],
)
def test_a_broken_file_is_an_error_at_the_start(path: Path, content: str | bytes, says: str) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=says):
        ApiKeys(path)


def test_a_missing_file_is_an_error_at_the_start(path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read the API keys in .*keys.toml: No such file"):
        ApiKeys(path)
    with pytest.raises(ValueError, match="Is a directory"):
        ApiKeys(path.parent)


def test_keys_come_and_go_with_the_file(path: Path) -> None:
    (old,) = written(path, "old")
    keys = ApiKeys(path, check_every_s=0)
    (new,) = written(path, "new")
    refusal(keys, x_api_key=old)
    assert keys.authenticate({"x-api-key": new}) == "new"
    written(path)
    refusal(keys, x_api_key=new)


@pytest.mark.parametrize("damage", ["", "[app", None])
def test_a_file_that_breaks_leaves_the_keys_in_force(
    path: Path, damage: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    (text,) = written(path, "app")
    keys = ApiKeys(path, check_every_s=0)
    ok, failed = reloads("ok"), reloads("failed")
    path.unlink()
    if damage is not None:
        path.write_text(damage)
    for _ in range(3):
        assert keys.authenticate({"x-api-key": text}) == "app"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert str(path) in record.message
    assert (reloads("ok"), reloads("failed")) == (ok, failed + 1)
    (new,) = written(path, "new")
    assert keys.authenticate({"x-api-key": new}) == "new"
    assert (reloads("ok"), reloads("failed")) == (ok + 1, failed + 1)


def test_the_file_is_checked_once_a_second(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = written(path, "app")
    now = 100.0
    monkeypatch.setattr("gateway.api_keys.time.monotonic", lambda: now)
    keys = ApiKeys(path)
    written(path)
    now += 0.9
    assert keys.authenticate({"x-api-key": text}) == "app"
    now += 0.2
    refusal(keys, x_api_key=text)


def test_no_keys_at_all_is_said(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(path)
    refusal(ApiKeys(path), x_api_key="any")
    assert "every call will be refused" in caplog.text
