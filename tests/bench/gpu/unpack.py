"""Unpacks bundles on a host without a network. With the standard library alone.

    python3 bundle-1/unpack.py [FOLDER...] [--to FOLDER]

looks for parts in the folder of this file and in those that are given, checks them, and unpacks each archive
that is whole: graphs to graphs/, what Python imports to host/, wheels to wheels/.
"""

import argparse
import hashlib
import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path

MANIFEST = "manifest.json"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--to", type=Path, default=Path())
    given = parser.parse_args()
    try:
        for line in unpack([Path(__file__).parent, *given.folders], given.to):
            print(line)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def unpack(folders: list[Path], to: Path) -> list[str]:
    """Unpack all archives that are whole; return what to say. Raises ValueError for a damaged part."""
    found: dict[str, dict[int, Path]] = {}
    archives = {}
    for folder in folders:
        for entry in json.loads((folder / MANIFEST).read_text()):
            path = folder / entry["file"]
            if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
                raise ValueError(f"{path} is damaged: copy it again")
            found.setdefault(entry["archive"], {})[entry["part"]] = path
            archives[entry["archive"]] = entry
    said = []
    for name, entry in archives.items():
        if missing := sorted(set(range(entry["parts"])) - set(found[name])):
            said.append(f"{name}: part {missing[0] + 1} of {entry['parts']} is in another bundle")
            continue
        content = b"".join(found[name][part].read_bytes() for part in range(entry["parts"]))
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:xz") as tar:
            tar.extractall(to, filter="data")
        for wheel in entry["install"]:
            with zipfile.ZipFile(to / "wheels" / wheel) as file:
                file.extractall(to / "host")
        said.append(f"{name}: unpacked")
    return said


if __name__ == "__main__":
    sys.exit(main())
