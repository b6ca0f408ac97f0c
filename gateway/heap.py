"""What the C library keeps of freed memory: given back to the system now and then.

Arrays of images come and go in many threads; glibc would keep what they leave in between for good.
"""

import asyncio
import ctypes

TRIM_EVERY_S = 30.0


async def keep_trimmed() -> None:
    """Until cancelled; at once done where the C library has no `malloc_trim`."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:
        await asyncio.sleep(TRIM_EVERY_S)
        # Not in the event loop: it looks through the whole heap. ctypes lets go of the GIL meanwhile.
        await asyncio.to_thread(trim, 0)
