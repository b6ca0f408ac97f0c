"""Packages that only some commands need."""

from collections.abc import Iterator
from contextlib import contextmanager

from visiongate.command_error import CommandError


def how_to_install(extra: str) -> str:
    """Return what to do to have an extra of the client: no index of packages has it yet."""
    return (
        f'install the client with its extra, `pip install "./proto[{extra}]"` in a clone of visiongate, '
        f"or the wheel that `make wheels` makes there, with [{extra}] after its name"
    )


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
        raise CommandError(f"the package {package} is missing: {how_to_install(extra)}") from error
