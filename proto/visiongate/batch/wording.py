"""Words of sentences about a job."""

import copy

from visiongate.client import Client
from visiongate.errors import VisiongateError


def counted(count: int, noun: str) -> str:
    """Return how many there are, such as "1 photo" or "1,200 photos"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def of_server(error: VisiongateError, client: Client) -> VisiongateError:
    """Return the error as one of a server among several: it says which."""
    if client.address in error.message:
        return error
    named = copy.copy(error)
    named.message = f"{client.address}: {error.message}"
    named.args = (f"{named.code.name}: {named.message}",)
    return named
