"""The build hook that generates the Python stubs of the .proto files in visiongate/."""

from pathlib import Path
from typing import Any

import grpc_tools
from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent
# Not google/: Python has those stubs from googleapis-common-protos, and a descriptor pool takes a file's name
# only once.
SOURCES = HERE / "visiongate/v1"


class GenerateStubs(BuildHookInterface):
    """A build hook that runs protoc before hatchling packs or links the project."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        arguments = [
            "protoc",
            f"-I{HERE}",
            # For google/protobuf/*.proto, which every protoc brings.
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            f"--python_out={HERE}",
            f"--grpc_python_out={HERE}",
            f"--mypy_out=quiet:{HERE}",
            f"--mypy_grpc_out=quiet:{HERE}",
            *sorted(str(path) for path in SOURCES.glob("*.proto")),
        ]
        if protoc.main(arguments) != 0:
            raise RuntimeError("protoc failed: " + " ".join(arguments))
        # The stubs are ignored by git, so hatchling would leave them out of the wheel.
        stubs = SOURCES.relative_to(self.root) / "*_pb2*.py*"
        build_data["artifacts"] += [stubs.as_posix()]
