"""The little Markdown that comments use, as HTML: paragraphs, lists, drawings, code and bold words."""

import re
import textwrap
from html import escape

_INDENT = " " * 4


def prose(text: str) -> str:
    """Return paragraphs as HTML. Those that are indented stay as they are; lines after `- ` are a list."""
    blocks: list[str] = []
    for block in text.split("\n\n"):
        if blocks and blocks[-1].startswith(_INDENT) and block.startswith(_INDENT):
            blocks[-1] += f"\n\n{block}"
        else:
            blocks.append(block)
    return "\n".join(_block(block) for block in blocks if block)


def inline(text: str) -> str:
    """Return a text as HTML, with the code and the bold words that it marks."""
    html = escape(text)
    html = re.sub(r"`([^`]+)`", r"<code>\1</code>", html)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", html)


def _block(block: str) -> str:
    if block.startswith(_INDENT):
        return f"<pre>{escape(textwrap.dedent(block))}</pre>"
    if block.startswith("- "):
        items = "".join(f"<li>{inline(line.removeprefix('- '))}</li>\n" for line in block.splitlines())
        return f"<ul>\n{items}</ul>"
    return f"<p>{inline(block)}</p>"
