"""Build hook: generates the Python stubs of every .proto file below this folder."""

from pathlib import Path
from typing import Any

import grpc_tools
from google.api import annotations_pb2
from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent


class GenerateStubs(BuildHookInterface):
    """Runs protoc before hatchling packs or links the project."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # googleapis-common-protos brings google/api/annotations.proto, grpc_tools google/protobuf/*.proto.
        includes = [
            ROOT,
            Path(annotations_pb2.__file__).parents[2],
            Path(grpc_tools.__file__).parent / "_proto",
        ]
        sources = sorted(str(path) for path in ROOT.rglob("*.proto"))
        arguments = [
            "protoc",
            *(f"-I{include}" for include in includes),
            f"--python_out={ROOT}",
            f"--grpc_python_out={ROOT}",
            f"--mypy_out=quiet:{ROOT}",
            f"--mypy_grpc_out=quiet:{ROOT}",
            *sources,
        ]
        if protoc.main(arguments) != 0:
            raise RuntimeError("protoc failed: " + " ".join(arguments))
        # The stubs are ignored by git, so hatchling would leave them out of the wheel.
        build_data["artifacts"] += ["visiongate/v1/*_pb2*.py*"]
