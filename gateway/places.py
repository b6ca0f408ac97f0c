"""Where things lie by default: beside the code in a checkout, else where the user's data belong."""

from pathlib import Path

import platformdirs

_PARENT = Path(__file__).parents[1]
MODEL_REPOSITORY = "model_repository"


def checkout() -> Path | None:
    """The checkout that this code runs from, None where it is installed.

    Its README is asked for too: packages have left a pyproject.toml beside the others before now, and
    an older visiongate its exported models.
    """
    marks = (_PARENT / "pyproject.toml", _PARENT / MODEL_REPOSITORY / "README.md")
    return _PARENT if all(mark.is_file() for mark in marks) else None


def default_repository() -> Path:
    """The model repository that is exported to and served where nothing else is asked for."""
    return (checkout() or _user_data()) / MODEL_REPOSITORY


def _user_data() -> Path:
    try:
        return platformdirs.user_data_path("visiongate")
    except RuntimeError:  # no HOME, and no entry in the system's list of users, as in some containers
        return Path.cwd()
