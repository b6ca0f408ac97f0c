"""One of CLIP's two networks, in front of Triton: it computes each vector once, in batches."""

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gateway.cache import ComputingCache
from gateway.call import stage
from gateway.catalog import Role, Variant
from gateway.concurrency import gather
from gateway.models.clip import ClipSpec
from gateway.pipelines.resources import Resources

# What a kept vector costs in addition to its numbers: its key, the array, the cache's own entries.
OVERHEAD_BYTES = 500
# So much is copied faster than it is handed to a thread.
_SMALL_BYTES = 512 << 10

Vector = NDArray[np.float32]


@dataclass(slots=True)
class _Batch:
    """One request to Triton to be: it takes items until it leaves."""

    name: str
    keys: list[str] = field(default_factory=list)
    has_left: bool = False


class Tower:
    """One of CLIP's two networks: gives each item's vector, computed once and in batches."""

    def __init__(self, resources: Resources, role: Role, cache_name: str, max_cache_bytes: int) -> None:
        self._resources = resources
        self._role = role
        (self._input,), (self._output,) = role.inputs, role.outputs
        self._vectors = ComputingCache[Vector](cache_name, max_cache_bytes, _size_of)
        # Keeps nothing. The items of a batch share its one request through it, whoever waits for which of
        # them: the request goes on as long as anyone waits.
        self._batches = ComputingCache[dict[str, Vector]](None, 0, len)
        self._serial_numbers = itertools.count()

    def get(self, key: str, model: Variant[ClipSpec]) -> Vector | None:
        """Return a vector that is kept. If there is none, the caller asks `embed`."""
        return self._vectors.get(f"{model.fingerprint}/{key}", count_miss=False)

    async def embed(self, items: Mapping[str, NDArray[Any]], model: Variant[ClipSpec]) -> dict[str, Vector]:
        """Return the vector of each item under its key, which tells its content."""
        kept = {key: self.get(key, model) for key in items}
        missing = [key for key, vector in kept.items() if vector is None]
        if not missing:
            return cast(dict[str, Vector], kept)
        size = model.max_batch_sizes[self._role.name]
        slots = asyncio.Semaphore(self._resources.settings.batches_in_flight)
        latest = self._new_batch()

        async def infer(batch: _Batch) -> dict[str, Vector]:
            batch.has_left = True
            rows = [items[key] for key in batch.keys]
            async with slots, self._resources.working_room(sent=len(rows) * rows[0].nbytes):
                stacked = (
                    np.stack(rows)
                    if len(rows) * rows[0].nbytes <= _SMALL_BYTES
                    else await self._resources.threads.run(np.stack, rows)
                )
                tensors = await self._resources.infer(model, self._role, {self._input: stacked})
            # Copies: a row that is kept must not hold on to its whole batch.
            return {key: row.copy() for key, row in zip(batch.keys, tensors[self._output], strict=True)}

        async def compute(key: str) -> Vector:
            # Called only for what is neither kept nor under way elsewhere, for all such items before `infer`.
            nonlocal latest
            if latest.has_left or len(latest.keys) >= size:
                latest = self._new_batch()
            latest.keys.append(key)
            batch = latest
            if len(missing) == 1:
                return (await infer(batch))[key]  # nobody else waits for it
            vectors = await self._batches.get_or_compute(batch.name, lambda: infer(batch))
            return vectors[key]

        with stage("inference"):
            computed = await gather(
                self._vectors.get_or_compute(f"{model.fingerprint}/{key}", partial(compute, key))
                for key in missing
            )
        found = dict(zip(missing, computed, strict=True))
        return {key: found[key] if vector is None else vector for key, vector in kept.items()}

    def _new_batch(self) -> _Batch:
        return _Batch(str(next(self._serial_numbers)))


def _size_of(vector: Vector) -> int:
    return vector.nbytes + OVERHEAD_BYTES
