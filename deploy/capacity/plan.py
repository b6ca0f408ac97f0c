"""From costs and demand to a number of gateways and GPUs, a network, and a price."""

import math
from dataclasses import dataclass

from deploy.capacity.costs import Costs, Demand, check
from deploy.capacity.simulation import batch_seconds

SECONDS_OF_BATCH = 0.1
"""A batch is planned no larger than what a model finishes in this time: larger ones make callers wait."""


@dataclass(frozen=True, slots=True)
class Part:
    """One row of a plan: how much of something the peak takes, and how much to have."""

    name: str
    needed: float
    unit: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """images_per_s and the rates are of the peak. price_per_h: of all machines, spare ones too."""

    images_per_s: float
    gateways: int
    spare_gateways: int
    devices: int
    spare_devices: int
    parts: list[Part]
    price_per_h: float

    @property
    def price_per_million(self) -> float:
        """What a million images cost at the average rate is this, times the peak factor."""
        return self.price_per_h / (self.images_per_s * 3600) * 1e6


def spare(needed: int, availability: float, down: float) -> int:
    """Return how many machines more than needed there must be.

    down: the share of time in which one machine is away. Machines fail independently: a failure of a whole
    zone is not in this number.
    """
    extra = 0
    while True:
        total = needed + extra
        enough = sum(
            math.comb(total, away) * down**away * (1 - down) ** (total - away) for away in range(extra + 1)
        )
        if enough >= availability:
            return extra
        extra += 1


def best_batch_s(batch_s: list[tuple[int, float]], max_batch: int) -> float:
    """Return the seconds of one request in the largest batch that is done in SECONDS_OF_BATCH."""
    sizes = [
        size for size in range(1, max_batch + 1) if batch_seconds(batch_s, size) <= SECONDS_OF_BATCH
    ] or [1]
    return min(batch_seconds(batch_s, size) / size for size in sizes)


def make_plan(costs: Costs, demand: Demand) -> Plan:
    """Return what the peak of the demand takes. Raises CapacityError for what has no costs."""
    check(costs, demand)
    peak = {name: task.images_per_s * demand.peak_factor for name, task in demand.task.items()}
    loop_s = locked_s = threads_s = device_s = triton_s = outside = inside = 0.0
    parts = []
    for name, rate in peak.items():
        task, megapixels = costs.task[name], demand.task[name].megapixels
        loop_s += rate * task.loop_ms / 1e3
        threads_s += rate * task.threads_s(megapixels)
        locked_s += rate * task.locked_s(megapixels)
        outside += rate * (task.request_bytes_per_megapixel * megapixels + task.answer_bytes)
        for model, requests in task.requests.items():
            cost = costs.model[model]
            busy = rate * requests * best_batch_s(cost.batch_s(demand.device), cost.max_batch)
            device_s += busy
            triton_s += rate * requests * cost.triton_ms / 1e3
            inside += rate * requests * cost.tensor_bytes
            parts.append(Part(f"{model} for {name}", busy, demand.device, f"{requests:g} requests an image"))
    down = demand.mttr_h / (demand.mtbf_h + demand.mttr_h)
    # One process does one thing at a time of what holds Python's lock, however many cores it has.
    by_lock = locked_s / demand.gateway_processes / demand.headroom
    by_cores = (loop_s + threads_s) / demand.gateway_cores / demand.headroom
    # Rounded first: 18.000000000000004 is 18.
    gateways = math.ceil(round(max(by_lock, by_cores), 6))
    devices = math.ceil(round(device_s / demand.headroom, 6))
    spares = (
        spare(gateways, demand.availability, down),
        spare(devices, demand.availability, down),
    )
    price = (gateways + spares[0]) * demand.gateway_price_per_h + (
        devices + spares[1]
    ) * demand.device_price_per_h
    parts += [
        Part("gateway event loops", loop_s, "cores", "gRPC, protobuf, JSON"),
        Part("gateway threads", threads_s, "cores", "decoding, resizing, masks"),
        Part("of both, one at a time", locked_s, "cores", "with Python's lock: at most one of a process"),
        Part("Triton", triton_s, "cores", "beside the models"),
        Part("callers to gateways", outside * 8 / 1e9, "Gbit/s", "files in, answers out"),
        Part(
            "gateways to Tritons",
            inside * 8 / 1e9,
            "Gbit/s",
            "tensors; nothing of it leaves a sidecar's host",
        ),
    ]
    return Plan(sum(peak.values()), gateways, spares[0], devices, spares[1], parts, price)
