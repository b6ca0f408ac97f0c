"""Keeps some of the process's descriptors free, whoever opens connections.

Where none is left, nobody can connect any more, probes of health included. The guard closes connections
without calls before that. Clients of gRPC connect anew at their next call.
"""

import asyncio
import heapq
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from gateway import metrics
from gateway.callers import network
from gateway.connections import Connection, Connections, max_descriptors

logger = logging.getLogger(__name__)

INTERVAL_S = 0.5
LOG_INTERVAL_S = 60.0


class ConnectionGuard:
    """Watches the connections to some ports of this process.

    max_per_peer: of one address, or of what counts as one caller of IPv6. 0 is no limit. probed: those of the
    ports at which probes ask. Connections to them are closed after all others.
    """

    def __init__(self, ports: Collection[int], max_per_peer: int, probed: Collection[int] = ()) -> None:
        self._connections = Connections(ports)
        self._probed = probed
        self._max_per_peer = max_per_peer
        # Numbers of connections.
        self._seen: set[int] = set()
        self._closed: set[int] = set()
        # By peer: those closed since the last line of the log.
        self._unlogged: Counter[str] = Counter()
        self._logged_at = -LOG_INTERVAL_S

    async def watch(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                # In a thread: a look at thousands of connections takes its time.
                await asyncio.to_thread(self.look)
            except Exception:
                logger.exception("the look at the connections failed")
            await asyncio.sleep(INTERVAL_S)

    def look(self) -> None:
        """Close the connections that are too many."""
        peers: dict[str, list[Connection]] = defaultdict(list)
        found = self._connections.look()
        self._closed &= {connection.number for connection in found}
        for connection in found:
            if connection.number not in self._closed:
                peers[network(connection.address)].append(connection)
        closing = {peer: self._closing_order(connections) for peer, connections in peers.items()}
        if self._max_per_peer:
            for peer, connections in peers.items():
                for _ in range(min(len(connections) - self._max_per_peer, len(closing[peer]))):
                    self._close(peer, closing[peer].pop(), "peer")
        self._free_descriptors(peers, closing)
        self._seen = {connection.number for connection in found}
        metrics.CONNECTIONS.set(len(found) - len(self._closed))
        self._log()

    def _closing_order(self, connections: Sequence[Connection]) -> list[Connection]:
        """Return the connections without calls. The first to close is the last.

        That is the youngest: who came before should not suffer. Those that are there for the first time come
        after them, as a probe opens one and asks at once, and those to the ports of probes come last.
        """
        idle = [connection for connection in connections if not connection.has_calls]
        return sorted(
            idle, key=lambda each: (each.port not in self._probed, each.number in self._seen, each.number)
        )

    def _free_descriptors(
        self, peers: dict[str, list[Connection]], closing: dict[str, list[Connection]]
    ) -> None:
        """Close connections of the peer that has most, and so on, until enough descriptors are free."""
        most = max_descriptors()
        reserve = max(most // 10, min(32, most // 4))
        free = most - self._connections.descriptors + len(self._closed)
        if free >= reserve:
            return
        counts = [(-len(peers[peer]), peer) for peer, connections in closing.items() if connections]
        heapq.heapify(counts)
        # Twice as many, or each look would find too few.
        for _ in range(2 * reserve - free):
            if not counts:
                return
            count, peer = counts[0]
            self._close(peer, closing[peer].pop(), "descriptors")
            if closing[peer]:
                heapq.heapreplace(counts, (count + 1, peer))
            else:
                heapq.heappop(counts)

    def _close(self, peer: str, connection: Connection, reason: str) -> None:
        connection.close()
        self._closed.add(connection.number)
        self._unlogged[peer] += 1
        metrics.CONNECTIONS_CLOSED.labels(reason).inc()

    def _log(self) -> None:
        if self._unlogged and time.monotonic() >= self._logged_at + LOG_INTERVAL_S:
            self._logged_at = time.monotonic()
            worst = ", ".join(f"{count} of {peer}" for peer, count in self._unlogged.most_common(3))
            logger.warning(
                "too many connections without calls: %d of %d descriptors are in use; closed: %s%s",
                *(self._connections.descriptors, max_descriptors(), worst),
                f", and those of {len(self._unlogged) - 3} others" if len(self._unlogged) > 3 else "",
            )
            self._unlogged.clear()
