"""Answers how many gateways and GPUs a demand takes: `python -m deploy.capacity --help`."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.capacity.costs import CapacityError, Costs, Demand, read, to_toml
from deploy.capacity.model import on_many_machines, on_one_machine, steps
from deploy.capacity.plan import make_plan
from deploy.capacity.simulation import Report

if TYPE_CHECKING:
    from deploy.capacity.measure import Run

HERE = Path(__file__).parent
CHECKED_MEGAPIXELS = 0.5
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Turn measured costs and a demand into machines, a network and a price; and try it in a simulation.",
)
CostsFile = Annotated[Path, typer.Option("--costs", help="TOML file of costs, as `measure` writes it.")]
DemandFile = Annotated[Path, typer.Argument(help="TOML file of what is asked for; see demand.toml here.")]


@app.command()
def plan(demand: DemandFile = HERE / "demand.toml", costs: CostsFile = HERE / "costs.toml") -> None:
    """Say how many machines of each kind the busiest minute takes, and why."""
    asked, known = read(demand, Demand), read(costs, Costs)
    made = make_plan(known, asked)
    print(f"At the peak, {made.images_per_s:,.0f} images a second take:")
    for part in made.parts:
        print(f"  {part.name:32} {part.needed:9.1f} {part.unit:8} {part.why}")
    print(f"With {asked.headroom:.0%} of each planned to be used, and {asked.availability:.3%} available:")
    print(f"  {made.gateways} + {made.spare_gateways} gateways of {asked.gateway_cores} cores")
    print(
        f"  {made.devices} + {made.spare_devices} of {asked.device} ({known.sources.get(asked.device, '')})"
    )
    if made.price_per_h:
        average = made.price_per_million * asked.peak_factor
        print(f"  {made.price_per_h:,.2f} an hour, {average:,.2f} for a million images")


@app.command()
def simulate(
    demand: DemandFile = HERE / "demand.toml",
    costs: CostsFile = HERE / "costs.toml",
    seconds: Annotated[float, typer.Option(min=1, help="Simulated seconds at the peak.")] = 20,
    gateways: Annotated[int | None, typer.Option(min=1, help="Instead of the plan's number.")] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="Instead of the plan's number.")] = None,
    lose_gateways: Annotated[int, typer.Option(min=0, help="So many die halfway, for ten seconds.")] = 0,
    lose_devices: Annotated[int, typer.Option(min=0, help="So many die halfway, for ten seconds.")] = 0,
) -> None:
    """Let images arrive by chance at the peak's rate, and say how long they take."""
    asked, known = read(demand, Demand), read(costs, Costs)
    made = make_plan(known, asked)
    counts = {
        "gateway": gateways or made.gateways + made.spare_gateways,
        "triton": devices or made.devices + made.spare_devices,
    }
    simulation = on_many_machines(known, asked, counts["gateway"], counts["triton"])
    for name, task in asked.task.items():
        way = steps(known, known.task[name], task.megapixels)
        simulation.open_loop(task.images_per_s * asked.peak_factor, way)
    for group, lost in (("gateway", lose_gateways), ("triton", lose_devices)):
        for number in range(min(lost, counts[group])):
            simulation.fail(group, number, 1 + seconds / 2, 10)
    report = simulation.run(seconds, warm_up_s=1)
    print(f"{counts['gateway']} gateways and {counts['triton']} of {asked.device}:")
    print(f"  {report.rate:,.1f} images a second of {made.images_per_s:,.1f} that came")
    quantiles = "  ".join(
        f"p{share * 100:g} {report.quantile(share) * 1e3:.1f} ms" for share in (0.5, 0.95, 0.99)
    )
    print(f"  {quantiles}")
    print(f"  {report.lost} lost, {report.repeated} repeated")


Repository = Annotated[Path, typer.Option(exists=True, file_okay=False, help="Triton's model repository.")]
Photo = Annotated[Path, typer.Option(exists=True, dir_okay=False, help="A photo like those of the callers.")]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="embed, detect, cut_out, read, gaze; all.")]
Seconds = Annotated[float, typer.Option(min=1, help="Of each run; there are several a task.")]


@app.command()
def measure(
    repository: Repository,
    photo: Photo,
    task: Tasks = None,
    megapixels: Annotated[list[float] | None, typer.Option(help="Sizes to measure at; two or more.")] = None,
    callers: Annotated[list[int] | None, typer.Option(help="Calls at a time, one after the other.")] = None,
    seconds: Seconds = 5,
    triton: Annotated[
        str | None, typer.Option(help="host:port of a running Triton, on a GPU for instance.")
    ] = None,
    device: Annotated[str, typer.Option(help="The name that the costs get: cpu, h100.")] = "cpu",
) -> None:
    """Measure costs on this machine, and print them as TOML. Nothing else should run here."""
    from deploy.capacity import measure as measuring  # noqa: PLC0415

    runs: dict[str, list[tuple[float, measuring.Run]]] = {}

    async def all_runs() -> None:
        with measuring.stack(repository, triton) as stack:
            for name in task or list(measuring.TASKS):
                for size in megapixels or [0.5, 3.0]:
                    files = measuring.pictures(photo, size)
                    for count in callers or [1, 4, 16]:
                        done = await measuring.run(stack, measuring.TASKS[name], files, count, seconds)
                        runs.setdefault(name, []).append((size, done))
                        print(
                            f"{name}, {size:g} megapixels, {count} callers: {done.rate:.1f}/s",
                            file=sys.stderr,
                        )

    asyncio.run(all_runs())
    print(to_toml(measuring.costs_of(runs, device, "measured by `python -m deploy.capacity measure`")))


@app.command()
def check(
    repository: Repository,
    photo: Photo,
    task: Tasks = None,
    seconds: Seconds = 5,
    cores: Annotated[int, typer.Option(min=1, help="Of this machine.")] = 2,
) -> None:
    """Compare the simulation with runs on this machine: costs of 1 and 8 callers, then runs of 1 to 16."""
    from deploy.capacity import measure as measuring  # noqa: PLC0415

    async def all_checks() -> None:
        print(
            f"{'task':8} {'callers':>7} {'calls/s':>8} {'simulated':>9} {'ratio':>6} "
            f"{'p50 ms':>8} {'simulated':>9} {'ratio':>6}"
        )
        with measuring.stack(repository, None) as stack:
            files = measuring.pictures(photo, CHECKED_MEGAPIXELS)
            for name in task or list(measuring.TASKS):
                call = measuring.TASKS[name]
                known = [
                    (CHECKED_MEGAPIXELS, await measuring.run(stack, call, files, callers, seconds))
                    for callers in (1, 8)
                ]
                costs = measuring.costs_of({name: known}, "cpu", "this run")
                caller_ms = 1e3 * sum(run.caller_s for _, run in known) / len(known)
                costs = fit(costs, name, known[-1][1], caller_ms, cores)
                for callers in (1, 2, 4, 16):
                    seen = await measuring.run(stack, call, files, callers, seconds)
                    told = simulated(costs, name, callers, caller_ms, cores)
                    print(
                        f"{name:8} {callers:7} {seen.rate:8.1f} {told.rate:9.1f} "
                        f"{told.rate / seen.rate:6.2f} {seen.median_s * 1e3:8.1f} "
                        f"{told.quantile(0.5) * 1e3:9.1f} {told.quantile(0.5) / seen.median_s:6.2f}"
                    )

    asyncio.run(all_checks())


def simulated(costs: Costs, task: str, callers: int, caller_ms: float, cores: int) -> Report:
    """Return what callers on the same machine as everything else get."""
    simulation = on_one_machine(costs, "cpu", costs.model, cores)
    simulation.closed_loop(callers, steps(costs, costs.task[task], CHECKED_MEGAPIXELS, caller_ms))
    return simulation.run(20, warm_up_s=2)


def fit(costs: Costs, task: str, seen: "Run", caller_ms: float, cores: int) -> Costs:
    """Return costs with the share of work under Python's lock that explains the rate of one run.

    Nothing shows that share by itself. The more of it, the lower the rate of several callers.
    """
    low, high = 0.0, 1.0
    while high - low > 0.02:
        share = (low + high) / 2
        tried = with_share(costs, task, share)
        if simulated(tried, task, seen.callers, caller_ms, cores).rate > seen.rate:
            low = share
        else:
            high = share
    return with_share(costs, task, round((low + high) / 2, 2))


def with_share(costs: Costs, task: str, share: float) -> Costs:
    changed = costs.task[task].model_copy(update={"locked_share": share})
    return costs.model_copy(update={"task": {**costs.task, task: changed}})


def main() -> None:
    try:
        app(standalone_mode=True)
    except CapacityError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
