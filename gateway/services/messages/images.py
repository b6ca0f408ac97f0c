"""Images: the four ways in which a request can give one, and what an answer says of it."""

from collections.abc import Sequence

from gateway.errors import InputError
from gateway.models.raw_image import PixelOrder
from gateway.pipelines.image_loading import ImageLoader
from gateway.pipelines.images import (
    CachedImage,
    EncodedImage,
    ImageInfo,
    ImageSource,
    LoadedImage,
    RawImage,
    UriImage,
)
from gateway.pipelines.items import attempt
from gateway.services.messages.fields import PathOf, field
from gateway.settings import Settings
from visiongate.v1 import image_pb2

_ORDERS = {
    image_pb2.PIXEL_FORMAT_UNSPECIFIED: PixelOrder.RGB,
    image_pb2.PIXEL_FORMAT_RGB: PixelOrder.RGB,
    image_pb2.PIXEL_FORMAT_BGR: PixelOrder.BGR,
    image_pb2.PIXEL_FORMAT_GRAY: PixelOrder.GRAY,
}


def image_source(image: image_pb2.Image, settings: Settings) -> ImageSource:
    """Return where an image comes from. Raise InputError if that cannot be used."""
    match image.WhichOneof("source"):
        case "encoded":
            data = image.encoded  # each look at the field makes a copy
            if not data:
                raise InputError("is empty")
            if len(data) > settings.max_image_bytes:
                raise InputError(f"has {len(data)} bytes; the limit is {settings.max_image_bytes}")
            return EncodedImage(data)
        case "raw":
            order = _ORDERS.get(image.raw.format)
            if order is None:
                raise InputError(f"has the format {image.raw.format}, which is not a known one")
            return RawImage(image.raw.data, image.raw.width, image.raw.height, order)
        case "image_id":
            return CachedImage(image.image_id)
        case "uri":
            return UriImage(image.uri)
        case _:
            raise InputError("is missing: set encoded, raw, image_id or uri")


def image_sources(images: Sequence[image_pb2.Image], settings: Settings) -> list[ImageSource | InputError]:
    """Return where each image of a list comes from, or why it cannot be used."""
    return [attempt(lambda image: image_source(image, settings), image) for image in images]


def image_path(image: image_pb2.Image, path: str) -> str:
    """Return the path of what an image at this path is given by, such as "image.encoded"."""
    source = image.WhichOneof("source")
    return f"{path}.{source}" if source else path


def image_paths(images: Sequence[image_pb2.Image], name: str) -> PathOf:
    """Return a function that gives the path of what the image at a place of a list is given by."""

    def path(index: int | None) -> str:
        return name if index is None else image_path(images[index], f"{name}[{index}]")

    return path


def image_paths_of_one(image: image_pb2.Image) -> PathOf:
    """Return the function that `image_paths` gives for a list, for the request's only image."""
    return lambda index: image_path(image, "image")


async def load_image(
    image: image_pb2.Image, images: ImageLoader, settings: Settings, name: str = "image"
) -> LoadedImage:
    """Load the image of the request's field `name`. Raise StatusError if it cannot be used."""
    with field(image_path(image, name)):
        return await images.load(image_source(image, settings))


def image_message(image: LoadedImage | ImageInfo) -> image_pb2.ImageInfo:
    """Return what an answer says of an image. The id is the caller's name for it, never the content hash."""
    return image_pb2.ImageInfo(image_id=image.image_id, width=image.width, height=image.height)
