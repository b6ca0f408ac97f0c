"""The folder proto/ is enough by itself, and what it holds of Google's is what Google's own files say."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.api import annotations_pb2, field_behavior_pb2, http_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from google.rpc import error_details_pb2, status_pb2

FOLDER = Path(__file__).parents[2] / "proto"
BUF = Path(sys.executable).parent / "buf"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a caller takes along: the folder in another place, without what the install generates."""
    folder = tmp_path_factory.mktemp("elsewhere") / "proto"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "*.pyi", "__pycache__"))
    return folder


@pytest.fixture(scope="module")
def compiled(copy: Path) -> descriptor_pb2.FileDescriptorSet:
    """All files. The include path is the folder, and google/protobuf, which every protoc brings."""
    output = copy.parent / "files.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{copy}", "--include_imports"]
    files = [str(path) for path in copy.rglob("*.proto")]
    result = subprocess.run(
        [*command, f"--descriptor_set_out={output}", *files], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")  # no warnings either, such as of unused imports
    return descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes())


def test_files_compile_alone(compiled: descriptor_pb2.FileDescriptorSet) -> None:
    ours = [file for file in compiled.file if file.package == "visiongate.v1"]
    assert len(ours) == len(list((FOLDER / "visiongate").rglob("*.proto")))
    assert all(file.options.java_package == "io.visiongate.v1" for file in ours)
    # A first part with a dot would be an address that Go fetches, and nothing is published there.
    assert all(file.options.go_package == "visiongate/v1;visiongatev1" for file in ours)


@pytest.mark.parametrize(
    "official",
    [
        pytest.param(module.DESCRIPTOR, id=module.DESCRIPTOR.name)
        for module in (annotations_pb2, field_behavior_pb2, http_pb2, status_pb2, error_details_pb2)
    ],
)
def test_googles_files_declare_what_googles_own_do(
    compiled: descriptor_pb2.FileDescriptorSet, official: FileDescriptor
) -> None:
    """Names, numbers, types, labels, oneofs, extensions and options: all but the comments."""
    [ours] = [file for file in compiled.file if file.name == official.name]
    assert declarations(ours) == declarations(official)


def test_all_of_googles_files_are_compared(compiled: descriptor_pb2.FileDescriptorSet) -> None:
    brought = {
        path.relative_to(FOLDER).as_posix() for path in (FOLDER / "google").rglob("*") if path.is_file()
    }
    # No stubs either: Python's descriptor pool has these files from googleapis-common-protos.
    assert brought == {
        "google/api/annotations.proto",
        "google/api/field_behavior.proto",
        "google/api/http.proto",
        "google/rpc/error_details.proto",
        "google/rpc/status.proto",
    }
    assert brought < {file.name for file in compiled.file}


def declarations(file: FileDescriptor | descriptor_pb2.FileDescriptorProto) -> list[str]:
    """A file as lines, without comments, and without the JSON names that protoc works out itself."""
    if isinstance(file, FileDescriptor):
        proto = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(proto)
        file = proto
    stripped = descriptor_pb2.FileDescriptorProto()
    stripped.CopyFrom(file)
    stripped.ClearField("source_code_info")
    return [line for line in str(stripped).splitlines() if "json_name:" not in line]


def buf(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BUF, command, folder], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["build", "lint"])
def test_buf_takes_the_folder(copy: Path, command: str) -> None:
    result = buf(command, copy)
    assert result.returncode == 0, result.stdout + result.stderr


def test_buf_lint_leaves_out_none_of_our_files(copy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "proto"
    shutil.copytree(copy, folder)
    file = folder / "visiongate/v1/geometry.proto"
    file.write_text(file.read_text().replace("  // Left edge.\n", ""))
    assert 'Field "x_min" should have a non-empty comment' in buf("lint", folder).stdout
