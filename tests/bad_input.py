"""Bad images and bad messages by the thousand, the same ones for the same seed."""

import base64
import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from PIL import Image, PngImagePlugin

from gateway.models.image import FORMATS

Change = Callable[[random.Random, bytearray], None]

FLOATS = (float("nan"), float("inf"), float("-inf"), -1.0, -0.0, 0.5, 1.0, 1e-45, 3e38)
TEXTS = (
    "", " ", "\0", "dog", "{}", "{} {}", "[UNK] [SEP] [CLS] ##", ". . . . .", "\ud7ff\ue000\U0010ffff",
    "\u202edog\u200d\ufeff", "e\u0301" * 300, "😀" * 2000, "word " * 1500, "x" * 20_000, "image",
)  # fmt: skip
VALUES: Mapping[int, Sequence[Any]] = {
    FieldDescriptor.TYPE_FLOAT: FLOATS,
    FieldDescriptor.TYPE_STRING: TEXTS,
    FieldDescriptor.TYPE_BYTES: (b"", b"\0", b"\xff\xd8\xff", bytes(12), bytes(3 * 64 * 64), b"\xff" * 5000),
    FieldDescriptor.TYPE_BOOL: (False, True),
    FieldDescriptor.TYPE_ENUM: (-1, 0, 1, 2, 99, 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 1, 2, 17, 1000, 2**31, 2**32 - 1),
}
# 24 x 18 pixels, a slope in each colour: Pillow's package for it that the server takes only reads HEIC.
HEIC = base64.b85decode(
    "0000SW^{RQXk}?*00000ZE0pPXk}?*ZE0a<0004eZDn*}000000000XXk=`10000000000aA{+700000000000000000000B57=I"
    "V*mgE07O6l0RRC200001pa1~?00000002V(001LtX>Mi!000000RR916=`l}WdZ;I000310BCk&F#rGn01j|zbZr0t000010002|"
    "X>f9I0002oX>en20001WXm(>m0RwOV0058x000009`FGC{rLC*01pFT0096PKmiN^|NjGU00093kN^M!000939=ZZRVE_RDDMA4O"
    "18@KU0|1Z!00RI30{|YNAb|yz>aLpR;31&EfB*mtfB*mk0EA)y0RRR>0l{;@i2wiq6Ju{|a&BX6cmM$a4FCp!0000KX>)L800000"
    "0000$0000$0000eV{Bn?0000O000010000I00001|NsBk00002|NsBe000020000GaA|mH000000|*ER0000OX>e^}0000000001"
    "009Mo0s{qv0000>ZDe6|0000#C;_h%A!{>0^&y=&ZO|KzB2bD|e3dk6Vn#-WW1#l}XDXI+;)E|MtcGhjb2RY~X(Z`dqux1W;E<f3"
    "^EB)"
)
SIDES = (0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def encoded(picture: Image.Image, format: str, **options: Any) -> bytes:
    # Of copies: Pillow leaves an encoder's settings on what it has saved, for the next encoder to trip over.
    others = [other.copy() for other in options.pop("append_images", ())]
    file = io.BytesIO()
    picture.copy().save(file, format, append_images=others, **options)
    return file.getvalue()


def good_images() -> list[bytes]:
    """Small files of every format, and of most of what each can hold."""
    noise = random.Random(0).randbytes(24 * 18 * 3)
    picture = Image.frombytes("RGB", (24, 18), noise)
    many = {"save_all": True, "append_images": [picture.rotate(90), picture.rotate(180)]}
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    text = PngImagePlugin.PngInfo()
    text.add_text("plain", "text")
    text.add_text("packed", "text" * 50, zip=True)
    text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>", zip=True)
    icc = random.Random(1).randbytes(300)
    alpha = picture.convert("RGBA")
    return [
        *(encoded(picture.convert(mode), "JPEG") for mode in ("RGB", "L", "CMYK")),
        encoded(picture, "JPEG", progressive=True, exif=exif, icc_profile=icc, comment=b"comment"),
        encoded(picture, "MPO", **many),
        *(encoded(picture.convert(mode), "PNG") for mode in ("RGB", "L", "LA", "P", "RGBA", "1", "I;16")),
        encoded(picture, "PNG", pnginfo=text, exif=exif, icc_profile=icc),
        encoded(picture, "PNG", **many),
        encoded(picture, "WEBP", exif=exif, icc_profile=icc, xmp=b"<x:xmpmeta/>"),
        encoded(alpha, "WEBP", lossless=True),
        encoded(picture, "WEBP", **many),
        *(encoded(picture.convert(mode), "BMP") for mode in ("RGB", "P", "L", "1")),
        *(
            encoded(picture, "TIFF", compression=compression, exif=exif)
            for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma")
        ),
        *(
            encoded(picture.convert(mode), "TIFF")
            for mode in ("L", "1", "CMYK", "I;16", "I", "F", "RGBA", "P")
        ),
        encoded(picture.convert("1"), "TIFF", compression="group4"),
        encoded(picture, "TIFF", big_tiff=True),
        encoded(picture, "TIFF", **many),
        encoded(picture, "GIF", comment=b"comment"),
        encoded(picture, "GIF", **many),
        encoded(picture, "AVIF", exif=exif, icc_profile=icc, xmp=b"<x:xmpmeta/>"),
        encoded(alpha, "AVIF", subsampling="4:4:4"),
        encoded(picture, "AVIF", **many),
        *([HEIC] if "HEIF" in FORMATS else ()),
    ]  # fmt: skip


def damaged_images(count: int, seed: int) -> Iterator[bytes]:
    """Good images, cut, flipped, spliced and poisoned."""
    rng = random.Random(seed)
    good = good_images()
    for _ in range(count):
        data = bytearray(rng.choice(good))
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            rng.choice(DAMAGES)(rng, data)
        yield bytes(data)


def _cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 2, 8)) if data else 0):
        data[_near_start(rng, data)] ^= 1 << rng.randrange(8)


def _overwrite(rng: random.Random, data: bytearray) -> None:
    place = _near_start(rng, data)
    noise = rng.randbytes(rng.randrange(1, 16))
    data[place : place + len(noise)] = noise


def _insert(rng: random.Random, data: bytearray) -> None:
    place = _near_start(rng, data)
    data[place:place] = rng.randbytes(rng.randrange(1, 16))


def _remove(rng: random.Random, data: bytearray) -> None:
    place = _near_start(rng, data)
    del data[place : place + rng.randrange(1, 16)]


def _repeat(rng: random.Random, data: bytearray) -> None:
    place = _near_start(rng, data)
    piece = data[place : place + rng.randrange(1, 64)]
    data[place:place] = piece * rng.choice((1, 3, 100))


def _extreme_number(rng: random.Random, data: bytearray) -> None:
    place = _near_start(rng, data)
    data[place : place + 4] = struct.pack(rng.choice((">I", "<I")), rng.choice(SIDES))


DAMAGES: Sequence[Change] = (_cut, _flip, _flip, _overwrite, _insert, _remove, _repeat, _extreme_number)


def _near_start(rng: random.Random, data: bytearray) -> int:
    """A place in the data, more often where headers are, and seldom in the format's signature."""
    start, end = rng.choice(((0, len(data) + 1), (6, 64), (6, 200)))
    return rng.randrange(start, end) % max(1, len(data))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, size: tuple[int, int] = (8, 8)) -> bytes:
    """A grey PNG with some chunks before its pixels."""
    width, height = size
    rows = zlib.compress(bytes(9 * 8))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rest = (png_chunk(b"IDAT", rows), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join((header, *chunks, *rest))


def tiff(changes: dict[int, tuple[int, int, int]], data: bytes) -> bytes:
    """A grey TIFF of 16 x 16 pixels with other tags: type, count, and value or offset. Data is at 256."""
    tags = {256: (4, 1, 16), 257: (4, 1, 16), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)}
    tags |= {273: (4, 1, 256), 278: (4, 1, 16), 279: (4, 1, 256)} | changes
    entries = b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(256, b"\0") + data


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG that goes over its pixels again and again, at a few bytes each time."""
    data = encoded(Image.new("L", (side, side), 7), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * scans + b"\xff\xd9"


def webp_of(width: int, height: int) -> bytes:
    """A lossless WebP that says it has this size."""
    data = bytearray(encoded(Image.new("RGB", (8, 8)), "WEBP", lossless=True))
    place = data.index(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", data, place)
    struct.pack_into("<I", data, place, bits & ~0xFFFFFFF | width - 1 | height - 1 << 14)
    return bytes(data)


def animated_webp_of(width: int, height: int) -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = bytearray(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    place = data.index(b"VP8X") + 12
    data[place : place + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def gif_of(screen: tuple[int, int], frame: tuple[int, int]) -> bytes:
    data = bytearray(encoded(Image.new("L", (8, 8)), "GIF"))
    struct.pack_into("<HH", data, 6, *screen)
    place = data.index(b",", 13 + 3 * (2 << (data[10] & 7)))
    struct.pack_into("<HH", data, place + 5, *frame)
    return bytes(data)


def jpeg_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (8, 8)), "JPEG"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


def bmp_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (8, 8)), "BMP"))
    struct.pack_into("<ii", data, 18, width, height)
    return bytes(data)


def avif_of(said: tuple[int, int], side: int = 8) -> bytes:
    """An AVIF that says it has this size, around a square frame."""
    data = bytearray(encoded(Image.new("RGB", (side, side)), "AVIF", speed=10))
    struct.pack_into(">II", data, data.index(b"ispe") + 8, *said)
    return bytes(data)


def heic_of(width: int, height: int) -> bytes:
    data = bytearray(HEIC)
    place = data.index(b"ispe")
    struct.pack_into(">II", data, place + 8, width, height)
    return bytes(data)


def damage_message(rng: random.Random, message: Message) -> None:
    """Sets one field, at any depth, to what a client would not write."""
    field: FieldDescriptor = rng.choice([*message.DESCRIPTOR.fields_by_name.values()])
    if field.message_type is not None and rng.random() < 0.7:
        if field.is_repeated:
            items = getattr(message, field.name)
            if len(items) and rng.random() < 0.6:
                damage_message(rng, rng.choice(items))
            elif len(items) and rng.random() < 0.5:
                items.extend([items[0]] * rng.choice((1, 30, 1100)))
            else:
                damage_message(rng, items.add())
        else:
            # A message that is set to itself, empty: there, but without anything in it.
            getattr(message, field.name).SetInParent()
            damage_message(rng, getattr(message, field.name))
    elif field.is_repeated and field.message_type is None:
        getattr(message, field.name).extend([_bad_value(rng, field)] * rng.choice((1, 3, 1500)))
    elif field.message_type is None and rng.random() < 0.8:
        setattr(message, field.name, _bad_value(rng, field))
    else:
        message.ClearField(field.name)


def _bad_value(rng: random.Random, field: FieldDescriptor) -> Any:
    return rng.choice(VALUES[field.type])


def wire_garbage(rng: random.Random, data: bytes) -> bytes:
    """Bytes that are no message, or another one: damaged, not UTF-8, nested deeply, of unknown fields."""
    match rng.randrange(6):
        case 0:
            return rng.randbytes(rng.randrange(1, 200))
        case 1:
            return data + b"\x0b" * rng.choice((1, 99, 10_000))  # groups within groups, never closed
        case 2:
            nested = b""
            for _ in range(rng.choice((5, 99, 150))):
                nested = b"\x0a" + _varint(len(nested)) + nested
            return nested
        case 3:
            return data + b"\x1a\x02\xff\xfe" + b"\x2a\x03\xed\xa0\x80"  # fields 3 and 5 as a surrogate
        case 4:
            return data + b"\x0a\xff\xff\xff\xff\x07"  # a field of 2 GiB
        case _:
            changed = bytearray(data[-2000:] if rng.random() < 0.5 else data[:2000])
            rng.choice(DAMAGES)(rng, changed)
            return bytes(changed)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))
