"""What is to be sent: calls of ready bytes, kept in two files that the load generator reads."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A request: the method or path, and its bytes.
Message = tuple[str, bytes]
# Requests that are sent at the same time; the next of a call wait for all their answers.
Wave = Sequence[Message]


@dataclass(frozen=True, slots=True)
class Load:
    """Calls, sent in turns, and how.

    kind: grpc, http or onnx. address: of the server; for onnx nothing. items: images or texts of a call.
    options: what else the kind needs; for onnx the models' files, and threads.
    """

    kind: str
    address: str
    items: int
    calls: Sequence[Sequence[Wave]]
    options: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, name: str) -> Path:
        """Write both files and return the path of the first."""
        index: list[list[list[tuple[str, int, int]]]] = []
        offset = 0
        with (folder / f"{name}.bytes").open("wb") as file:
            for call in self.calls:
                waves = []
                for wave in call:
                    messages = []
                    for method, content in wave:
                        file.write(content)
                        messages.append((method, offset, len(content)))
                        offset += len(content)
                    waves.append(messages)
                index.append(waves)
        path = folder / f"{name}.json"
        values = {"kind": self.kind, "address": self.address, "items": self.items, "calls": index}
        path.write_text(json.dumps({**values, "options": dict(self.options)}))
        return path

    @classmethod
    def read(cls, path: Path) -> "Load":
        values = json.loads(path.read_text())
        content = path.with_suffix(".bytes").read_bytes()
        calls = [
            [[(method, content[at : at + size]) for method, at, size in wave] for wave in call]
            for call in values["calls"]
        ]
        return cls(values["kind"], values["address"], values["items"], calls, values["options"])
