"""The build hook that generates the Python stubs of the .proto files, and the file of their comments."""

from pathlib import Path
from typing import Any

import grpc_tools
from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent
# Not google/: Python has those stubs from googleapis-common-protos, and a descriptor pool takes a file's name
# only once.
SOURCES = HERE / "visiongate/v1"


# The stubs have no comments. This file has, of all messages that a caller sees.
COMMENTED = "descriptors.binpb"


class GenerateStubs(BuildHookInterface):
    """A build hook that runs protoc before hatchling packs or links the project."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        ours = sorted(SOURCES.glob("*.proto"))
        run_protoc(
            f"--python_out={HERE}",
            f"--grpc_python_out={HERE}",
            f"--mypy_out=quiet:{HERE}",
            f"--mypy_grpc_out=quiet:{HERE}",
            *map(str, ours),
        )
        run_protoc(
            "--include_source_info",
            f"--descriptor_set_out={SOURCES / COMMENTED}",
            *map(str, ours),
            *map(str, sorted((HERE / "google/rpc").glob("*.proto"))),
        )
        # All of these are ignored by git, so hatchling would leave them out of the wheel.
        folder = SOURCES.relative_to(self.root)
        build_data["artifacts"] += [(folder / name).as_posix() for name in ("*_pb2*.py*", COMMENTED)]


def run_protoc(*arguments: str) -> None:
    # The second include path is for google/protobuf/*.proto, which every protoc brings.
    command = ["protoc", f"-I{HERE}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}", *arguments]
    if protoc.main(command) != 0:
        raise RuntimeError("protoc failed: " + " ".join(command))
