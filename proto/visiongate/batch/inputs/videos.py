"""The frames of videos."""

import functools
import io
from bisect import bisect_right
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import dropwhile
from typing import IO, Any

import av
from av.container import InputContainer
from PIL import Image

from visiongate.batch.inputs.folder import as_id, failed
from visiongate.batch.inputs.in_order import InOrder
from visiongate.batch.inputs.places import Place, is_connection
from visiongate.batch.item import Item

# At this quality and with colours at full resolution, JPEG changes answers less than the video's own loss. A
# lossless PNG of such a frame takes ten times as long and three times the bytes.
_QUALITY = 95
# Decoded frames are large: twice as many as threads read at once.
_KEPT = 16
# Decoding fewer frames than these is quicker than finding another place in the file.
_FAR = 50
# Many files say how long they are. Less than this of it missing is rounding.
_MISSING_S = 0.5
_MISSING_PART = 0.02


class Video:
    """Every n-th frame of a video, as a JPEG file: a `Source`. Ids are `film.mp4#250`: frames count from 0.

    Frames are upright, as players show them. An iteration decodes all frames, to know which there are, and
    keeps none: they are decoded again when they are asked for. A video that is damaged, breaks off or is none
    has an item more at its end, whose `read` says so.
    """

    def __init__(self, place: Place, path: str, id: str, version: str, every_nth: int) -> None:
        self.ignored = 0
        self._address = place.address(path)
        self.name = self._address if every_nth == 1 else f"{self._address} (every {every_nth}th frame)"
        self._place = place
        self._path = path
        self._id = id
        self._version = version
        self._every_nth = every_nth
        # Numbers and times of frames from which on others can be decoded, as far as the video was iterated.
        self._keys: list[tuple[int, int]] = []
        self._in_order = InOrder(self._decoded, _KEPT, self._is_far)

    def __iter__(self) -> Iterator[Item]:
        version = self._version or self._place.version(self._path)
        number, first = -1, 0.0
        try:
            with self._opened() as container:
                for number, frame in enumerate(_frames(container)):
                    time_s = frame.time or 0.0
                    first = first if number else time_s
                    self._note(number, frame)
                    if number % self._every_nth == 0:
                        read = functools.partial(self._read, number)
                        yield Item(self._item_id(number), read, version, time_s - first)
        except (OSError, ValueError) as error:
            if is_connection(self._place, error):
                raise
            missing = isinstance(error, FileNotFoundError | PermissionError)
            yield failed(self._item_id(number + 1), error if missing else self._broken(error))

    def _note(self, number: int, frame: av.VideoFrame) -> None:
        is_new = not self._keys or number > self._keys[-1][0]
        if is_new and frame.key_frame and frame.pts is not None:
            self._keys.append((number, frame.pts))

    def count(self) -> int | None:
        # What a file says of itself is not always so.
        return None

    def _item_id(self, number: int) -> str:
        return as_id(f"{self._id}#{number}")

    def _read(self, number: int) -> bytes:
        try:
            return _jpeg(self._in_order.get(number))
        except LookupError as error:
            raise ValueError(f"{self._address} has no frame {number} any more") from error
        except av.error.FFmpegError as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> ValueError:
        return ValueError(f"{self._address} is no whole video: {_reason(error)}")

    def _decoded(self, first: int) -> Generator[tuple[int, av.VideoFrame], None, None]:
        """Yield frames, from one at or before a number on."""
        key = self._key_before(first)
        number, time = self._keys[key] if key > 0 else (0, 0)
        if number:
            with self._opened() as container:
                container.seek(time, stream=container.streams.video[0])
                # A decoder may begin with frames that are shown earlier, and lack what they build on.
                frames = dropwhile(lambda frame: frame.pts is None or frame.pts < time, _frames(container))
                is_found = False
                for at, frame in enumerate(frames, start=number):
                    is_found = is_found or frame.pts == time
                    if not is_found:
                        break
                    if at % self._every_nth == 0:
                        yield at, frame
                if is_found:
                    return
        # From the start: some kinds of file do not find the place, or go past it.
        with self._opened() as container:
            for at, frame in enumerate(_frames(container)):
                if at % self._every_nth == 0:
                    yield at, frame

    def _key_before(self, number: int) -> int:
        return bisect_right(self._keys, number, key=lambda key: key[0]) - 1

    def _is_far(self, next: int, number: int) -> bool:
        return number - next > _FAR and self._key_before(number) > self._key_before(next)

    @contextmanager
    def _opened(self) -> Iterator[InputContainer]:
        with self._place.open(self._path) as file:
            _check_not_empty(file)
            # A playlist that is called a video names other files and addresses: none of them is opened.
            with av.open(file, "r", options={"protocol_whitelist": "none"}) as container:
                if not container.streams.video:
                    raise ValueError("it has no pictures")
                yield container


def _check_not_empty(file: IO[bytes]) -> None:
    if not file.read(1):
        raise ValueError("it is empty")
    file.seek(0)


def _frames(container: InputContainer) -> Iterator[av.VideoFrame]:
    """Yield the frames from where the container is.

    Raises ValueError if that is not the whole video: at the end, if some of it cannot be decoded.
    """
    stream = container.streams.video[0]
    start, end = (container.start_time or 0) / av.time_base, 0.0
    damage: Exception | None = None
    for packet in container.demux():
        # The sound too tells how far the file goes.
        if packet.pts is not None and packet.time_base is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base) - start)
        if packet.stream is not stream:
            continue
        decoded: list[Any] = []
        try:
            decoded = list(packet.decode())
        except av.error.InvalidDataError as error:
            damage = damage or error
        yield from decoded
    if damage is not None:
        raise ValueError(f"some of its pictures cannot be decoded: {_reason(damage)}")
    length = (container.duration or 0) / av.time_base
    if container.format.name == "avi" and stream.average_rate:
        # Its duration is made up from the bytes that are there.
        length = float(stream.frames / stream.average_rate)
    if end < length - max(_MISSING_S, _MISSING_PART * length):
        raise ValueError(f"it breaks off after {end:.1f} of {length:.1f} seconds")


def _jpeg(frame: av.VideoFrame) -> bytes:
    picture: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    if frame.rotation:
        picture = picture.rotate(frame.rotation, expand=True)
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=_QUALITY, subsampling=0)
    return target.getvalue()


def _reason(error: Exception) -> str:
    # FFmpeg's errors have a number of its own and a sentence.
    text = getattr(error, "strerror", None) or str(error)
    return f"{text[:1].lower()}{text[1:]}"
