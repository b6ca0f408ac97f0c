"""What a model repository holds and what it lacks, for the person who exported."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from export.families import FAMILIES as EXPORTERS
from gateway.catalog import Family
from gateway.services.registry import FAMILIES


def models(repository: Path) -> list[str]:
    """Return the names of the models that Triton would find complete in the repository."""
    files = (path for path in repository.glob("*/[0-9]*/model.*") if path.suffix != ".data")
    folders = (path.parents[1] for path in files)
    return sorted({folder.name for folder in folders if (folder / "config.pbtxt").is_file()})


def lacks(repository: Path, options: str) -> Iterator[str]:
    """Yield a sentence for every task that the repository has no model for, with the command that adds one.

    `options` are those of the command that has run. The printed commands get them too.
    """
    here = models(repository)
    for family in FAMILIES:
        if not any(_has(member, here) for member in family.with_alternatives):
            has_weights = "--weights" in options or "--size" in options
            file = "" if has_weights else EXPORTERS[family.name].weights_file
            weights = f" --weights {file}" if file else ""
            command = f"visiongate export {family.name}{weights}{options}"
            yield f"Missing for {family.task}: {family.name}; to add it: {command}"


def _has(family: Family[Any], names: list[str]) -> bool:
    """Return whether the models of any of its variants are all there."""
    roles = [role.name for role in family.roles]
    suffixes = {name[len(roles[0]) :] for name in names if name.partition("-")[0] == roles[0]}
    return any(all(role + suffix in names for role in roles) for suffix in suffixes)
