"""The C library's heap: few arenas, and freed memory that goes back to the operating system.

Arrays of images come and go in many threads. By default, glibc gives groups of threads their own arena. Each
arena grows to its peak and is never returned to the operating system.
"""

import asyncio
import ctypes

TRIM_EVERY_S = 30.0
ARENAS = 2
# From glibc's malloc.h.
_M_ARENA_MAX = -8


def limit_arenas() -> None:
    """Let the threads that start later share a few arenas. Do nothing if the C library has no such option.

    Threads hardly wait for each other there: most code that allocates holds Python's lock anyway.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)


async def keep_trimmed() -> None:
    """Return freed memory to the operating system every 30 seconds until cancelled.

    Returns immediately if the C library has no `malloc_trim`. That looks through one arena after another and
    holds the arena's lock meanwhile: every thread that allocates or frees memory there has to wait, the event
    loop's included.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:
        await asyncio.sleep(TRIM_EVERY_S)
        # In a thread: it looks through the whole heap, and ctypes releases Python's lock meanwhile.
        await asyncio.to_thread(trim, 0)
