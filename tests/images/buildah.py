"""buildah, which builds images as root without a daemon. The storage is the project's own."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
STORAGE = PROJECT / "build/images"


@dataclass(frozen=True)
class Image:
    """What an image says of itself. `layers` has the uncompressed bytes of each by its digest."""

    layers: dict[str, int]
    user: str
    command: tuple[str, ...]
    environment: dict[str, str]
    folder: str
    labels: dict[str, str]

    @property
    def size(self) -> int:
        """Uncompressed bytes."""
        return sum(self.layers.values())

    def size_over(self, base: "Image") -> int:
        """Return the uncompressed bytes of the layers that the base does not have."""
        return sum(size for layer, size in self.layers.items() if layer not in base.layers)


def buildah(*arguments: str | Path) -> str:
    """Run a command of buildah, and return what it prints. Raise CalledProcessError if it fails."""
    places = ("--root", STORAGE / "storage", "--runroot", STORAGE / "run")
    return subprocess.run(
        ("buildah", *places, *arguments),
        # Other isolations want cgroups, which few containers let their processes make.
        env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.strip()


def build(dockerfile: str, tag: str, context: Path, *options: str, **arguments: str) -> None:
    """Build an image. `arguments` are those of the Dockerfile, without their default."""
    values = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    file = PROJECT / "deploy/docker" / dockerfile
    buildah("build", "--quiet", "--pull=never", "--file", file, "--tag", tag, *options, *values, context)


def exists(tag: str) -> bool:
    return tag in buildah("images", "--format", "{{.Name}}").splitlines()


def inspect(tag: str) -> Image:
    entries = json.loads(buildah("inspect", "--type", "image", tag))["OCIv1"]
    config = entries["config"]
    stored = next(STORAGE.glob("storage/*-layers/layers.json")).read_text()
    sizes = {
        layer["diff-digest"]: layer["diff-size"] for layer in json.loads(stored) if "diff-digest" in layer
    }
    variables = [variable.partition("=") for variable in config.get("Env", [])]
    return Image(
        layers={layer: sizes[layer] for layer in entries["rootfs"]["diff_ids"]},
        user=config.get("User", ""),
        command=(*config.get("Entrypoint", []), *config.get("Cmd", [])),
        environment={name: value for name, _, value in variables},
        folder=config.get("WorkingDir", "/"),
        labels=config.get("Labels", {}),
    )


@contextmanager
def mounted(tag: str) -> Iterator[Path]:
    """Lend an image's files. What is changed there is lost at the end."""
    container = buildah("from", "--pull-never", tag)
    try:
        yield Path(buildah("mount", container))
    finally:
        buildah("rm", container)
