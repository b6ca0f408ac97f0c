"""What every pipeline works with: Triton, the catalog of models, threads, images, settings."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.call import stage
from gateway.catalog import Catalog, Role, Variant
from gateway.errors import NotFiniteError
from gateway.image_ids import ImageIds
from gateway.memory import Memory
from gateway.pipelines.answer_bytes import ListAnswer
from gateway.pipelines.image_loading import ImageLoader
from gateway.pipelines.threads import Threads
from gateway.settings import Settings
from gateway.triton import Triton
from gateway.triton_shared_memory import SharedTensors

# Pillow has 4 bytes for each pixel of RGB, and docTR resizes floats.
RESIZING_BYTES_PER_PIXEL = 6
# The array, the message, and gRPC's copy of it.
SENT_COPIES = 3
# gRPC's parts, these joined, and the message; or the message, an array that was not aligned in it, and a copy
# in shared memory.
RECEIVED_COPIES = 3
# A mask's logits, what they are compared to, the labels of its parts, its columns and run lengths.
MASK_BYTES_PER_PIXEL = 12


class Resources:
    """One instance a process, used from one event loop.

    Cancelling a call is how deadlines, and callers that hang up, reach everything below: the awaited Triton
    request is cancelled with it, and no later stage starts.
    """

    def __init__(
        self,
        triton: Triton,
        catalog: Catalog,
        settings: Settings,
        image_ids: ImageIds,
        shared: SharedTensors | None = None,
    ) -> None:
        self.triton = triton
        self._shared = shared
        self.catalog = catalog
        self.settings = settings
        self.threads = Threads(settings.threads)
        # For work under way: decoding, tensors on their way to Triton and back, masks of full size. It is
        # beside what calls hold, and waited for in order, since a call in the midst cannot be refused.
        self._room = Memory(settings.max_bytes_in_flight // 2)
        self.images = ImageLoader(settings, self.threads, self._room, image_ids)

    def working_room(
        self, *, pixels: int = 0, sent: int = 0, received: int = 0
    ) -> AbstractAsyncContextManager[None]:
        """Wait for the memory of some work, and keep it inside. Must not be entered twice.

        pixels: of the image that is resized. sent, received: bytes of tensors to Triton and back.
        """
        return self._room.reserve(
            RESIZING_BYTES_PER_PIXEL * pixels + SENT_COPIES * sent + RECEIVED_COPIES * received
        )

    def mask_room(self, size: tuple[int, int]) -> AbstractAsyncContextManager[None]:
        """Wait for the memory in which a thread works on a mask of `size` (height, width)."""
        return self._room.reserve(MASK_BYTES_PER_PIXEL * size[0] * size[1])

    async def keep_near_triton(self, tensors: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return tensors that are sent again and again, where possible as Triton reads them without that."""
        return tensors if self._shared is None else await self.threads.run(self._shared.put, tensors)

    def list_answer(self) -> ListAnswer:
        """Return what counts the answer to the current call's list."""
        return ListAnswer(self.settings.max_response_bytes, self.settings.max_mask_pixels)

    def close(self) -> None:
        """Drop the work that has not started."""
        self.threads.close()

    async def infer(
        self,
        variant: Variant[Any],
        role: Role,
        tensors: Mapping[str, NDArray[Any]],
        outputs: Sequence[str] = (),
    ) -> dict[str, NDArray[Any]]:
        """Run one of a variant's models, as the stage "inference". Return its outputs by name.

        `tensors` has the role's inputs, batch dimension included, and may have others. `outputs` are those
        wanted, by default all of the role's. Raises StatusError, as Triton's client does, and NotFiniteError.
        """
        model = variant.triton_models[role.name]
        with stage("inference"):
            answer = await self.triton.infer(
                model, {name: tensors[name] for name in role.inputs}, tuple(outputs or role.outputs)
            )
        if not all(np.isfinite(answer[name]).all() for name in role.finite if name in answer):
            raise NotFiniteError(model)
        return answer
