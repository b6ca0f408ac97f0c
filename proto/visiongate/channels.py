"""The gRPC channels of a client. A channel belongs to one process, and with asyncio to one event loop."""

import asyncio
import ctypes
import itertools
import os
import weakref
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from visiongate.connection import Connection
from visiongate.errors import ClientClosedError, ForkedClientError

C = TypeVar("C")

_OFF = ("0", "false", "no", "off")


class Channels(Generic[C]):
    """A store of channels, each made when it is first needed. There are `count` in each place, used by turns.

    It has no locks, because a fork may copy a lock while it is held. A forked process keeps the channel of
    its parent, and never touches it: the parent uses it.
    """

    def __init__(self, connection: Connection, count: int = 1) -> None:
        self._connection = connection
        self._turns = itertools.cycle(range(count))
        self._by_place: dict[Any, C] = {}
        self.is_closed = False

    def _get(self, *where: Any) -> C:
        """Return the next of the channels of a place."""
        if self.is_closed:
            raise closed_error()
        place = (*where, next(self._turns))
        channel = self._by_place.get(place)
        # If two threads come at once, one of them makes a channel in vain. It has not connected yet.
        return channel if channel is not None else self._by_place.setdefault(place, self._open())

    def _open(self) -> C:
        raise NotImplementedError


class SyncChannels(Channels[grpc.Channel]):
    """Channels for each process."""

    def get(self) -> grpc.Channel:
        """Return the next channel of this process. Raise ClientClosedError or ForkedClientError."""
        return self._get(os.getpid())

    def close(self) -> None:
        self.is_closed = True
        own = [place for place in list(self._by_place) if place[0] == os.getpid()]
        for channel in [self._by_place.pop(place, None) for place in own]:
            if channel is not None:
                channel.close()

    def _open(self) -> grpc.Channel:
        is_forked = any(process != os.getpid() for process, _ in list(self._by_place))
        if is_forked and os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in _OFF:
            # A call would hang for ever, whatever its timeout is.
            raise _forked_error("GRPC_ENABLE_FORK_SUPPORT is off")
        target, options = self._connection.address.text, self._connection.options
        if self._connection.credentials is None:
            channel = grpc.insecure_channel(target, options)
        else:
            channel = grpc.secure_channel(target, self._connection.credentials, options)
        _sync_channels.add(channel)
        return channel


class AsyncChannels(Channels[grpc.aio.Channel]):
    """Channels for each event loop."""

    def get(self) -> grpc.aio.Channel:
        """Return the next channel of the running loop. Raise ClientClosedError or ForkedClientError."""
        return self._get(os.getpid(), asyncio.get_running_loop())

    async def close(self) -> None:
        self.is_closed = True
        channels, self._by_place = self._by_place, {}
        here = (os.getpid(), asyncio.get_running_loop())
        for (*where, _), channel in channels.items():
            if tuple(where) == here:
                await channel.close()
        # Channels of other loops cannot be awaited here. They close when they are garbage-collected.

    def _open(self) -> grpc.aio.Channel:
        # gRPC has one thread for all asyncio channels of a process. It starts with the first of them and ends
        # with the last. A fork does not copy the thread, and a channel of the child would wait for it for
        # ever.
        if any(process != os.getpid() for process in list(_asyncio_channels.values())):
            raise _forked_error("an AsyncClient was in use before the fork")
        for place in list(self._by_place):
            if place[1].is_closed():
                self._by_place.pop(place, None)
        target, options = self._connection.address.text, self._connection.options
        if self._connection.credentials is None:
            channel = grpc.aio.insecure_channel(target, options=options)
        else:
            channel = grpc.aio.secure_channel(target, self._connection.credentials, options=options)
        _asyncio_channels[id(channel)] = os.getpid()
        weakref.finalize(channel, _asyncio_channels.pop, id(channel), None).atexit = False
        return channel


# The channels of SyncChannels that are alive.
_sync_channels: "weakref.WeakSet[grpc.Channel]" = weakref.WeakSet()


def _keep_inherited_channels() -> None:
    """Never free the channels that a forked process inherits.

    Freeing one closes it, which may wait for threads of gRPC that a fork does not copy. Without this, about
    one in fifty such processes hung at its very end, where Python frees everything.
    """
    for channel in list(_sync_channels):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(channel))


os.register_at_fork(after_in_child=_keep_inherited_channels)

# The process of each asyncio channel that is alive, by the channel's id.
_asyncio_channels: dict[int, int] = {}


def closed_error() -> ClientClosedError:
    return ClientClosedError(grpc.StatusCode.CANCELLED, "the client was closed: make a new one")


def _forked_error(why: str) -> ForkedClientError:
    return ForkedClientError(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"gRPC does not work in this forked process, because {why}: start processes by the methods spawn or "
        "forkserver, or make the first call after the fork",
    )
