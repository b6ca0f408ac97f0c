"""The formats of a job's output, written from real files of jobs, and read as others read them."""

import errno
import json
import math
import os
import resource
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from s3 import S3Server
from visiongate.batch.files import Block, FileWriter, job_schema
from visiongate.batch.filesystem import open_filesystem
from visiongate.batch.formats import FORMAT_NAMES, check_format, write_format
from visiongate.batch.item import Item
from visiongate.batch.manifest import Manifest, claim
from visiongate.batch.output import Output
from visiongate.batch.store import Store, open_store
from visiongate.batch.task import Task
from visiongate.batch.tasks import TASK_NAMES, make_task
from visiongate.batch.tasks.embed import columns as embedding_columns
from visiongate.command_error import CommandError

Rows = list[tuple[str, Mapping[str, Any] | None]]
FAILED = None
BOX = {"x_min": 1.0, "y_min": 0.5, "x_max": 3.0, "y_max": 2.5}
RECTANGLE = np.asfortranarray(np.pad(np.ones((2, 2), np.uint8), ((1, 1), (1, 2))))


def mask() -> dict[str, Any]:
    """Two by two pixels of an image of 5 x 4."""
    rle = coco_mask.encode(RECTANGLE)
    box = {"x_min": 1, "y_min": 1, "x_max": 3, "y_max": 3}
    rle = {"size": rle["size"], "counts": rle["counts"].decode()}
    return {"predicted_iou": 0.75, "area": 4, "box": box, "rle": rle}


def found(phrase: str, index: int | None, *, has_mask: bool = False) -> dict[str, Any]:
    entry = {"phrase": phrase, "phrase_index": index, "score": 0.5, "box": BOX}
    return entry | {"mask": mask()} if has_mask else entry


def finished(
    out: str,
    task: Task,
    rows: Iterable[tuple[str, Mapping[str, Any] | None]],
    rows_per_file: int = 2,
    columns: pa.Schema | None = None,
) -> tuple[Output, Store]:
    """A job's folder with rows of ids and values, or FAILED. All images are 5 x 4 pixels."""
    rows = list(rows)
    store = open_store(out)
    schema = job_schema(columns or task.columns, {"task": task.name, "settings": task.settings})
    for number in range(math.ceil(len(rows) / rows_per_file)):
        part = rows[number * rows_per_file :][:rows_per_file]
        items = {place: Item(id_, bytes) for place, (id_, _) in enumerate(part)}
        with FileWriter(store, schema, Block(number, len(part), items)) as writer:
            for place, (id_, values) in enumerate(part):
                row: dict[str, Any] = {"id": id_, "status": "OK", "error_message": "", "version": ""}
                if values is FAILED:
                    row |= {"status": "INVALID_ARGUMENT", "error_message": "is no image"}
                else:
                    row |= {"width": 5, "height": 4, **values}
                writer.add(place, row)
            writer.finish()
    return Output(store), store


def detect(phrases: Sequence[str] = ("cup", "spoon")) -> Task:
    return make_task("detect", phrases=phrases)


def write(name: str, output: Output, store: Store) -> str:
    [sentence] = write_format(name, output, store)
    return sentence


def test_coco_has_the_objects_of_all_images(tmp_path: Path) -> None:
    rows: Rows = [
        ("a/1.jpg", {"detections": [found("spoon", 1), found("cup", 0)]}),
        ("broken.jpg", FAILED),
        ("b/1.jpg", {"detections": []}),
        ('é "\n.jpg', {"detections": [found("cup", 0)]}),
    ]
    sentence = write("coco", *finished(str(tmp_path / "out"), detect(), rows))
    file = tmp_path / "out" / "_coco" / "annotations.json"
    assert sentence == (
        f"{tmp_path}/out/_coco has annotations.json with 3 images and 3 objects; 1 input that failed is "
        "left out"
    )
    coco = COCO(str(file))
    assert [(coco.imgs[id_]["file_name"], coco.imgs[id_]["width"], coco.imgs[id_]["height"])
            for id_ in (1, 2, 3)] == [("a/1.jpg", 5, 4), ("b/1.jpg", 5, 4), ('é "\n.jpg', 5, 4)]  # fmt: skip
    assert coco.cats == {1: {"id": 1, "name": "cup"}, 2: {"id": 2, "name": "spoon"}}
    assert [(each["id"], each["image_id"], each["category_id"]) for each in coco.anns.values()] == [
        (1, 1, 2), (2, 1, 1), (3, 3, 1)
    ]  # fmt: skip
    assert coco.anns[1]["bbox"] == [1, 0.5, 2, 2]
    assert (coco.anns[1]["area"], coco.anns[1]["score"]) == (4, 0.5)


def test_coco_has_masks(tmp_path: Path) -> None:
    task = make_task("segment", phrases=["cup"])
    rows: Rows = [("1.jpg", {"detections": [found("cup", 0, has_mask=True)]})]
    write("coco", *finished(str(tmp_path), task, rows))
    coco = COCO(str(tmp_path / "_coco" / "annotations.json"))
    np.testing.assert_array_equal(coco.annToMask(coco.anns[1]), RECTANGLE)
    assert coco.anns[1]["area"] == 4


def test_masks_without_words_are_objects(tmp_path: Path) -> None:
    rows: Rows = [("1.jpg", {"masks": [{"mask": mask(), "stability_score": 0.9, "point": {"x": 1, "y": 1}}]})]
    output, store = finished(str(tmp_path), make_task("segment"), rows)
    write("coco", output, store)
    coco = COCO(str(tmp_path / "_coco" / "annotations.json"))
    assert coco.cats == {1: {"id": 1, "name": "object"}}
    assert (coco.anns[1]["bbox"], coco.anns[1]["score"]) == ([1, 1, 2, 2], 0.75)
    np.testing.assert_array_equal(coco.annToMask(coco.anns[1]), RECTANGLE)
    write("yolo", output, store)
    assert (tmp_path / "_yolo" / "labels" / "1.txt").read_text() == "0 0.400000 0.500000 0.400000 0.500000\n"


def test_a_caption_leads_to_the_classes(tmp_path: Path) -> None:
    """A class keeps its number for all images, also where it comes after others."""
    task = make_task("detect", caption="a cup beside a spoon")
    rows: Rows = [
        ("1.jpg", {"detections": [found("spoon", None)]}),
        ("2.jpg", {"detections": [found("cup", None), found("spoon", None)]}),
    ]
    output, store = finished(str(tmp_path), task, rows)
    write("coco", output, store)
    coco = COCO(str(tmp_path / "_coco" / "annotations.json"))
    names = [coco.cats[each["category_id"]]["name"] for each in coco.anns.values()]
    assert names == ["spoon", "cup", "spoon"]
    write("yolo", output, store)
    data = yaml.safe_load((tmp_path / "_yolo" / "data.yaml").read_text())
    lines = (tmp_path / "_yolo" / "labels" / "2.txt").read_text().splitlines()
    assert [data["names"][int(line.split()[0])] for line in lines] == ["cup", "spoon"]


def test_yolo_has_a_file_for_each_image(tmp_path: Path) -> None:
    phrases = ['a "red" \\ cup', "e\u0301\x7f\x85\u2028😀"]
    rows: Rows = [
        ("a/1.jpg", {"detections": [found(phrases[1], 1)]}),
        ("b/1.JPEG", {"detections": []}),
        ("broken.jpg", FAILED),
        ("v1.2", {"detections": [found(phrases[0], 0)]}),
        ("clip.mp4#7", {"detections": []}),
        ("../up.png", {"detections": []}),
        ("/abs/1.png", {"detections": []}),
    ]
    sentence = write("yolo", *finished(str(tmp_path / "out"), detect(phrases), rows))
    assert "label files of 6 images with 2 objects, and data.yaml; 1 input that failed" in sentence
    folder = tmp_path / "out" / "_yolo" / "labels"
    files = {file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*.txt")}
    assert files == {
        "a/1.txt": "1 0.400000 0.375000 0.400000 0.500000\n",
        "b/1.txt": "",
        "v1.2.txt": "0 0.400000 0.375000 0.400000 0.500000\n",
        "clip.mp4#7.txt": "",
        "%2e%2e/up.txt": "",
        "abs/1.txt": "",
    }
    assert not (tmp_path / "out" / "_yolo" / "up.txt").exists()
    data = yaml.safe_load((folder.parent / "data.yaml").read_text())
    assert data["names"] == dict(enumerate(phrases))


def test_two_images_with_one_label_file_are_refused(tmp_path: Path) -> None:
    rows: Rows = [("1.jpg", {"detections": []}), ("2.jpg", {"detections": []}), ("1.png", {"detections": []})]
    output, store = finished(str(tmp_path), detect(), rows)
    with pytest.raises(
        CommandError, match=r"^1\.png and another image would both have the label file 1\.txt"
    ):
        write_format("yolo", output, store)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("part-")] == []
    # The same image twice is one image.
    output, store = finished(str(tmp_path / "same"), detect(), [rows[0], rows[0]])
    write_format("yolo", output, store)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_npy_has_the_embeddings_and_their_names(tmp_path: Path, dtype: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(dtype)
    rows: list[Any] = [(f"{index}.jpg", {"embedding": vector}) for index, vector in enumerate(vectors)]
    rows[1:1] = [("broken.jpg", FAILED)]
    task = make_task("embed", dtype=dtype)
    sentence = write("npy", *finished(str(tmp_path), task, rows, columns=embedding_columns(dtype, 3)))
    assert sentence.endswith("5 embeddings of 3 numbers; 1 input that failed is left out")
    written = np.load(tmp_path / "_npy" / "img_emb" / "img_emb_0.npy")
    assert written.dtype == dtype
    np.testing.assert_array_equal(written, vectors)
    names = pq.read_table(tmp_path / "_npy" / "metadata" / "metadata_0.parquet")
    assert names["image_path"].to_pylist() == [f"{index}.jpg" for index in range(5)]


def test_npy_of_failed_inputs_alone_is_empty(tmp_path: Path) -> None:
    output = finished(
        str(tmp_path), make_task("embed"), [("1", FAILED)], columns=embedding_columns("float32", 3)
    )
    write("npy", *output)
    assert np.load(tmp_path / "_npy" / "img_emb" / "img_emb_0.npy").shape == (0, 3)


def test_jsonl_has_every_row(tmp_path: Path) -> None:
    rows: Rows = [
        ("1.jpg", {"embedding": [0.5, math.nan, -math.inf]}),
        ("broken.jpg", FAILED),
        ("a\n\u2028b", {"embedding": [1, 2, 3]}),
    ]
    task = make_task("embed")
    write("jsonl", *finished(str(tmp_path), task, rows, columns=embedding_columns("float32", 3)))
    text = (tmp_path / "_jsonl" / "rows.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.rstrip("\n").split("\n")]
    assert [line["id"] for line in lines] == [id_ for id_, _ in rows]
    assert [line["embedding"] for line in lines] == [[0.5, None, None], None, [1, 2, 3]]
    assert (lines[1]["status"], lines[1]["error_message"]) == ("INVALID_ARGUMENT", "is no image")


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_readers_of_the_whole_folder_pass_by(tmp_path: Path, name: str) -> None:
    values: dict[str, Any]
    if name == "npy":
        task, values, columns = make_task("embed"), {"embedding": [1, 2]}, embedding_columns("float32", 2)
    else:
        task, values, columns = detect(), {"detections": [found("cup", 0)]}, None
    output, store = finished(str(tmp_path), task, [("1.jpg", values), ("2.jpg", values)], columns=columns)
    write_format(name, output, store)
    assert pq.read_table(tmp_path)["id"].to_pylist() == ["1.jpg", "2.jpg"]
    assert Output(store).files() == [0]


def test_what_an_earlier_job_wrote_is_replaced(tmp_path: Path) -> None:
    write("yolo", *finished(str(tmp_path), detect(), [("1.jpg", {"detections": []})]))
    write("yolo", *finished(str(tmp_path), detect(), [("2.jpg", {"detections": []})]))
    assert [file.name for file in (tmp_path / "_yolo" / "labels").iterdir()] == ["2.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_yolo", "part-000000.parquet"]


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    s3.put("formats/other", b"")
    for name, value in s3.variables().items():
        monkeypatch.setenv(name, value)
    return s3


@pytest.mark.parametrize("remote", ["memory://formats/out", "s3://formats/out"])
def test_a_bucket_has_the_same_files(tmp_path: Path, bucket: S3Server, remote: str) -> None:
    rows: Rows = [("a/1.jpg", {"detections": [found("cup", 0)]}), ("b/1 é#.jpg", {"detections": []})]
    local = tmp_path / "out"
    files, root = open_filesystem(remote)
    for out in (str(local), remote):
        output = finished(out, detect(), rows)
        if out == remote:
            write("yolo", *finished(out, detect(), [("of an earlier job.jpg", {"detections": []})]))
            output = finished(out, detect(), rows)
        for name in ("yolo", "coco"):
            write(name, *output)
    wanted = {
        path.relative_to(local).as_posix(): path.read_bytes()
        for kind in ("_yolo", "_coco")
        for path in (local / kind).rglob("*")
        if path.is_file()
    }
    there = {
        name[name.index("out/") + 4 :]: files.cat_file(name)
        for kind in ("_yolo", "_coco")
        for name in files.find(f"{root}/{kind}")
    }
    assert there == wanted
    files.rm(root, recursive=True)


@pytest.mark.parametrize("out", ["here", "memory://formats/again", "s3://formats/again"])
def test_overwriting_a_job_removes_the_formats_of_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: S3Server, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    job = Manifest(task="detect", settings={}, source="photos", rows_per_file=2, models={}, version="1")
    claim(open_store(out), job, overwrite=False)
    output, store = finished(out, detect(), [("1.jpg", {"detections": []})])
    for name in ("coco", "yolo", "jsonl"):
        write(name, output, store)
    if out == "here":
        (tmp_path / "here/_mine").mkdir()
    claim(open_store(out), job, overwrite=True)
    assert open_store(out).names() == ["_job.json", *(["_mine"] if out == "here" else [])]


def test_a_bucket_that_is_read_only_is_a_sentence(bucket: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    output, _ = finished("s3://formats/mine", detect(), [("1.jpg", {"detections": []})])
    for name, value in bucket.variables(may_write=False).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CommandError, match=r"^s3://formats/mine/_coco cannot be written: .*ACCESS_DENIED"):
        write_format("coco", output, open_store("s3://formats/mine"))


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    output, store = finished(str(tmp_path), detect(), [("x" * 255 + ".jpg", {"detections": []})])
    with pytest.raises(CommandError, match=r"_yolo cannot be written: File name too long$"):
        write_format("yolo", output, store)
    assert [path.name for path in tmp_path.iterdir()] == ["part-000000.parquet"]


@pytest.mark.parametrize("name", ["coco", "jsonl", "npy"])
def test_without_room_the_earlier_one_stays(tmp_path: Path, name: str) -> None:
    if name == "npy":
        task, values, columns = make_task("embed"), {"embedding": [1, 2]}, embedding_columns("float32", 2)
    else:
        task, values, columns = detect(), {"detections": []}, None
    write(name, *finished(str(tmp_path), task, [("1.jpg", values)], columns=columns))
    before = {path: path.read_bytes() for path in tmp_path.rglob("_*/*") if path.is_file()}
    output = finished(str(tmp_path), task, [("1.jpg", values)] * 500, rows_per_file=500, columns=columns)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(CommandError, match=rf"_{name} cannot be written: File too large$"):
            write_format(name, *output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in tmp_path.rglob("_*/*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"_{name}", "part-000000.parquet"]


def test_an_earlier_one_that_was_put_aside_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1.jpg", "2.jpg"):
        output, store = finished(str(tmp_path), detect(), [(name, {"detections": []})])
        if name == "1.jpg":
            write("yolo", output, store)
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if target.name == "_yolo" and not path.name.endswith("-old"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(CommandError, match="_yolo cannot be written: Input/output error"):
            write("yolo", output, store)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_yolo", "part-000000.parquet"]
    assert [file.name for file in (tmp_path / "_yolo" / "labels").iterdir()] == ["1.txt"]

    # A process that was killed then could not put it back: the next one does so before it can fail.
    (tmp_path / "_yolo").rename(tmp_path / ".visiongate-new_yolo-old")
    output, store = finished(str(tmp_path), detect(), [("x" * 255 + ".jpg", {"detections": []})])
    with pytest.raises(CommandError, match="_yolo cannot be written: File name too long"):
        write("yolo", output, store)
    assert [file.name for file in (tmp_path / "_yolo" / "labels").iterdir()] == ["1.txt"]


@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize("task", TASK_NAMES)
def test_a_format_that_does_not_fit_is_a_sentence(name: str, task: str) -> None:
    fits = {
        "coco": {"detect", "segment"},
        "yolo": {"detect", "segment"},
        "npy": {"embed"},
        "jsonl": set(TASK_NAMES),
    }
    if task in fits[name]:
        check_format(name, task)
        return
    with pytest.raises(CommandError, match=f"^the format {name} is for .* not with {task}$"):
        check_format(name, task)


def test_an_unknown_format_is_a_sentence() -> None:
    with pytest.raises(
        CommandError, match=r"^there is no format 'voc': it must be one of coco, yolo, npy, jsonl$"
    ):
        check_format("voc", "detect")
