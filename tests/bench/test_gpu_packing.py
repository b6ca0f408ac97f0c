import json
import struct
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.gpu import prune, unpack, weights
from bench.gpu.bundles import Archive, slim_wheel, write


def container(*codes: tuple[int, bytes]) -> bytes:
    """A fatbin: each architecture's code behind a header of 64 bytes."""
    body = b""
    for architecture, code in codes:
        head = struct.pack("<HHIQ", 2, 0x101, 64, len(code)).ljust(28, b"\1")
        body += (head + struct.pack("<I", architecture)).ljust(64, b"\1") + code
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def library(containers: Sequence[bytes]) -> bytearray:
    """An ELF file of a section of such containers, aligned, behind bytes that look like one."""
    names = b"\0.nv_fatbin\0.shstrtab\0"
    lead = b"\x50\xed\x55\xba" * 4
    code = b"".join(each + bytes(-len(each) % 8) for each in containers)
    at = 64 + len(lead)
    table = at + len(code) + len(names)
    head = b"\x7fELF\x02".ljust(40, b"\0") + struct.pack("<Q", table)
    head = head.ljust(58, b"\0") + struct.pack("<HHH", 64, 3, 2)
    sections = bytes(64)
    for name, place, size in ((1, at, len(code)), (12, at + len(code), len(names))):
        sections += struct.pack("<I", name).ljust(24, b"\0") + struct.pack("<QQ", place, size).ljust(
            40, b"\0"
        )
    return bytearray(head + lead + code + names + sections)


def test_code_of_other_architectures_becomes_zeros_in_its_place() -> None:
    before = library([container((80, b"A" * 40), (90, b"B" * 24)), container((90, b"C" * 32))])
    after = bytearray(before)
    assert prune.prune(after, 90) == {"kept": 56, "zeroed": 40}
    assert len(after) == len(before)
    assert b"B" * 24 in after
    assert b"C" * 32 in after
    assert after.replace(bytes(40), b"A" * 40, 1).count(b"A") == 40
    changed = [i for i, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    assert changed == list(range(changed[0], changed[0] + 40))


def test_kernels_of_one_architecture_alone_go_where_that_is_asked_for() -> None:
    content = library([container((80, b"A" * 40), (90, b"B" * 24)), container((90, b"C" * 32))])
    assert prune.prune(content, 90, drop_lone=True) == {"kept": 24, "zeroed": 72}
    assert b"B" * 24 in content
    assert b"C" not in content


def test_what_is_not_understood_is_refused() -> None:
    with pytest.raises(ValueError, match="no code for sm_75, only for 80"):
        prune.prune(library([container((80, b"A"))]), 75)
    with pytest.raises(ValueError, match="not a 64-bit ELF"):
        prune.prune(bytearray(b"MZ" * 100), 90)
    broken = library([container((80, b"A" * 40))])
    place, _ = prune.section(broken, prune.SECTION)
    struct.pack_into("<Q", broken, place + 16 + 8, 10_000)
    with pytest.raises(ValueError, match="another"):
        prune.prune(broken, 80)


def test_bundles_keep_to_their_size_and_unpack_to_what_was_packed(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(random.bytes(250_000))
    small.write_bytes(b"few")
    archives = [
        Archive("one", {"graphs/a/small": small}),
        Archive("two", {"x/large": large, "x/small": small}),
    ]
    bundles = write(archives, tmp_path, limit_bytes=2**16 + 100_000)
    assert [folder.name for folder, _ in bundles] == ["bundle-1", "bundle-2", "bundle-3", "bundle-4"]
    assert all(size <= 2**16 + 100_000 for _, size in bundles)
    folders = [folder for folder, _ in bundles]
    to = tmp_path / "host"
    assert unpack.unpack(folders[:3], to) == ["one: unpacked", "two: part 3 of 3 is in another bundle"]
    assert not (to / "x").exists()
    unpack.unpack(folders, to)
    assert (to / "x" / "large").read_bytes() == large.read_bytes()
    assert (to / "graphs" / "a" / "small").read_bytes() == b"few"


def test_a_damaged_bundle_is_not_unpacked(tmp_path: Path) -> None:
    (file := tmp_path / "file").write_bytes(b"content")
    ((folder, _),) = write([Archive("one", {"file": file})], tmp_path)
    part = folder / json.loads((folder / unpack.MANIFEST).read_text())[0]["file"]
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged"):
        unpack.unpack([folder], tmp_path / "host")
    assert not (tmp_path / "host").exists()


def test_nothing_of_this_machine_is_in_an_archive(tmp_path: Path) -> None:
    (file := tmp_path / "file").write_bytes(b"content")
    ((folder, _),) = write([Archive("one", {"a/file": file})], tmp_path)
    with tarfile.open(folder / "one.tar.xz") as tar:
        (entry,) = tar.getmembers()
    assert (entry.name, entry.uid, entry.uname) == ("a/file", 0, "")


def test_a_slim_wheel_is_a_wheel_whose_record_is_true(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as new:
        for name in ("a/kept.py", "a/left.py", "a-1.dist-info/METADATA", "a-1.dist-info/RECORD"):
            new.writestr(name, name)
    slim = slim_wheel(
        wheel, tmp_path / "slim", lambda name: "left" not in name, lambda _, content: content + b"!"
    )
    with zipfile.ZipFile(slim) as file:
        assert sorted(file.namelist()) == ["a-1.dist-info/METADATA", "a-1.dist-info/RECORD", "a/kept.py"]
        assert file.read("a/kept.py") == b"a/kept.py!"
        lines = file.read("a-1.dist-info/RECORD").decode().splitlines()
    assert lines[0].startswith("a/kept.py,sha256=")
    assert lines[0].endswith(",10")
    assert lines[-1] == "a-1.dist-info/RECORD,,"


def model(*arrays: tuple[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> onnx.ModelProto:
    graph = helper.make_graph(
        [], "g", [], [], [numpy_helper.from_array(value, name) for name, value in arrays]
    )
    return helper.make_model(graph)


def test_weights_are_drawn_with_the_mean_and_spread_that_they_had() -> None:
    random = np.random.default_rng(0)
    weight = random.normal(0.5, 0.02, (200, 300)).astype(np.float32)
    bias, mask = random.normal(size=300).astype(np.float32), np.tile(np.eye(64, dtype=np.float32), (2, 1))
    held = model(("weight", weight), ("bias", bias), ("mask", mask))
    before = held.ByteSize()
    assert weights.strip_model(held) == 1
    assert held.ByteSize() < before - weight.nbytes + 100
    weights.draw_model(held, 0)
    drawn, same_bias, same_mask = (numpy_helper.to_array(each) for each in held.graph.initializer)
    assert (drawn.shape, drawn.dtype) == (weight.shape, weight.dtype)
    assert drawn.mean() == pytest.approx(weight.mean(), abs=2e-4)
    assert drawn.std() == pytest.approx(weight.std(), rel=0.01)
    assert np.array_equal(same_bias, bias)
    assert np.array_equal(same_mask, mask)


def test_a_weight_is_the_same_in_every_file_of_a_model_and_another_with_another_seed() -> None:
    random = np.random.default_rng(0)
    one, two = (random.normal(size=(80, 80)).astype(np.float32) for _ in range(2))
    single = model(("a", one), ("b", two))
    half = model(("renamed_half", one.astype(np.float16)))
    for each in (single, half):
        weights.strip_model(each)
    turned = model(("c", np.ascontiguousarray(one.T)))
    weights.strip_model(turned)
    weights.draw_model(turned, 0)
    other_seed = onnx.ModelProto.FromString(single.SerializeToString())
    weights.draw_model(single, 0)
    weights.draw_model(half, 0)
    weights.draw_model(other_seed, 1)
    a, b = (numpy_helper.to_array(each) for each in single.graph.initializer)
    same = numpy_helper.to_array(half.graph.initializer[0])
    assert half.graph.initializer[0].data_type == TensorProto.FLOAT16
    assert np.array_equal(a, same.astype(np.float32))
    assert np.array_equal(a, numpy_helper.to_array(turned.graph.initializer[0]).T)
    assert not np.array_equal(a, b)
    assert not np.array_equal(a, numpy_helper.to_array(other_seed.graph.initializer[0]))


def test_pixels_are_drawn_as_bytes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    held = weights.of_arrays({"image": pixels, "valid_size": np.array([[64, 64]], np.int32)})
    weights.strip_model(held)
    assert held.ByteSize() < 500
    weights.draw_model(held, 0)
    drawn = weights.to_arrays(held)
    assert drawn["image"].dtype == np.uint8
    assert drawn["image"].std() == pytest.approx(pixels.std(), rel=0.05)
    assert drawn["valid_size"].tolist() == [[64, 64]]
