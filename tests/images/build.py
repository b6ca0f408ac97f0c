"""Build the images of deploy/docker, and print their sizes.

    PYTHONPATH=tests python -m images.build

It needs root, buildah, and a package index. With --with-pytorch the exporter is that of all models, of 6 GB.
"""

import argparse
import os
import shutil
import sys

from export.demo.serving import REPOSITORY
from gateway.embedded.environment import ensure_environment
from images.base import ensure_base
from images.buildah import PROJECT, STORAGE, build, inspect

GATEWAY, MODELS, COPY, EXPORTER = (
    f"localhost/visiongate-{name}" for name in ("gateway", "models", "copy", "exporter")
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--with-pytorch", action="store_true")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("only root can build images here")
    if shutil.which("buildah") is None:
        sys.exit("there is no buildah (Debian's package of that name)")
    STORAGE.mkdir(parents=True, exist_ok=True)
    # Later there is no network to install it from.
    ensure_environment(print)
    base = ensure_base()
    extras = {} if arguments.with_pytorch else {"EXTRAS": "ocr"}
    build("gateway.Dockerfile", GATEWAY, PROJECT, BASE=base)
    build("models.Dockerfile", COPY, REPOSITORY, "--target=copy", BASE=base)
    build("models.Dockerfile", MODELS, REPOSITORY, "--target=models", BASE=base)
    # No index has PyTorch's builds for CPUs but PyTorch's own, which may be out of reach.
    build("exporter.Dockerfile", EXPORTER, PROJECT, BASE=base, TORCH_BACKEND="", **extras)
    print_sizes(base)


def print_sizes(base: str) -> None:
    below = inspect(base)
    print(f"{base}: {below.size / 1e6:.0f} MB")
    for tag in (GATEWAY, MODELS, COPY, EXPORTER):
        image = inspect(tag)
        print(f"{tag}: {image.size / 1e6:.0f} MB, {image.size_over(below) / 1e6:.0f} MB of it over the base")


if __name__ == "__main__":
    main()
