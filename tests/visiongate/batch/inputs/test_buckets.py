"""Buckets as inputs of a job: a real S3 server, and fsspec's file system in memory."""

import io
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s3 import S3Server
from visiongate.batch.inputs import open_source

KEYS = ["a b#?%20ü.jpg", "d.jpg", "d/x.jpg", "d/y/z.png", "d0.jpg", "notes.md", ".hidden.jpg"]
IMAGES = ["a b#?%20ü.jpg", "d.jpg", "d/x.jpg", "d/y/z.png", "d0.jpg"]


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    for key in KEYS:
        s3.put(f"photos/in/{key}", key.encode())
    s3.put("photos/list.txt", b"in/d.jpg\ns3://photos/in/d/x.jpg\nin/gone.jpg\n")
    return "s3://photos"


@pytest.fixture(autouse=True)
def _as_reader(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.variables(may_write=False).items():
        monkeypatch.setenv(name, value)


def test_folder(bucket: str) -> None:
    source = open_source([f"{bucket}/in"])
    assert source.name == f"{bucket}/in"
    assert source.count() == 5
    items = list(source)
    # S3's own order, that of keys.
    assert [item.id for item in items] == sorted(IMAGES, key=str.encode)
    assert source.ignored == 1
    with ThreadPoolExecutor(8) as threads:
        assert [data.decode() for data in threads.map(lambda item: item.read(), items)] == IMAGES


def test_version(bucket: str, s3: S3Server) -> None:
    s3.put("photos/versions/a.jpg", b"one")
    s3.put("photos/versions/b.jpg", b"one")
    source = open_source([f"{bucket}/versions"])
    before = [item.version for item in source]
    s3.put("photos/versions/a.jpg", b"three")
    after = [item.version for item in source]
    assert after[0] != before[0]
    assert after[1] == before[1] != ""


def test_other_names(bucket: str) -> None:
    assert [item.id for item in open_source([f"{bucket}/in/**/*.jpg"])] == IMAGES[:3] + IMAGES[4:]
    assert [item.id for item in open_source([f"{bucket}/in/d*"])] == IMAGES[1:]
    (item,) = open_source([f"{bucket}/in/d/x.jpg"])
    assert (item.id, item.read()) == ("x.jpg", b"d/x.jpg")
    both = open_source([f"{bucket}/in/d", f"{bucket}/in/d.jpg"])
    assert [item.id for item in both] == ["d/x.jpg", "d/y/z.png", "d.jpg"]


def test_list(bucket: str) -> None:
    by_path, by_address, gone = open_source([f"{bucket}/list.txt"])
    assert (by_path.read(), by_address.read()) == (b"d.jpg", b"d/x.jpg")
    with pytest.raises(FileNotFoundError, match=r"^there is no file s3://photos/in/gone.jpg$"):
        gone.read()


def test_what_is_not_there(bucket: str) -> None:
    for text in (f"{bucket}/i", "s3://nothing/x", "s3://nothing"):
        with pytest.raises(
            FileNotFoundError, match=f"^there is no file or folder {text}; for all that begins"
        ):
            open_source([text])


def test_wrong_key(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    with pytest.raises(PermissionError, match=r"^s3://photos/in cannot be read: .*ACCESS_DENIED"):
        open_source([f"{bucket}/in"])


# pyarrow tries again for six seconds.
@pytest.mark.long
def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"^s3://photos/in cannot be read: .*connect"):
        open_source(["s3://photos/in"])


def test_credentials_stay_out_of_names() -> None:
    with pytest.raises(ValueError, match="credentials are not written into an address") as caught:
        open_source(["s3://key:secret@photos/in"])
    assert "secret" not in str(caught.value)


@pytest.fixture
def memory() -> Iterator[str]:
    filesystem = fsspec.filesystem("memory")
    for key in KEYS:
        filesystem.pipe(f"/box/{key}", key.encode())
    yield "memory://box"
    filesystem.rm("/box", recursive=True)


def test_any_file_system_of_fsspec(memory: str) -> None:
    source = open_source([memory])
    items = list(source)
    assert source.name == memory
    assert [item.id for item in items] == IMAGES
    assert [item.read().decode() for item in items] == IMAGES
    assert [item.id for item in open_source([f"{memory}/*.jpg"])] == ["a b#?%20ü.jpg", "d.jpg", "d0.jpg"]


def test_table_and_archive(bucket: str, s3: S3Server) -> None:
    archive, table = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("a.jpg", "b.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 100_000
            tar.addfile(info, io.BytesIO(name[:1].encode() * info.size))
    pq.write_table(pa.table({"image": [b"1", b"2"]}), table)
    s3.put("photos/more/x.tar", archive.getvalue())
    s3.put("photos/more/t.parquet", table.getvalue())
    s3.put("photos/more/t.csv", b"url\n../in/d.jpg\ns3://photos/in/d/x.jpg\n")
    first, second = open_source([f"{bucket}/more/x.tar"])
    assert (second.id, second.read()) == ("x.tar/b.jpg", b"b" * 100_000)
    assert first.read() == b"a" * 100_000
    assert [item.read() for item in open_source([f"{bucket}/more/t.parquet"])] == [b"1", b"2"]
    assert [item.read() for item in open_source([f"{bucket}/more/t.csv"])] == [b"d.jpg", b"d/x.jpg"]
