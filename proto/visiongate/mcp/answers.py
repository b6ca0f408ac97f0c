"""Results, as an assistant reads them: data, text and a picture."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterable

from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent

from visiongate.draw import Item
from visiongate.mcp.images import Photo
from visiongate.mcp.results import Result


def content(result: Result, *pictures: ImageContent) -> CallToolResult:
    """Return a result as data, and as text for assistants that read only that; then the pictures."""
    data = result.model_dump(mode="json", exclude_none=True)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    blocks: list[ContentBlock] = [TextContent(text=text), *pictures]
    return CallToolResult(content=blocks, structured_content=data)


async def with_drawing(
    result: Result, photo: Photo | None, items: Callable[[], Iterable[Item]]
) -> CallToolResult:
    """Return a result with a picture of it on the photo. None: without a picture.

    If the photo cannot be drawn on, the result's note says so.
    """
    if photo is None:
        return content(result)
    try:
        # Both take long: the masks of the items are decoded only now.
        picture = await asyncio.to_thread(lambda: photo.drawn(list(items())))
    except ValueError as error:
        note = f"There is no picture: {error}."
        return content(result.model_copy(update={"note": f"{result.note} {note}" if result.note else note}))
    data = base64.b64encode(picture).decode()
    return content(result, ImageContent(data=data, mime_type="image/jpeg"))
