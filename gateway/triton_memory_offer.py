"""What a Triton server and this gateway agreed on about shared memory."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from gateway.triton_shared_memory import FOLDER, SharedTensors, is_left


class MemoryOffer:
    """The shared memory that a server may read. `ask` sends one of Triton's questions, by its name.

    refusal: why the server does not read it, if it was asked.
    """

    def __init__(
        self, server: str, shared: SharedTensors | None, ask: Callable[[str, Any], Awaitable[Any]]
    ) -> None:
        self._server, self._shared, self._ask = server, shared, ask
        self.refusal = ""

    @property
    def is_taken(self) -> bool:
        return self._shared is not None and self._server in self._shared.readers

    def place(self, tensor: NDArray[Any]) -> tuple[str, int] | None:
        """Return the region's name and the offset of a tensor that the server reads there."""
        if self._shared is None or not self.is_taken:
            return None
        offset = self._shared.offset(tensor)
        return None if offset is None else (self._shared.name, offset)

    def is_forgotten(self, error: InferenceServerException) -> bool:
        """Return whether the server says that it does not know the memory: it has started anew."""
        return self._shared is not None and self.is_taken and self._shared.name in str(error.message())

    def lose(self) -> None:
        """Note that the server must be asked again."""
        self.refusal = ""
        if self._shared is not None:
            self._shared.readers.discard(self._server)

    async def make(self) -> None:
        """Ask the server to read it, unless it does or has refused."""
        shared = self._shared
        if shared is None or self.is_taken or self.refusal:
            return
        try:
            await self._ask(
                "SystemSharedMemoryRegister",
                service_pb2.SystemSharedMemoryRegisterRequest(
                    name=shared.name, key=f"/{shared.name}", byte_size=shared.size
                ),
            )
        except InferenceServerException as error:
            if "DEADLINE_EXCEEDED" in str(error.status()):
                return  # the next look asks again
            # What it knows already is this gateway's: nobody else has the name.
            if "already" not in str(error.message()):
                self.refusal = (
                    f"it does not read shared memory ({error.message()}): the gateway and it must have one "
                    f"{FOLDER}, and since release 26.04 it needs the argument --allow-client-shm=true"
                )
                return
        shared.readers.add(self._server)
        # What gateways left that were killed: Triton would hold their memory until its end.
        with contextlib.suppress(InferenceServerException):
            status = await self._ask(
                "SystemSharedMemoryStatus", service_pb2.SystemSharedMemoryStatusRequest()
            )
            for name in filter(is_left, status.regions):
                await self._forget(name)

    async def withdraw(self) -> None:
        """Have the server forget it, at the end. One that cannot yet is told so by the next gateway."""
        if self._shared is not None and self.is_taken:
            with contextlib.suppress(InferenceServerException):
                await self._forget(self._shared.name)
            self.lose()

    async def _forget(self, name: str) -> None:
        await self._ask(
            "SystemSharedMemoryUnregister", service_pb2.SystemSharedMemoryUnregisterRequest(name=name)
        )
