"""Archives in bundles of a limited size, each a folder with `unpack.py` and the checksums of its files."""

import hashlib
import json
import shutil
import tarfile
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bench.gpu import unpack

LIMIT_BYTES = 60 * 2**20
# For unpack.py and the manifest.
_RESERVED_BYTES = 2**16
# Long runs of zeros, as of pruned code, compress as well as by higher presets, in a tenth of the time.
_PRESET: Literal[3] = 3


@dataclass(frozen=True)
class Archive:
    """Files by their path after unpacking; wheels in wheels/ of which host/ gets what Python imports."""

    name: str
    files: Mapping[str, Path]
    install: Sequence[str] = field(default_factory=list)


def write(archives: Iterable[Archive], to: Path, limit_bytes: int = LIMIT_BYTES) -> list[tuple[Path, int]]:
    """Write bundle-1, bundle-2 and so on; return them with their bytes.

    An archive that does not fit into what a bundle has left starts the next, and goes on in further ones if
    it is larger than a whole one.
    """
    for stale in to.glob("bundle-*"):
        shutil.rmtree(stale)
    room = limit_bytes - _RESERVED_BYTES
    bundles: list[list[dict[str, object]]] = [[]]
    used = 0
    for archive in archives:
        whole = to / f"{archive.name}.tar.xz"
        with tarfile.open(whole, "w:xz", preset=_PRESET) as tar:
            for name, path in sorted(archive.files.items()):
                tar.add(path, name, filter=_anonymous)
        size = whole.stat().st_size
        if used and used + size > room:
            bundles.append([])
            used = 0
        parts = -(-size // room)
        with whole.open("rb") as file:
            for part in range(parts):
                if part:
                    bundles.append([])
                    used = 0
                content = file.read(room)
                folder = to / f"bundle-{len(bundles)}"
                folder.mkdir(parents=True, exist_ok=True)
                name = f"{whole.name}.{part + 1}" if parts > 1 else whole.name
                (folder / name).write_bytes(content)
                used += len(content)
                digest = hashlib.sha256(content).hexdigest()
                bundles[-1].append(
                    {"file": name, "sha256": digest, "archive": archive.name, "part": part, "parts": parts}
                    | {"install": list(archive.install)}
                )
        whole.unlink()
    sizes = []
    for number, entries in enumerate(bundles, 1):
        folder = to / f"bundle-{number}"
        (folder / unpack.MANIFEST).write_text(json.dumps(entries, indent=1))
        shutil.copy(unpack.__file__, folder / "unpack.py")
        sizes.append((folder, sum(file.stat().st_size for file in folder.iterdir())))
    return sizes


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def slim_wheel(
    wheel: Path,
    to: Path,
    keep: Callable[[str], bool],
    change: Callable[[str, bytes], bytes] = lambda _name, content: content,
) -> Path:
    """Write a wheel of the same name with some of its files, some of them changed; return its path.

    Stored, not compressed: the archive around it compresses better.
    """
    to.mkdir(parents=True, exist_ok=True)
    path = to / wheel.name
    record = []
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        record_name = next(name for name in old.namelist() if name.endswith(".dist-info/RECORD"))
        for entry in old.infolist():
            if entry.is_dir() or entry.filename == record_name or not keep(entry.filename):
                continue
            content = change(entry.filename, old.read(entry))
            # With its permissions: Triton is a program.
            kept = zipfile.ZipInfo(entry.filename)
            kept.external_attr = entry.external_attr
            new.writestr(kept, content)
            digest = urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{entry.filename},sha256={digest},{len(content)}\n")
        new.writestr(record_name, "".join([*record, f"{record_name},,\n"]))
    return path
