"""Packages that only some commands need."""

from collections.abc import Iterator
from contextlib import contextmanager

from visiongate.command_error import CommandError


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Say what to install if an import inside fails.

        with needs("batch"):
            import pyarrow

    Raises CommandError for a package that is missing. Modules of visiongate itself are never missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "visiongate"):
            raise
        raise CommandError(
            f"the package {package} is missing: install visiongate[{extra}], as in "
            f"pip install 'visiongate[{extra}]'"
        ) from error
