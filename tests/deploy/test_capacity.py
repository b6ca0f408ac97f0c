"""deploy/capacity: queues against their theory, plans against arithmetic, and files with errors."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.capacity.costs import CapacityError, Costs, Demand, check, read, to_toml
from deploy.capacity.model import on_many_machines, steps
from deploy.capacity.plan import best_batch_s, make_plan, spare
from deploy.capacity.simulation import Clock, Group, Machine, Model, Simulation, Step, Workers, batch_seconds

FOLDER = Path(__file__).parents[2] / "deploy" / "capacity"
BATCHES = [(1, 0.010), (4, 0.016), (8, 0.024)]


def test_cores_are_shared_fairly() -> None:
    clock = Clock()
    machine = Machine(clock, 2)
    ends: list[float] = []
    for seconds in (1.0, 1.0, 2.0):
        machine.work(seconds, lambda: ends.append(clock.now))
    clock.run(10)
    # Three on two cores: each has 2/3 of one until the first two are done. The third then has a whole one.
    assert ends == [pytest.approx(1.5), pytest.approx(1.5), pytest.approx(2.5)]
    assert machine.busy_s == pytest.approx(4.0)


def queue(rate: float, seconds: float) -> Simulation:
    clock = Clock()
    groups = {"server": Group([{"room": Workers(Machine(clock, 1), 1)}])}
    simulation = Simulation(groups, clock, repeat_s=0.1, max_repeats=0)
    simulation.open_loop(rate, [Step("server", "room", seconds)])
    return simulation


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_waiting_is_as_queueing_theory_has_it(load: float) -> None:
    """Arrivals by chance, equal work, one server: the mean wait is load x seconds / (2 (1 - load))."""
    report = queue(load / 0.01, 0.01).run(800, warm_up_s=10)
    mean = sum(report.latencies_s) / len(report.latencies_s)
    assert mean == pytest.approx(0.01 + load * 0.01 / (2 * (1 - load)), rel=0.05)
    assert report.rate == pytest.approx(load / 0.01, rel=0.02)


def test_what_comes_faster_than_it_is_done_is_done_at_the_servers_pace() -> None:
    report = queue(150, 0.01).run(50, warm_up_s=5)
    assert report.rate == pytest.approx(100, rel=0.01)
    assert report.quantile(0.5) > 1


@pytest.mark.parametrize(
    ("size", "seconds"), [(1, 0.010), (2, 0.012), (4, 0.016), (6, 0.020), (8, 0.024), (16, 0.048)]
)
def test_a_batch_between_two_sizes_lies_between_their_times(size: int, seconds: float) -> None:
    assert batch_seconds(BATCHES, size) == pytest.approx(seconds)


def test_a_busy_model_takes_the_largest_batches() -> None:
    clock = Clock()
    model = Model(Machine(clock, 1), BATCHES, instances=1, max_batch=8)
    simulation = Simulation({"triton": Group([{"clip": model}])}, clock, repeat_s=0.1, max_repeats=0)
    simulation.closed_loop(64, [Step("triton", "clip")])
    report = simulation.run(10, warm_up_s=1)
    assert report.rate == pytest.approx(8 / 0.024, rel=0.01)
    assert model.items / model.batches == pytest.approx(8, rel=0.02)
    # Little's law: callers = rate x time.
    assert report.rate * sum(report.latencies_s) / len(report.latencies_s) == pytest.approx(64, rel=0.02)


@pytest.mark.parametrize(("servers", "lost"), [(2, False), (1, True)])
def test_another_server_does_what_a_dead_one_had(servers: int, lost: bool) -> None:
    clock = Clock()
    group = Group([{"room": Workers(Machine(clock, 1), 1)} for _ in range(servers)])
    simulation = Simulation({"server": group}, clock, repeat_s=0.1, max_repeats=3)
    simulation.fail("server", 0, at_s=2, repair_s=3)
    simulation.closed_loop(4, [Step("server", "room", 0.01)])
    report = simulation.run(10, warm_up_s=0)
    assert (report.lost > 0) is lost
    assert report.repeated > 0
    # A server that is back works again.
    assert report.rate > (130 if servers == 2 else 65)


COSTS = Costs.model_validate(
    {
        "sources": {"h100": "a test"},
        "task": {
            "embed": {
                "loop_ms": 1,
                "thread_ms": 2,
                "thread_ms_per_megapixel": 4,
                "locked_share": 0.1,
                "request_bytes_per_megapixel": 250_000,
                "answer_bytes": 4_000,
                "requests": {"clip": 1},
            }
        },
        "model": {
            "clip": {
                "batch_ms": {"h100": {1: 2, 8: 8}},
                "max_batch": 8,
                "triton_ms": 0.5,
                "tensor_bytes": 150_000,
            }
        },
    }
)


def demand(**changes: object) -> Demand:
    known = {
        "device": "h100",
        "peak_factor": 2,
        "headroom": 0.5,
        "availability": 0.5,
        "gateway_cores": 4,
        "task": {"embed": {"images_per_s": 500, "megapixels": 2}},
    }
    return Demand.model_validate(known | changes)


def test_a_plan_is_arithmetic() -> None:
    plan = make_plan(COSTS, demand(gateway_price_per_h=0.2, device_price_per_h=3))
    parts = {part.name: part.needed for part in plan.parts}
    assert plan.images_per_s == 1000
    assert parts["gateway event loops"] == pytest.approx(1.0)
    assert parts["gateway threads"] == pytest.approx(10.0)  # 2 + 4 x 2 ms
    assert parts["of both, one at a time"] == pytest.approx(2.0)
    assert plan.gateways == 6  # 11 cores / 4 / 0.5
    assert parts["clip for embed"] == pytest.approx(1.0)  # 1 ms each in batches of 8
    assert plan.devices == 2
    assert parts["callers to gateways"] == pytest.approx(504e6 * 8 / 1e9)
    assert parts["gateways to Tritons"] == pytest.approx(150e6 * 8 / 1e9)
    assert (plan.spare_gateways, plan.spare_devices) == (0, 0)
    assert plan.price_per_h == pytest.approx(6 * 0.2 + 2 * 3)
    assert plan.price_per_million == pytest.approx(7.2 / 3.6)


def test_one_lock_a_gateway_bounds_it_too() -> None:
    slow = COSTS.model_copy(
        update={"task": {"embed": COSTS.task["embed"].model_copy(update={"loop_ms": 8.0})}}
    )
    assert make_plan(slow, demand(gateway_cores=64)).gateways == 18  # 9 cores of what holds a lock, half used
    assert make_plan(slow, demand(gateway_cores=64, gateway_processes=4)).gateways == 5


def test_a_batch_is_no_larger_than_callers_can_wait_for() -> None:
    assert best_batch_s([(1, 0.08), (8, 0.2)], 8) == pytest.approx((0.08 + 0.12 / 7) / 2)
    assert best_batch_s([(1, 5.0)], 8) == 5.0


@pytest.mark.parametrize(
    ("needed", "availability", "down", "extra"),
    [(1, 0.98, 0.01, 0), (1, 0.999, 0.01, 1), (10, 0.9, 0.01, 0), (10, 0.99, 0.01, 1), (10, 0.9999, 0.01, 3)],
)
def test_spare_machines_by_the_binomial(needed: int, availability: float, down: float, extra: int) -> None:
    assert spare(needed, availability, down) == extra


def test_a_plan_holds_in_the_simulation_also_without_one_gateway_and_one_gpu() -> None:
    asked = demand(availability=0.99999)
    plan = make_plan(COSTS, asked)
    simulation = on_many_machines(
        COSTS, asked, plan.gateways + plan.spare_gateways, plan.devices + plan.spare_devices
    )
    simulation.open_loop(plan.images_per_s, steps(COSTS, COSTS.task["embed"], 2))
    simulation.fail("gateway", 0, 3, 2)
    simulation.fail("triton", 0, 3, 2)
    report = simulation.run(8, warm_up_s=1)
    assert report.lost == 0
    assert report.rate == pytest.approx(1000, rel=0.03)
    assert report.quantile(0.99) < 0.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {"embed": {"images_per_s": 0}}}, "task.embed.images_per_s: Input should be greater than 0"),
        ({"peak_factor": 0.5}, "peak_factor: Input should be greater than or equal to 1"),
        ({"headroom": 1}, "headroom: Input should be less than 1"),
        ({"gpus": 3}, "gpus: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_demand_names_its_field(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    file = tmp_path / "demand.toml"
    known = {"device": "h100", "task": {"embed": {"images_per_s": 1}}} | changes
    tasks = known.pop("task")
    lines = [f"{name} = {value!r}".replace("'", '"') for name, value in known.items()]
    assert isinstance(tasks, dict)
    for name, fields in tasks.items():
        lines += [f"[task.{name}]", *(f"{field} = {value}" for field, value in fields.items())]
    file.write_text("\n".join(lines))
    with pytest.raises(CapacityError, match=re.escape(f"{file}: {message}")):
        read(file, Demand)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {"embd": {"images_per_s": 1}}}, "task.embd: has no costs; there are embed"),
        ({"device": "a100"}, "device: 'a100' has no costs of clip; there are h100"),
    ],
)
def test_a_demand_without_costs_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(CapacityError, match=message):
        check(COSTS, demand(**changes))


def test_costs_that_are_written_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "costs.toml"
    file.write_text(to_toml(COSTS))
    assert read(file, Costs) == COSTS


COMMANDS = re.findall(
    r"^    (python -m deploy.capacity .*)$", (FOLDER.parent / "capacity.md").read_text(), re.MULTILINE
)


@pytest.mark.parametrize("command", [line for line in COMMANDS if not re.search(" (measure|check) ", line)])
def test_commands_of_the_document(command: str) -> None:
    done = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]],
        cwd=FOLDER.parents[1],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "images a second" in done.stdout


def test_a_file_that_is_wrong_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "demand.toml"
    file.write_text("device = 5")
    done = subprocess.run(
        [sys.executable, "-m", "deploy.capacity", "plan", file], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == f"{file}: device: Input should be a valid string\n"
