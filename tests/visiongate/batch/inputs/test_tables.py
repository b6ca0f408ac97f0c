"""Tables as inputs of a job."""

import gzip
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from visiongate.batch.inputs import open_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a,b.jpg", 'c"d.jpg', "e\nf.jpg", "ü.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


CSV = 'key,image\n7,"a,b.jpg"\n8,"c""d.jpg"\n\n9,"e\nf.jpg"\n10,ü.jpg\n11,\n12\n'
NAMES = ["a,b.jpg", 'c"d.jpg', "e\nf.jpg", "ü.jpg"]


def test_csv(folder: Path) -> None:
    (folder / "t.csv").write_text(f"\ufeff{CSV}")
    source = open_source([str(folder / "t.csv")])
    assert source.count() == 6
    items = list(source)
    assert [(item.id, item.read().decode()) for item in items[:4]] == [(name, name) for name in NAMES]
    # A row without an image is an input without one.
    assert [item.id for item in items[4:]] == ["t.csv#4", "t.csv#5"]
    for item in items[4:]:
        with pytest.raises(ValueError, match=r"row \d of .*t\.csv has no image"):
            item.read()
    with_ids = open_source([str(folder / "t.csv")], id_column="key")
    assert [item.id for item in with_ids] == ["7", "8", "9", "10", "11", "12"]
    assert with_ids.name != source.name


def test_tsv_and_gzip(folder: Path) -> None:
    (folder / "t.tsv").write_text("x\turl\n1\ta,b.jpg\n")
    (folder / "t.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    assert [item.read() for item in open_source([str(folder / "t.tsv")])] == [b"a,b.jpg"]
    assert [item.id for item in open_source([str(folder / "t.csv.gz")])][:4] == NAMES


def test_json_lines(folder: Path) -> None:
    rows: list[object] = [{"n": 1, "path": name} for name in NAMES]
    lines = [json.dumps(row) for row in [*rows, {"n": 2}, {"path": 3}, [1]]] + ["{broken", ""]
    (folder / "t.jsonl").write_text("\n".join(lines))
    source = open_source([str(folder / "t.jsonl")])
    items = list(source)
    assert source.count() == len(items) == 8
    assert [(item.id, item.read().decode()) for item in items[:4]] == [(name, name) for name in NAMES]
    for item, sentence in zip(
        items[4:],
        [
            "row 4 of .* has no path",
            "no path or address, but of type int",
            "line 7 .*no JSON object",
            "line 8 .*no JSON: ",
        ],
        strict=True,
    ):
        with pytest.raises(ValueError, match=sentence):
            item.read()


def test_text_that_is_none(folder: Path) -> None:
    (folder / "t.jsonl").write_text('{"path": "\\ud800.jpg"}\n{"path": "a\\u0000b"}\n')
    (folder / "t.csv").write_bytes(b"path\n\xff.jpg\n")
    items = [*open_source([str(folder / "t.jsonl")]), *open_source([str(folder / "t.csv")])]
    assert [item.id for item in items] == ["\\ud800.jpg", "a\0b", "\\xff.jpg"]
    for item in items:
        with pytest.raises((ValueError, OSError), match=r"is no path|there is no file"):
            item.read()


def test_parquet_of_paths(folder: Path) -> None:
    for type in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        table = pa.table({"n": pa.array([1, 2, 3, 4]), "file_name": pa.array(NAMES).cast(type)})
        pq.write_table(table, folder / "t.parquet")
        source = open_source([str(folder / "t.parquet")], id_column="n")
        assert source.count() == 4
        assert [(item.id, item.read().decode()) for item in source] == [
            (str(number), name) for number, name in enumerate(NAMES, start=1)
        ]


def test_parquet_of_bytes(folder: Path) -> None:
    images = [b"one", b"two", None, b""]
    pq.write_table(pa.table({"image": images, "n": range(4)}), folder / "t.parquet", row_group_size=2)
    items = list(open_source([str(folder / "t.parquet")]))
    assert [item.id for item in items] == [f"t.parquet#{row}" for row in range(4)]
    # In any order, any number of times.
    assert [items[1].read(), items[0].read(), items[0].read()] == [b"two", b"one", b"one"]
    for row, sentence in ((2, "row 2 of .* has no image"), (3, "row 3 of .* is empty")):
        with pytest.raises(ValueError, match=sentence):
            items[row].read()
    assert len({item.version for item in items}) == 1
    pq.write_table(pa.table({"image": [b"one", b"TWO"]}), folder / "t.parquet")
    assert next(iter(open_source([str(folder / "t.parquet")]))).version != items[0].version


def test_parquet_in_any_order(folder: Path) -> None:
    """Threads ask for images in about the order of rows, but not quite; and some for a few rows alone."""
    images = [str(number).encode() for number in range(500)]
    pq.write_table(pa.table({"image": images}), folder / "t.parquet", row_group_size=70)
    items = list(open_source([str(folder / "t.parquet")]))
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda item: item.read(), items)) == images
    rows = list(range(500))
    random.Random(0).shuffle(rows)
    for row in rows[:50]:
        assert items[row].read() == images[row]


def test_parquet_of_hugging_face(folder: Path) -> None:
    images = [
        {"bytes": b"1", "path": "x.jpg"},
        {"bytes": b"2", "path": None},
        {"bytes": None, "path": "ü.jpg"},
    ]
    pq.write_table(pa.table({"image": images, "key": ["k", None, "l"]}), folder / "t.parquet")
    assert [(item.id, item.read()) for item in open_source([str(folder / "t.parquet")])] == [
        ("x.jpg", b"1"),
        ("t.parquet#1", b"2"),
        ("ü.jpg", "ü.jpg".encode()),
    ]
    with_ids = open_source([str(folder / "t.parquet")], id_column="key")
    assert [item.id for item in with_ids] == ["k", "t.parquet#1", "l"]


def test_several_tables(folder: Path) -> None:
    for name in ("b", "a"):
        pq.write_table(pa.table({"image": [name.encode()]}), folder / f"{name}.parquet")
    source = open_source([f"{folder}/*.parquet"])
    assert [(item.id, item.read()) for item in source] == [("a.parquet#0", b"a"), ("b.parquet#0", b"b")]
    assert source.count() == 2


@pytest.mark.parametrize(
    ("name", "data", "options", "sentence"),
    [
        ("t.csv", b"", {}, "t.csv is empty: its first line names the columns"),
        ("t.csv", b"a,b\n1,2\n", {}, "say with --column which of a, b"),
        ("t.csv", b"a,b\n1,2\n", {"column": "c"}, "has no column 'c' for --column; it has a, b"),
        (
            "t.csv",
            b"a,b\n1,2\n",
            {"column": "a", "id_column": "c"},
            "no column 'c' for --id-column; it has a, b",
        ),
        ("t.jsonl", b"", {}, "t.jsonl has no line that is a JSON object"),
        ("t.jsonl", b'{"a": 1, "b": 2}', {}, "say with --column which of a, b"),
        ("t.parquet", b"", {}, "t.parquet is no whole Parquet file: "),
        ("t.parquet", b"nothing of the kind", {}, "t.parquet is no whole Parquet file: "),
    ],
)
def test_bad_tables(tmp_path: Path, name: str, data: bytes, options: dict[str, str], sentence: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=sentence):
        open_source([str(tmp_path / name)], **options)  # type: ignore[arg-type]


def test_column_of_another_type(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [1, 2]}), tmp_path / "t.parquet")
    with pytest.raises(
        ValueError, match=r"column image is of type int64; images are paths, addresses, bytes"
    ):
        open_source([str(tmp_path / "t.parquet")])


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": [bytes([n]) * 1000 for n in range(100)]}), path, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:200] = b"\xff" * 196
    path.write_bytes(data)
    *_, last = open_source([str(path)])
    with pytest.raises(ValueError, match=r"t\.parquet is no whole Parquet file: "):
        last.read()


def test_kind_of_a_file_without_an_ending(folder: Path) -> None:
    (folder / "table").write_text(CSV)
    assert [item.id for item in open_source([str(folder / "table")], kind="csv")][:4] == NAMES
