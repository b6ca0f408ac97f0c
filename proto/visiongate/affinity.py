"""To which of several servers behind a proxy a call should go: to the one that keeps the call's image.

Proxies cannot look into a request. So the name of its image is sent beside it, and calls that bring the same
name go to the same server.
"""

import hashlib

from google.protobuf.message import Message

from visiongate.v1 import image_pb2

IMAGE_ID = "x-image-id"

# Of an image_id: the SHA-256 of what was sent, in hexadecimal digits. The rest is the caller's own.
_CONTENT_DIGITS = 64
_ORDERS = {
    image_pb2.PIXEL_FORMAT_UNSPECIFIED: "rgb",
    image_pb2.PIXEL_FORMAT_RGB: "rgb",
    image_pb2.PIXEL_FORMAT_BGR: "bgr",
    image_pb2.PIXEL_FORMAT_GRAY: "gray",
}


def image_name(request: Message) -> str:
    """Return the name of a request's first image, the same whether it is sent or given by its id.

    Empty for a request without images, and for an image that the server fetches.
    """
    if isinstance(request, image_pb2.Image):
        return _name(request)
    for field, value in request.ListFields():
        if field.message_type is not None:
            for message in (value,) if isinstance(value, Message) else value:
                if name := image_name(message):
                    return name
    return ""


def _name(image: image_pb2.Image) -> str:
    match image.WhichOneof("source"):
        case "image_id":
            return image.image_id[:_CONTENT_DIGITS]
        case "encoded":
            return hashlib.sha256(image.encoded).hexdigest()
        case "raw":
            raw = image.raw
            digest = hashlib.sha256(raw.data)
            digest.update(f"{_ORDERS.get(raw.format, '')} {raw.width}x{raw.height}".encode())
            return digest.hexdigest()
    return ""
