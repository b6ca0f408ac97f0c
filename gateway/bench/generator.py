"""The load generator: a program of its own, so that its work is not the server's.

`python -m gateway.bench.generator` reads a line of JSON for each round from standard input:
{"load": PATH, "in_flight": 16, "seconds": 1.5}, and writes one with what the round gave. A closed loop: so
many calls are in flight at any time. A load stays open after its first round, and so do its connections.
{"load": PATH, "once": true} answers with what the first call gave, as hexadecimal digits.
"""

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from gateway.bench.load import Load
from gateway.bench.rounds import Round

MAX_ERRORS = 1000
_CALL_TIMEOUT_S = 120
_HTTP_OK = 200
# Answers may have any length, and requests many images: -1 stands for any number of bytes.
_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]


class Sender(Protocol):
    """Sends the calls of a load."""

    async def send(self, index: int) -> list[bytes]:
        """Send the call of that index, and return its answers' bytes. Raises an error if one failed."""

    async def close(self) -> None: ...


class GrpcSender:
    """Unary calls of bytes on one connection."""

    def __init__(self, load: Load) -> None:
        import grpc  # noqa: PLC0415

        self._calls = load.calls
        self._channel = grpc.aio.insecure_channel(load.address, _CHANNEL_OPTIONS)
        methods = {method for call in load.calls for wave in call for method, _ in wave}
        self._methods: dict[str, Any] = {method: self._channel.unary_unary(method) for method in methods}

    async def send(self, index: int) -> list[bytes]:
        answers: list[bytes] = []
        for wave in self._calls[index % len(self._calls)]:
            if len(wave) == 1:
                method, content = wave[0]
                answers.append(await self._methods[method](content, timeout=_CALL_TIMEOUT_S))
            else:
                answers += await asyncio.gather(
                    *(self._methods[method](content, timeout=_CALL_TIMEOUT_S) for method, content in wave)
                )
        return answers

    async def close(self) -> None:
        await self._channel.close()


class HttpSender:
    """POST on connections that stay open. As little work as can be: httpx would take more than the server."""

    def __init__(self, load: Load) -> None:
        self._calls = load.calls
        self._type = load.options.get("content_type", "application/octet-stream")
        host, _, port = load.address.rpartition(":")
        self._host, self._port = host, int(port)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, index: int) -> list[bytes]:
        answers = []
        for wave in self._calls[index % len(self._calls)]:
            answers += [await self._post(path, content) for path, content in wave]
        return answers

    async def _post(self, path: str, content: bytes) -> bytes:
        reader, writer = await self._connection()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: {self._type}\r\n"
            f"content-length: {len(content)}\r\n\r\n"
        )
        try:
            writer.writelines((head.encode(), content))
            await writer.drain()
            status, headers = _head(await reader.readuntil(b"\r\n\r\n"))
            if headers.get("transfer-encoding") == "chunked":
                answer = b""
                while size := int(await reader.readline(), 16):
                    answer += await reader.readexactly(size)
                    await reader.readline()
                await reader.readline()
            else:
                answer = await reader.readexactly(int(headers["content-length"]))
        except BaseException:
            writer.close()
            raise
        if headers.get("connection") == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        if status != _HTTP_OK:
            raise RuntimeError(f"HTTP status {status}: {answer[:200]!r}")
        return answer

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            # A server closes connections that were idle, between rounds.
            if not reader.at_eof() and reader.exception() is None:
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


def _head(content: bytes) -> tuple[int, dict[str, str]]:
    """Return the status of an answer, and its headers by their names in lower case."""
    first, *lines = content.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split()[1]), {name.lower(): value.strip().lower() for name, _, value in pairs}


class OnnxSender:
    """The models alone: ONNX Runtime in this process, given the tensors of requests to Triton."""

    def __init__(self, load: Load) -> None:
        import onnxruntime  # noqa: PLC0415

        from gateway.bench.tensors import read_request  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = load.options["intra_op_threads"]
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._sessions = {
            name: onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            for name, path in load.options["models"].items()
        }
        self._calls = [
            [[read_request(content) for _, content in wave] for wave in call] for call in load.calls
        ]
        self._threads = ThreadPoolExecutor(load.options["threads"])

    async def send(self, index: int) -> list[bytes]:
        call = self._calls[index % len(self._calls)]
        await asyncio.get_running_loop().run_in_executor(self._threads, self._run, call)
        return []

    def _run(self, call: Iterable[Iterable[Any]]) -> None:
        for wave in call:
            for request in wave:
                self._sessions[request.model].run(list(request.outputs), request.inputs)

    async def close(self) -> None:
        self._threads.shutdown()


SENDERS: dict[str, Callable[[Load], Sender]] = {"grpc": GrpcSender, "http": HttpSender, "onnx": OnnxSender}


async def closed_loop(
    send: Callable[[int], Awaitable[object]], items: int, in_flight: int, seconds: float
) -> Round:
    """Keep so many calls in flight for so long, wait for the last answers, and say what it gave.

    Once each caller has failed, it ends: there is nothing to measure.
    """
    latencies: list[float] = []
    errors: list[str] = []
    indices = count()
    cpu, start = cpu_s(), time.perf_counter()
    last = start

    async def caller() -> None:
        nonlocal last
        while (begin := time.perf_counter()) < start + seconds and len(errors) < MAX_ERRORS:
            try:
                await send(next(indices))
            except Exception as error:
                errors.append(_words(error))
                # Refusals come at once: calls again and again would take the processor from the others.
                await asyncio.sleep(0.01)
            else:
                last = time.perf_counter()
                latencies.append(last - begin)

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return Round.of(latencies, items, last - start, cpu_s() - cpu, errors)


def cpu_s() -> float:
    """Return the CPU seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _words(error: Exception) -> str:
    """Return what an error says: of a failed call its code and message."""
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    if callable(code) and callable(details):
        return f"{getattr(code(), 'name', code())}: {details()}"
    return f"{type(error).__name__}: {error}"


async def serve(senders: dict[str, Callable[[Load], Sender]]) -> None:
    """Do a round for each line of standard input, until it ends."""
    loop = asyncio.get_running_loop()
    opened: dict[str, tuple[Load, Sender]] = {}
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        try:
            path = order["load"]
            if path not in opened:
                load = Load.read(Path(path))
                opened[path] = load, senders[load.kind](load)
            load, sender = opened[path]
            if order.get("once"):
                answer: dict[str, Any] = {"answers": [part.hex() for part in await sender.send(0)]}
            else:
                done = await closed_loop(sender.send, load.items, order["in_flight"], order["seconds"])
                answer = done.as_dict()
        except Exception as error:
            answer = {"failed": _words(error)}
        try:
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            # Who asked is gone.
            os._exit(1)
    for _, sender in opened.values():
        await sender.close()


if __name__ == "__main__":
    asyncio.run(serve(SENDERS))
