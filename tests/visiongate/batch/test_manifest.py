"""A folder is of one job, and stays it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from batch_jobs import Inputs, ids, work
from visiongate.batch.manifest import Manifest, claim
from visiongate.batch.store import Store, open_store
from visiongate.command_error import CommandError

MANIFEST = Manifest(
    task="detect",
    settings={"phrases": ["a cat", "a dog"], "min_score": 0.3, "limit": None},
    source="photos",
    rows_per_file=1000,
    models={"detection": {"variant": "tiny", "fingerprint": "abc"}},
    version="0.1.0",
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "out"))


def test_the_same_job_goes_on(store: Store) -> None:
    claim(store, MANIFEST, overwrite=False)
    assert Manifest.load(store) == MANIFEST
    # JSON knows no tuples, and a newer client goes on with the same folder.
    same = dataclasses.replace(
        MANIFEST, settings=dict(MANIFEST.settings) | {"phrases": ("a cat", "a dog")}, version="0.2.0"
    )
    claim(store, same, overwrite=False)
    assert Manifest.load(store) == MANIFEST


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"task": "segment"}, 'the task is "detect", and here it is "segment"'),
        ({"source": "s3://photos"}, 'the input is "photos", and here it is "s3://photos"'),
        ({"rows_per_file": 10}, "the setting rows_per_file is 1000, and here it is 10"),
        (
            {"settings": {"phrases": ["a cat", "a dog"], "min_score": 0.5, "limit": 3}},
            "the setting min_score is 0.3, and here it is 0.5",
        ),
        (
            {"settings": {"phrases": ["a cat", "a dog"], "min_score": 0.3, "limit": 3}},
            "the setting limit is not given, and here it is 3",
        ),
        (
            {"models": {"detection": {"variant": "tiny", "fingerprint": "def"}}},
            "the model of detection is variant tiny with fingerprint abc, and here it is variant tiny with "
            "fingerprint def",
        ),
    ],
)
def test_another_job_is_refused_by_its_first_difference(
    store: Store, change: dict[str, Any], difference: str
) -> None:
    claim(store, MANIFEST, overwrite=False)
    other = dataclasses.replace(MANIFEST, **change)
    with pytest.raises(CommandError) as raised:
        claim(store, other, overwrite=False)
    assert str(raised.value) == (
        f"{store.name} holds the output of another job, where {difference}: give another --out, or "
        "--overwrite to do all inputs anew"
    )
    claim(store, other, overwrite=True)
    assert Manifest.load(store) == other


def test_overwriting_removes_the_jobs_files_and_no_others(store: Store) -> None:
    claim(store, MANIFEST, overwrite=False)
    work(store, Inputs(["a", "b", "c"]), 2)
    for name in ("_open-000002.parquet", "_summary-0-of-2.json", "notes.txt"):
        store.write_bytes(name, b"")
    claim(store, MANIFEST, overwrite=True)
    assert store.names() == ["_job.json", "notes.txt"]
    work(store, Inputs(["d"]), 2)
    assert dict(ids(store)) == {"d": 1}
    with pytest.raises(CommandError, match="--overwrite would remove what the other shards write"):
        claim(store, MANIFEST, overwrite=True, shard_count=2)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["cat.jpg", "part-000000.parquet", "folder/x"])
def test_a_folder_of_anything_else_is_refused(tmp_path: Path, name: str, overwrite: bool) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    store = open_store(str(tmp_path))
    with (
        pytest.raises(CommandError, match="is not empty, and holds no output of visiongate"),
        store.lock(),
    ):
        claim(store, MANIFEST, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == [name.partition("/")[0]]


def test_an_empty_folder_with_locks_and_hidden_files_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").touch()
    store = open_store(str(tmp_path))
    with store.lock((1, 2)), store.lock((0, 2)):
        claim(store, MANIFEST, overwrite=False)
    assert store.names() == ["_job.json"]


@pytest.mark.parametrize(
    "data", [b'{"task": "de', b"[]", b'{"format": 1}', b'{"format": 1, "more": 2}', b"\xff"]
)
def test_a_damaged_manifest_is_a_sentence(store: Store, data: bytes) -> None:
    store.write_bytes("_job.json", data)
    with pytest.raises(CommandError, match=r"_job\.json is damaged: .* --overwrite"):
        claim(store, MANIFEST, overwrite=False)
    claim(store, MANIFEST, overwrite=True)
    assert Manifest.load(store) == MANIFEST


def test_a_folder_of_a_newer_version_is_a_sentence(store: Store) -> None:
    store.write_bytes("_job.json", json.dumps({"format": 2, "shape": "new"}).encode())
    with pytest.raises(CommandError, match=r"of a newer visiongate \(format 2, and this one knows 1\)"):
        claim(store, MANIFEST, overwrite=False)
