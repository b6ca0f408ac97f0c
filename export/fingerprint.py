"""The fingerprint of an export: the parameter `export`, the same in the config.pbtxt of each of its models.

By it the gateway tells halves of two exports apart, and notices new weights under an old name.
`python -m export.fingerprint REPOSITORY` writes it anew after files of a repository were changed by hand.
"""

import hashlib
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from export import engine_plan, engines, triton_config, warmup

_CONFIG = "config.pbtxt"
_OTHER_CONFIGS = "configs"
_DIGEST_BYTES = 16
_CHUNK_BYTES = 1 << 20


def of(models: Iterable[Path]) -> str:
    """Return the hash of all files in the folders of an export's models that answers depend on.

    Those are all but the configs, what Triton warms up with, and TensorRT's engines with what they are built
    of: these have the weights of `model.onnx` again, and are the same model.
    """
    digest = hashlib.sha256()
    for model in sorted(models):
        for path in sorted(model.rglob("*")):
            if path.is_file() and _counts(path.relative_to(model)):
                name = path.relative_to(model.parent).as_posix().encode()
                # With the sizes, so that no two sets of files are the same bytes.
                digest.update(b"%d %d " % (len(name), path.stat().st_size) + name)
                with path.open("rb") as file:
                    while chunk := file.read(_CHUNK_BYTES):
                        digest.update(chunk)
    return digest.digest()[:_DIGEST_BYTES].hex()


def _counts(path: Path) -> bool:
    """Whether answers depend on a file, whose path is from the model's folder on."""
    if path == Path(_CONFIG) or path.parts[0] in {_OTHER_CONFIGS, warmup.FOLDER}:
        return False
    return not path.name.startswith((engine_plan.FILE, engines.PLAIN))


def write(models: Iterable[Path]) -> None:
    """Write the fingerprint into the configs of an export's models. Nothing else in them changes."""
    folders = list(models)
    value = of(folders)
    for model in folders:
        for path in [model / _CONFIG, *model.glob(f"{_OTHER_CONFIGS}/*.pbtxt")]:
            text = triton_config.with_fingerprint(path.read_text(encoding="utf-8"), value, path)
            path.write_text(text, encoding="utf-8")


def exports(repository: Path) -> list[list[Path]]:
    """Return the folders of a repository's models, those of one export together."""

    def export(model: Path) -> tuple[str, str]:
        path = model / _CONFIG
        config = triton_config.parse(path.read_text(encoding="utf-8"), path)
        return config.parameters["family"].string_value, model.name.partition("-")[2]

    models = sorted((path.parent for path in repository.glob(f"*/{_CONFIG}")), key=export)
    return [list(group) for _, group in groupby(models, key=export)]


def main() -> None:
    """Write the fingerprints of all exports of a repository."""
    (repository,) = sys.argv[1:]
    for models in exports(Path(repository)):
        write(models)


if __name__ == "__main__":
    main()
