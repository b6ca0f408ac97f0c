"""Images that lists and tables name: by a path, or by an address."""

import functools
import os
import posixpath
from collections.abc import Callable

from visiongate.batch.filesystem import is_url, scheme_of
from visiongate.batch.inputs import places
from visiongate.batch.inputs.places import Local, Place, place_of
from visiongate.batch.inputs.web import SCHEMES, read_web
from visiongate.operations import image_file


class References:
    """What turns names of images into what reads them. Relative paths are relative to a folder of a place."""

    def __init__(self, place: Place, folder: str) -> None:
        self._place = place
        self._folder = folder
        self._local = Local()
        self._is_local = isinstance(place, Local)
        self._before = "" if folder == "/" else folder

    def reader(self, reference: str) -> tuple[Callable[[], bytes], str]:
        """Return what reads an image, and its version. No address is opened before it is read."""
        # Lists may have millions: what most of them are is seen first.
        if ":" in reference:
            if reference[:5].lower() == "data:":
                return functools.partial(image_file.read, reference, "the image"), ""
            if is_url(reference):
                read = read_web if scheme_of(reference) in SCHEMES else _read_address
                return functools.partial(read, reference), ""
        if self._is_local or os.path.isabs(reference):
            path = reference if os.path.isabs(reference) else f"{self._before}/{reference}"
            return functools.partial(places.read, self._local, path), self._local.version(path)
        path = posixpath.normpath(posixpath.join(self._folder, reference))
        return functools.partial(places.read, self._place, path), ""


def _read_address(address: str) -> bytes:
    place, path = place_of(address)
    return places.read(place, path)
