"""The frames of videos."""

import io
from collections.abc import Iterator
from typing import IO

import av
from PIL import Image

from visiongate.batch.inputs.folder import as_id, failed
from visiongate.batch.inputs.places import Place, is_connection
from visiongate.batch.item import Item

# At this quality and with colours at full resolution, JPEG changes answers less than the video's own loss. A
# lossless PNG of such a frame takes ten times as long and three times the bytes.
_QUALITY = 95
# Many files say how long they are. Less than this of it missing is rounding.
_MISSING_S = 0.5
_MISSING_PART = 0.02


class Video:
    """Every n-th frame of a video, as a JPEG file: a `Source`. Ids are `film.mp4#250`: frames count from 0.

    Frames are upright, as players show them. Each is in memory as long as its item is. A video that is
    damaged, breaks off or is none has an item more at its end, whose `read` says so.
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

    def __iter__(self) -> Iterator[Item]:
        version = self._version or self._place.version(self._path)
        number = -1
        try:
            with self._place.open(self._path) as file:
                for number, (frame, time_s) in enumerate(_frames(file)):
                    if number % self._every_nth == 0:
                        data = _jpeg(frame)
                        yield Item(self._item_id(number), lambda data=data: data, version, time_s)  # type: ignore[misc]
        except (OSError, ValueError) as error:
            if is_connection(self._place, error):
                raise
            missing = isinstance(error, FileNotFoundError | PermissionError)
            reason = error if missing else ValueError(f"{self._address} is no whole video: {_reason(error)}")
            yield failed(self._item_id(number + 1), reason)

    def count(self) -> int | None:
        # What a file says of itself is not always so.
        return None

    def _item_id(self, number: int) -> str:
        return as_id(f"{self._id}#{number}")


def _frames(file: IO[bytes]) -> Iterator[tuple[av.VideoFrame, float]]:
    """Yield frames, and their times in seconds from the first one.

    Raises ValueError if that is not the whole video: at the end, if some of it cannot be decoded.
    """
    if not file.read(1):
        raise ValueError("it is empty")
    file.seek(0)
    damage: Exception | None = None
    start = end = 0.0
    first: float | None = None
    # A playlist that is called a video names other files and addresses: none of them is opened.
    with av.open(file, "r", options={"protocol_whitelist": "none"}) as container:
        stream = next(iter(container.streams.video), None)
        if stream is None:
            raise ValueError("it has no pictures")
        if container.start_time is not None:
            start = container.start_time / av.time_base
        for packet in container.demux():
            # The sound too tells how far the file goes.
            if packet.pts is not None and packet.time_base is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base) - start)
            if packet.stream is not stream:
                continue
            try:
                frames = packet.decode()
            except av.error.InvalidDataError as error:
                damage = damage or error
                continue
            for frame in frames:
                assert isinstance(frame, av.VideoFrame)
                time_s = frame.time or 0.0
                first = time_s if first is None else first
                yield frame, time_s - first
        length = (container.duration or 0) / av.time_base
        if container.format.name == "avi" and stream.average_rate:
            # Its duration is made up from the bytes that are there.
            length = float(stream.frames / stream.average_rate)
    if damage is not None:
        raise ValueError(f"some of its pictures cannot be decoded: {_reason(damage)}")
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
