"""How often a real Triton has run a model, read when nothing is missing from it.

Triton counts a request a little after it has answered it, on a busy machine much later than the caller
goes on. A test that reads once sees too little now and then.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import tritonclient.grpc

STEADY_S = 0.3
PATIENCE_S = 30


class Counts(NamedTuple):
    """Images or prompts that a model was asked about, and how many times it ran for them."""

    inferences: int
    executions: int


@dataclass(frozen=True)
class InferenceCounts:
    """Reads Triton's statistics of its models."""

    client: Any

    @classmethod
    def at(cls, address: str) -> "InferenceCounts":
        return cls(tritonclient.grpc.InferenceServerClient(address))

    def now(self, model: str) -> Counts:
        """Return what is counted at this moment: requests just answered may be missing."""
        (statistics,) = self.client.get_inference_statistics(model).model_stats
        return Counts(statistics.inference_count, statistics.execution_count)

    def settled(self, model: str, at_least: int = 0) -> Counts:
        """Return the counts when they have reached so many inferences and stand still."""
        deadline = time.monotonic() + PATIENCE_S
        counts, since = self.now(model), time.monotonic()
        while time.monotonic() < deadline:
            if counts.inferences >= at_least and time.monotonic() - since >= STEADY_S:
                break
            time.sleep(0.02)
            if (latest := self.now(model)) != counts:
                counts, since = latest, time.monotonic()
        return counts

    async def settled_soon(self, model: str, at_least: int = 0) -> Counts:
        """Return `settled` without blocking the event loop meanwhile."""
        return await asyncio.to_thread(self.settled, model, at_least)
