"""What a model repository holds, and what it lacks, in words for the person who exported."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway.catalog import Family
from gateway.services.registry import FAMILIES

# Those that have no hub.
FILES: Mapping[str, str] = {"face_detection": "YUNET.onnx", "gaze": "L2CSNET.pkl"}


def models(repository: Path) -> list[str]:
    """The names of the models that Triton would find complete in it."""
    files = (path for path in repository.glob("*/[0-9]*/model.*") if path.suffix != ".data")
    found = (path.parents[1] for path in files)
    return sorted({folder.name for folder in found if (folder / "config.pbtxt").is_file()})


def lacks(repository: Path, options: str) -> Iterator[str]:
    """For every task that the repository has no model of, a sentence with the command that mends it.

    `options`: those of the command that has run, which the others should have too.
    """
    here = models(repository)
    for family in FAMILIES:
        if not any(_has(choice, here) for choice in family.choices):
            file = "" if "--weights" in options or "--size" in options else FILES.get(family.name, "")
            weights = f" --weights {file}" if file else ""
            command = f"visiongate export {family.name}{weights}{options}"
            yield f"Missing for {family.task}: {family.name}; to add it: {command}"


def _has(family: Family[Any], names: list[str]) -> bool:
    """Whether the models of any of its variants are all there."""
    roles = [role.name for role in family.roles]
    suffixes = {name[len(roles[0]) :] for name in names if name.partition("-")[0] == roles[0]}
    return any(all(role + suffix in names for role in roles) for suffix in suffixes)
