"""The comments of the .proto files, which the generated stubs do not have."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

# The fields of descriptor.proto that hold declarations, by their numbers.
_FILE = {4: "message_type", 5: "enum_type", 6: "service"}
_MESSAGE = {2: "field", 3: "nested_type", 4: "enum_type", 8: "oneof_decl"}
_INSIDE: Mapping[str, Mapping[int, str]] = {
    "message_type": _MESSAGE,
    "nested_type": _MESSAGE,
    "enum_type": {2: "value"},
    "service": {2: "method"},
}


@cache
def proto_comments() -> Mapping[str, str]:
    """Return the comments of messages, fields, oneofs, enums, services and methods by their full names.

    The name of an enum's value follows that of its enum: visiongate.v1.MaskFormat.MASK_FORMAT_PNG. The lines
    of a paragraph are joined; those that are indented (drawings) stay as they are.
    """
    data = resources.files("visiongate.v1").joinpath("descriptors.binpb").read_bytes()
    return {
        name: comment for file in FileDescriptorSet.FromString(data).file for name, comment in _comments(file)
    }


def _comments(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for location in file.source_code_info.location:
        if location.leading_comments:
            name = _name(file, location.path)
            if name is not None:
                yield name, _unwrap(location.leading_comments)


def _name(file: FileDescriptorProto, path: Sequence[int]) -> str | None:
    """Return the full name of what is declared at this path, or None of what has none, such as an option.

    path: the number of a field of descriptor.proto and an index in it, again and again from the file inwards.
    """
    if len(path) % 2:
        return None
    declaration: Any = file
    names = [file.package]
    kinds: Mapping[int, str] = _FILE
    for number, index in zip(path[::2], path[1::2], strict=True):
        if number not in kinds:
            return None
        declaration = getattr(declaration, kinds[number])[index]
        names.append(declaration.name)
        kinds = _INSIDE.get(kinds[number], {})
    return ".".join(names)


def _unwrap(comment: str) -> str:
    text = re.sub(r"^ ", "", comment, flags=re.MULTILINE).strip("\n")
    paragraphs = re.split(r"\n\s*\n", text)
    return "\n\n".join(
        paragraph.rstrip() if paragraph.startswith(" " * 4) else " ".join(paragraph.split())
        for paragraph in paragraphs
    )
