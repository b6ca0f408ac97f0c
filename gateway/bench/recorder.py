"""What a gateway asks Triton: a way through to Triton that keeps the requests which pass."""

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc

from gateway.bench.load import Wave

INFER = "/inference.GRPCInferenceService/ModelInfer"
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
_THREADS = 32


@dataclass(frozen=True, slots=True)
class Passed:
    """A request to a model, and when it came and was answered."""

    content: bytes
    start_s: float
    end_s: float


class Recorder(grpc.GenericRpcHandler):
    """Passes on all unary calls, and keeps those to models."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._passed: list[Passed] = []
        self._lock = threading.Lock()

    def take(self) -> list[Wave]:
        """Return what has passed since the last time: requests that were under way together are together."""
        with self._lock:
            passed, self._passed = self._passed, []
        return waves(passed)

    def service(self, details: Any) -> Any:
        send: Any = self._channel.unary_unary(details.method)

        def pass_on(content: bytes, context: grpc.ServicerContext) -> bytes:
            start = time.monotonic()
            try:
                answer: bytes = send(content)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details() or "")
            if details.method == INFER:
                with self._lock:
                    self._passed.append(Passed(content, start, time.monotonic()))
            return answer

        return grpc.unary_unary_rpc_method_handler(pass_on)


def waves(passed: list[Passed]) -> list[Wave]:
    """Put requests together that came before any of the others was answered."""
    found: list[list[tuple[str, bytes]]] = []
    first_end = 0.0
    for each in sorted(passed, key=lambda request: request.start_s):
        if not found or each.start_s >= first_end:
            found.append([])
            first_end = each.end_s
        found[-1].append((INFER, each.content))
        first_end = min(first_end, each.end_s)
    return [tuple(wave) for wave in found]


@contextlib.contextmanager
def recording(triton_address: str) -> Iterator[tuple[str, Recorder]]:
    """Lend the address of a way to Triton, and what records there."""
    with grpc.insecure_channel(triton_address, _OPTIONS) as channel:
        recorder = Recorder(channel)
        server = grpc.server(ThreadPoolExecutor(_THREADS), [recorder], options=_OPTIONS)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}", recorder
        finally:
            server.stop(0).wait()
