"""The C library's heap: kept small, and what is freed given back to the system.

Arrays of images come and go in many threads. By itself glibc makes a heap of its own for each few of them,
which all grow to the most that was ever in them, and keeps it for good.
"""

import asyncio
import ctypes

TRIM_EVERY_S = 30.0
ARENAS = 2
# Of glibc's malloc.h.
_M_ARENA_MAX = -8


def limit_arenas() -> None:
    """Let threads share a few heaps, those that start later; nothing where the C library has no such option.

    They hardly wait for each other there: most of what allocates holds Python's lock anyway.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)


async def keep_trimmed() -> None:
    """Until cancelled; at once done where the C library has no `malloc_trim`."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:
        await asyncio.sleep(TRIM_EVERY_S)
        # Not in the event loop: it looks through the whole heap. ctypes lets go of the GIL meanwhile.
        await asyncio.to_thread(trim, 0)
