"""The models of a repository that Triton can serve. A single folder that it cannot load would end it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from gateway.embedded.cache_folder import is_plain
from gateway.embedded.error import EmbeddedTritonError

# The file that a version needs, by backend of Triton from pip. Ensembles need no file.
_MODEL_FILES = {"onnxruntime": "model.onnx", "python": "model.py"}
_ADVICE = (
    "export models into it with `visiongate export`, serve the demo models with `visiongate up --demo`, "
    "or name another folder by --repository"
)


@dataclass(frozen=True, slots=True)
class Model:
    """A model's folder: the versions that can be served, and in `fault` why others cannot."""

    path: Path
    versions: tuple[str, ...]
    fault: str
    is_complete: bool
    """True if the configuration names inputs and outputs, so that Triton need not read the model for them."""


def read_models(repository: Path, *, may_be_empty: bool = False) -> list[Model]:
    """Return the models of a repository, sorted by name. Files and hidden folders are not models.

    Raises EmbeddedTritonError if the repository is not a folder, or has no model that can be served although
    it may not be empty.
    """
    try:
        folders = sorted(path for path in repository.iterdir() if path.is_dir())
        models = [_read_model(path) for path in folders if not path.name.startswith(".")]
    except FileNotFoundError:
        raise EmbeddedTritonError(f"There is no model repository {repository}: {_ADVICE}.") from None
    except NotADirectoryError:
        raise EmbeddedTritonError(f"The model repository {repository} is not a folder: {_ADVICE}.") from None
    except OSError as error:
        raise EmbeddedTritonError(f"The model repository cannot be read: {error}.") from error
    if not may_be_empty and not any(model.versions for model in models):
        faults = f" ({faults_of(models)})" if models else ""
        raise EmbeddedTritonError(f"The model repository {repository} has no models{faults}: {_ADVICE}.")
    return models


def faults_of(models: list[Model]) -> str:
    """Say in one line what cannot be served, and why. The line is empty if everything can be served."""
    names_by_fault: dict[str, list[str]] = {}
    for model in models:
        if model.fault:
            names_by_fault.setdefault(model.fault, []).append(model.path.name)
    return "; ".join(f"{', '.join(names)}: {fault}" for fault, names in names_by_fault.items())


def servable(repository: Path, models: list[Model], folder: Path) -> Path:
    """Return a path at which Triton finds the models that can be served, and nothing else.

    That is the repository itself. It is a folder of links in `folder` instead if part of the repository
    cannot be served, or if its path has spaces or quotes. Triton starts its Python processes through a shell
    and quotes nothing: a process whose arguments are shifted dies, and Triton waits for it forever.
    """
    repository = repository.absolute()
    names = {path.name for path in repository.iterdir() if path.is_dir()}
    if is_plain(repository) and names == {model.path.name for model in models if not model.fault}:
        return repository
    links = {}
    for model in models:
        if not model.fault:
            links[Path(model.path.name)] = model.path
        elif model.versions:
            for entry in model.path.iterdir():
                if not entry.name.isdecimal() or entry.name in model.versions:
                    links[Path(model.path.name, entry.name)] = entry
    return _linked(links, folder)


def linked(repository: Path, folder: Path) -> Path:
    """Return a path without spaces and quotes to a whole repository, with models that are added later.

    It may be a link in `folder`.
    """
    repository = repository.absolute()
    return repository if is_plain(repository) else _linked({Path("all"): repository}, folder) / "all"


def _read_model(path: Path) -> Model:
    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse((path / "config.pbtxt").read_text(), config)
    except (OSError, ValueError, text_format.ParseError):
        config.Clear()  # Triton completes what is missing, or says what is wrong
    file = config.default_model_filename or _MODEL_FILES.get(config.backend, "")
    is_ensemble = config.platform == "ensemble"

    def is_whole(version: Path) -> bool:
        return is_ensemble or ((version / file).exists() if file else any(version.iterdir()))

    try:
        numbers = [entry.name for entry in path.iterdir() if entry.name.isdecimal() and entry.is_dir()]
        whole = [number for number in numbers if is_whole(path / number)]
    except OSError as error:
        return Model(path.absolute(), (), f"cannot be read ({error.strerror})", False)
    fault = ""
    if not numbers:
        fault = "no version folder"
    elif missing := sorted(set(numbers) - set(whole), key=int):
        fault = f"version {', '.join(missing)} has no {file or 'file'}"
    return Model(path.absolute(), tuple(whole), fault, bool(config.input and config.output))


def _linked(links: Mapping[Path, Path], folder: Path) -> Path:
    """Make a folder of these symbolic links."""
    repository = folder / "repository"
    repository.mkdir()
    for link, target in links.items():
        (repository / link).parent.mkdir(exist_ok=True)
        (repository / link).symlink_to(target)
    return repository
