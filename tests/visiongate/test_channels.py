"""Clients in several event loops, processes and threads."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

import visiongate
from client_server import serving
from visiongate import AsyncClient, Client


def test_an_async_client_made_before_any_loop_serves_one_after_another() -> None:
    with serving() as server:
        client = AsyncClient(server.address, timeout=30)

        async def ask() -> int:
            answers = await asyncio.gather(*[client.list_models() for _ in range(5)])
            return len(answers)

        def run() -> None:
            for _ in range(3):
                assert asyncio.run(ask()) == 5
                # The channels of loops that are closed are not kept.
                assert len(client._channels._by_place) == 1
            asyncio.run(client.close())

        # In a thread of its own, since the tests' loop may run in this one.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(run).result()
        assert len(server.requests) == 15


def test_loops_that_run_at_the_same_time_do_not_disturb_each_other() -> None:
    with serving() as server:
        client = AsyncClient(server.address, timeout=30)
        both = threading.Barrier(2)

        async def ask() -> int:
            await client.list_models()
            both.wait()
            return sum([len(await client.list_models()) for _ in range(20)])

        with ThreadPoolExecutor(2) as pool:
            assert [*pool.map(lambda _: asyncio.run(ask()), range(2))] == [20, 20]


async def test_closing_is_idempotent_and_said_plainly() -> None:
    with serving() as server:
        client, asynchronous = Client(server.address), AsyncClient(server.address)
        views = client.with_options(timeout=5), asynchronous.with_options(timeout=5)
        client.list_models()
        await asynchronous.list_models()
        for _ in range(2):
            client.close()
            await asynchronous.close()
        for closed in (client, views[0]):
            with pytest.raises(visiongate.ClientClosedError, match="the client was closed: make a new one"):
                closed.list_models()
        for closed_async in (asynchronous, views[1]):
            with pytest.raises(visiongate.ClientClosedError) as caught:
                await closed_async.list_models()
            assert caught.value.code is grpc.StatusCode.CANCELLED
    # One that never asked anything.
    Client().close()
    await AsyncClient().close()


async def test_closing_ends_calls_under_way() -> None:
    arrived, leave = threading.Event(), threading.Event()

    def wait(context: grpc.ServicerContext) -> None:
        arrived.set()
        leave.wait(30)

    async def until_arrived() -> None:
        await asyncio.to_thread(arrived.wait, 30)
        arrived.clear()

    with serving(wait, wait, wait) as server:
        client, asynchronous = Client(server.address), AsyncClient(server.address)
        call = asyncio.create_task(asyncio.to_thread(client.list_models))
        await until_arrived()
        client.close()
        with pytest.raises(visiongate.ClientClosedError):
            await call
        async_call = asyncio.create_task(asynchronous.list_models())
        await until_arrived()
        await asynchronous.close()
        with pytest.raises(visiongate.ClientClosedError):
            await async_call
        # Who cancels a call gets what asyncio promises.
        other = AsyncClient(server.address)
        cancelled = asyncio.create_task(other.list_models())
        await until_arrived()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await other.close()
        leave.set()


def test_threads_share_a_client_and_none_is_left_behind() -> None:
    with serving() as server:
        before = set(threading.enumerate())
        with Client(server.address, timeout=30) as client, ThreadPoolExecutor(8) as pool:
            answers = [*pool.map(lambda _: client.list_models(), range(40))]
        assert len(answers) == 40
        gc.collect()
        # The server's own threads come and go.
        left = [thread.name for thread in set(threading.enumerate()) - before]
        assert not [name for name in left if not name.startswith("ThreadPoolExecutor")]


# As users have it: a client at the top of a module, asked before and after a fork.
FORKING = """
import asyncio, os, sys
import visiongate

address, kind = sys.argv[1:]
make = visiongate.AsyncClient if "async" in kind else visiongate.Client
client = make(address, timeout=20)

def ask():
    result = client.list_models()
    return len(asyncio.run(result) if asyncio.iscoroutine(result) else result)

def answer():
    try:
        return str(ask())
    except visiongate.VisiongateError as error:
        return f"{type(error).__name__}: {error.message}"

if "unused" not in kind:
    print("parent", answer(), flush=True)
child = os.fork()
if child == 0:
    print("child", answer(), flush=True)
    print("child", answer(), flush=True)
    sys.exit()
os.waitpid(child, 0)
print("parent", answer(), flush=True)
"""


def forked(kind: str, **environment: str) -> list[str]:
    proto = Path(visiongate.__file__).parents[1]
    with serving() as server:
        result = subprocess.run(
            [sys.executable, "-c", FORKING, server.address, kind],
            env=os.environ | {"PYTHONPATH": str(proto)} | environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
    return result.stdout.splitlines()


@pytest.mark.parametrize("environment", [{}, {"GRPC_ENABLE_FORK_SUPPORT": "1"}])
def test_a_client_answers_in_a_forked_child_and_still_in_its_parent(environment: dict[str, str]) -> None:
    assert forked("sync", **environment) == ["parent 1", "child 1", "child 1", "parent 1"]


def test_a_client_that_is_first_used_in_the_child() -> None:
    for kind in ("sync unused", "async unused"):
        assert forked(kind) == ["child 1", "child 1", "parent 1"]
    assert forked("sync unused", GRPC_ENABLE_FORK_SUPPORT="0") == ["child 1", "child 1", "parent 1"]


def test_what_grpc_cannot_do_after_a_fork_is_said_and_does_not_hang() -> None:
    lines = forked("async")
    assert lines[0] == lines[-1] == "parent 1"
    for line in lines[1:3]:
        assert line.startswith(
            "child ForkedClientError: gRPC does not work in this forked process, because an "
        )
    lines = forked("sync", GRPC_ENABLE_FORK_SUPPORT="0")
    assert lines[0] == lines[-1] == "parent 1"
    assert "ForkedClientError: gRPC does not work in this forked process, because GRPC_ENABLE_F" in lines[1]


@pytest.mark.parametrize("count", [1, 3])
def test_connections_are_used_by_turns(count: int) -> None:
    with serving() as server:
        with Client(server.address, channels=count) as client:
            for _ in range(6):
                client.list_models()
            assert len(client._channels._by_place) == count

        async def ask() -> int:
            async with AsyncClient(server.address, channels=count) as client:
                await asyncio.gather(*[client.list_models() for _ in range(6)])
                return len(client._channels._by_place)

        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(asyncio.run, ask()).result() == count
        assert len(server.requests) == 12


@pytest.mark.parametrize("channels", [0, True, 1.5, 1000])
def test_how_many_connections_there_may_be(channels: int) -> None:
    with pytest.raises(ValueError, match="channels is"):
        Client("127.0.0.1:9", channels=channels)
