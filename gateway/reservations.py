"""Bytes that work under way reserves: they count for the current call, or for the item of its list."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from gateway.byte_account import CallBytes
from gateway.holding import holding


class ItemBytes:
    """The bytes of one item of a call's list, which are the call's too."""

    def __init__(self, call: "CallBytes | ItemBytes") -> None:
        self._call = call
        self._size = 0
        self._is_over = False

    async def reserve(self, size: int) -> None:
        """Count more bytes, as soon as there is room for them."""
        if not self._is_over:
            await self._call.reserve(size)
            self._size += size

    def count(self, change: int) -> None:
        """Count more bytes, or fewer. Nothing counts once the item is over, as with calls."""
        if not self._is_over:
            self._call.count(change)
            self._size += change

    def free_bytes(self) -> None:
        """Count none of the item's bytes any more."""
        self.count(-self._size)
        self._is_over = True


current_bytes: ContextVar[CallBytes | ItemBytes | None] = ContextVar("bytes", default=None)
"""The account that this code reserves for. Without a call nothing is counted."""


async def reserve(size: int) -> None:
    """Count more bytes until the current call, or its item, ends, as soon as there is room for them.

    A decoded image may take hundreds of times the bytes of its file. Without a call nothing is counted.
    """
    await reserver()(size)


def reserver() -> Callable[[int], Awaitable[None]]:
    """Return what `reserve` is here: inside `one_item` it counts for what is around that."""
    account = current_bytes.get()
    return _reserve_nothing if account is None else account.reserve


def release(size: int) -> None:
    """Release bytes that were reserved, before the current call, or its item, ends."""
    account = current_bytes.get()
    if account is not None:
        account.count(-size)


@contextmanager
def one_item() -> Iterator[None]:
    """Release what is reserved inside, for one item of a list, once it and its threads are done."""
    account = current_bytes.get()
    if account is None:
        yield
        return
    item = ItemBytes(account)
    token = current_bytes.set(item)
    try:
        with holding(item.free_bytes):
            yield
    finally:
        current_bytes.reset(token)


async def _reserve_nothing(size: int) -> None:
    pass
