"""The parts of a deployment for the simulation, made from costs and demand."""

from collections.abc import Mapping

from deploy.capacity.costs import Costs, Demand, TaskCost, check
from deploy.capacity.simulation import Clock, Group, Machine, Model, Place, Simulation, Step, Workers

GATEWAY, TRITON, CALLER = "gateway", "triton", "caller"
LOOP, THREADS, FRONT = "loop", "threads", "front"
# What the gateway and the callers do when a server dies: DESIGN of the retries, see gateway/README.md.
REPEAT_S, MAX_REPEATS = 0.1, 3


def steps(costs: Costs, task: TaskCost, megapixels: float, caller_ms: float = 0) -> list[Step]:
    """Return a call's way: half of the gateway's work comes before the models, and half after."""
    locked_s = task.locked_s(megapixels)
    free_s = task.loop_ms / 1e3 + task.threads_s(megapixels) - locked_s
    way = [Step(GATEWAY, LOOP, locked_s / 2), Step(GATEWAY, THREADS, free_s)]
    for model, requests in task.requests.items():
        count = max(1, round(requests))
        way.append(Step(TRITON, FRONT, costs.model[model].triton_ms / 1e3, count))
        way.append(Step(TRITON, model, count=count))
    way.append(Step(GATEWAY, LOOP, locked_s / 2))
    if caller_ms:
        way = [Step(CALLER, LOOP, caller_ms / 2e3), *way, Step(CALLER, LOOP, caller_ms / 2e3)]
    return way


def on_many_machines(costs: Costs, demand: Demand, gateways: int, devices: int) -> Simulation:
    """Return the deployment of a plan: each gateway and each GPU on a machine of its own."""
    check(costs, demand)
    clock = Clock()
    groups = {
        GATEWAY: Group(
            [
                _gateway(Machine(clock, demand.gateway_cores), demand.gateway_cores, demand.gateway_processes)
                for _ in range(gateways)
            ]
        ),
        TRITON: Group(
            [
                _triton(costs, demand.device, Machine(clock, 1), Machine(clock, 8), costs_of(costs, demand))
                for _ in range(devices)
            ]
        ),
    }
    return Simulation(groups, clock, repeat_s=REPEAT_S, max_repeats=MAX_REPEATS)


def on_one_machine(costs: Costs, device: str, models: Mapping[str, object], cores: int) -> Simulation:
    """Return callers, one gateway and one Triton that share the cores of one machine, as a laptop's do."""
    clock = Clock()
    machine = Machine(clock, cores)
    groups = {
        CALLER: Group([{LOOP: Workers(machine, 1)}]),
        GATEWAY: Group([_gateway(machine, cores, 1)]),
        TRITON: Group([_triton(costs, device, machine, machine, list(models))]),
    }
    return Simulation(groups, clock, repeat_s=REPEAT_S, max_repeats=MAX_REPEATS)


def costs_of(costs: Costs, demand: Demand) -> list[str]:
    """Return the models that the demand's tasks ask."""
    return sorted({model for name in demand.task for model in costs.task[name].requests})


def _gateway(machine: Machine, threads: int, processes: int) -> dict[str, Place]:
    return {LOOP: Workers(machine, processes), THREADS: Workers(machine, threads)}


def _triton(
    costs: Costs, device: str, machine: Machine, front: Machine, models: list[str]
) -> dict[str, Place]:
    """Return a Triton: its models work on `machine`, a GPU or cores, the rest on `front`."""
    places: dict[str, Place] = {FRONT: Workers(front, 8)}
    for name in models:
        cost = costs.model[name]
        cores = cost.cores if machine is front else 1
        places[name] = Model(machine, cost.batch_s(device), 1, cost.max_batch, cores)
    return places
