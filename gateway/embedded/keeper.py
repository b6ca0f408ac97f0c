"""A Triton that is started anew whenever it has died."""

import asyncio
import logging
import time

from gateway.embedded.error import EmbeddedTritonError
from gateway.embedded.runtime import EmbeddedTriton
from visiongate.command_error import CommandError

logger = logging.getLogger(__name__)

# A life that is shorter is a quick death. The pause before the next start doubles with each in a row.
STEADY_S = 60.0
FIRST_PAUSE_S = 0.5
MAX_QUICK_DEATHS = 5


async def keep_running(triton: EmbeddedTriton) -> None:
    """Start Triton anew, on the same ports, each time it has died, until cancelled.

    Raises EmbeddedTritonError, with Triton's last words, after MAX_QUICK_DEATHS in a row. A start that fails
    is one of them. A start under way when this is cancelled leaves no process.
    """
    quick_deaths = 0
    lived_s, reason = await _life(triton)
    while True:
        quick_deaths = quick_deaths + 1 if lived_s < STEADY_S else 0
        if quick_deaths == MAX_QUICK_DEATHS:
            raise EmbeddedTritonError(f"Triton died {quick_deaths} times in a row. {reason}")
        pause_s = FIRST_PAUSE_S * 2 ** max(0, quick_deaths - 1)
        logger.error("%s; it starts anew in %g seconds", " ".join(reason.split()), pause_s)
        await asyncio.sleep(pause_s)
        try:
            await triton.restart()
        except (CommandError, OSError) as error:
            lived_s, reason = 0.0, str(error)
        else:
            logger.warning("Triton runs again")
            lived_s, reason = await _life(triton)


async def _life(triton: EmbeddedTriton) -> tuple[float, str]:
    """Wait for the death of a Triton that has just started. Return the seconds it lived, and how it died."""
    start = time.monotonic()
    reason = await triton.death()
    return time.monotonic() - start, reason
