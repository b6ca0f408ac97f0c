"""Default folders: beside the code in a checkout, otherwise in the user's data folder."""

from pathlib import Path

import platformdirs

_PARENT = Path(__file__).parents[1]
MODEL_REPOSITORY = "model_repository"


def checkout() -> Path | None:
    """Return the checkout that this code runs from, or None if the code is installed.

    Both files are needed to be sure: other packages have installed a pyproject.toml beside this one, and an
    older visiongate left its exported models there.
    """
    marks = (_PARENT / "pyproject.toml", _PARENT / MODEL_REPOSITORY / "README.md")
    return _PARENT if all(mark.is_file() for mark in marks) else None


def default_repository() -> Path:
    """Return the model repository that commands export to and serve by default."""
    return (checkout() or _user_data()) / MODEL_REPOSITORY


def _user_data() -> Path:
    try:
        return platformdirs.user_data_path("visiongate")
    except RuntimeError:  # no HOME, and no entry in the system's list of users, as in some containers
        return Path.cwd()
