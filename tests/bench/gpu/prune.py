"""Machine code of other GPUs than the wanted ones, taken out of a CUDA library.

Such a library holds the code of each kernel for many architectures, in containers ("fatbins") of the ELF
section .nv_fatbin. The code of the others is overwritten with zeros, which compress to nothing. Headers and
places stay, so that the driver finds what it looks for as before.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

SECTION = b".nv_fatbin"
_MAGIC = bytes.fromhex("50ed55ba")
# Magic, version, size of the header, size of the body.
_CONTAINER = struct.Struct("<IHHQ")
# Kind, version, size of the header, size of the code.
_ENTRY = struct.Struct("<HHIQ")
_ARCHITECTURE_AT = 28


@dataclass(frozen=True)
class Code:
    """One architecture's code in a container. start, end: places in the file. container: its number."""

    container: int
    architecture: int
    start: int
    end: int


def prune(library: bytearray, architecture: int, drop_lone: bool = False) -> dict[str, int]:
    """Overwrite the code of all other architectures; return how many bytes were kept, and how many were not.

    `drop_lone` also overwrites the containers that hold this architecture alone: kernels that were made
    for it and have no other form, such as quantised products of mixtures of experts. None of our models
    has these. Raises ValueError if the library has no code for the architecture.
    """
    held = list(codes(library))
    if architecture not in {code.architecture for code in held}:
        known = ", ".join(str(each) for each in sorted({code.architecture for code in held}))
        raise ValueError(f"the library has no code for sm_{architecture}, only for {known or 'none'}")
    together: dict[int, set[int]] = {}
    for code in held:
        together.setdefault(code.container, set()).add(code.architecture)
    sizes = {"kept": 0, "zeroed": 0}
    for code in held:
        is_lone = together[code.container] == {architecture}
        if code.architecture == architecture and not (drop_lone and is_lone):
            sizes["kept"] += code.end - code.start
            continue
        library[code.start : code.end] = bytes(code.end - code.start)
        sizes["zeroed"] += code.end - code.start
    return sizes


def codes(library: bytes | bytearray) -> Iterator[Code]:
    """Yield all code of a library, container by container. Raises ValueError where it is not understood."""
    start, size = section(library, SECTION)
    at, end, container = start, start + size, 0
    while (at := library.find(_MAGIC, at, end)) >= 0:
        _, _, header, body = _CONTAINER.unpack_from(library, at)
        entry, stop = at + header, at + header + body
        if stop > end:
            raise ValueError("a container ends behind its section: the format is another")
        while entry < stop:
            _, _, entry_header, payload = _ENTRY.unpack_from(library, entry)
            (architecture,) = struct.unpack_from("<I", library, entry + _ARCHITECTURE_AT)
            if entry_header <= _ARCHITECTURE_AT or entry + entry_header + payload > stop:
                raise ValueError("code ends behind its container: the format is another")
            yield Code(container, architecture, entry + entry_header, entry + entry_header + payload)
            entry += entry_header + payload
        at, container = stop, container + 1


def section(library: bytes | bytearray, name: bytes) -> tuple[int, int]:
    """Return place and size of a section of a 64-bit ELF file. Raises ValueError if there is none."""
    if library[:5] != b"\x7fELF\x02":
        raise ValueError("not a 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", library, 40)
    each, count, names = struct.unpack_from("<HHH", library, 58)
    (names_at,) = struct.unpack_from("<Q", library, table + names * each + 24)
    for index in range(count):
        header = table + index * each
        (at,) = struct.unpack_from("<I", library, header)
        first = names_at + at
        if library[first : library.index(0, first)] == name:
            place, size = struct.unpack_from("<QQ", library, header + 24)
            return int(place), int(size)
    raise ValueError(f"there is no section {name.decode()}")
