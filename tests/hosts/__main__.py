"""Several hosts under load, and one fault after the other: what does each cost those who call?

    make hosts
    make hosts HOSTS=kill-gateway,cut-triton

Two hosts with a Triton each, two with a gateway each, and one with an edge: network namespaces with addresses
of their own. The real commands run there: `visiongate triton`, `visiongate serve`, Envoy. Callers ask the
edge by gRPC and by JSON, as users do, and without repeating anything ("once"). It needs root. Exits with 1
where a goal is missed; what was seen is in build/hosts/, with the logs of all parts.
"""

import argparse
import asyncio
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

from hosts import network
from hosts.cluster import Cluster, Counted, cluster
from hosts.faults import FAULTS, Fault
from hosts.load import WAYS, Load
from hosts.report import HEADER, Report, grown, imbalance, report, table
from hosts.starts import start
from soak.goals import Goals, finish

FOLDER = Path(__file__).parents[2] / "build" / "hosts"
WARM_UP_S = 5.0
CALM_S = 2.0
"""After each fault, once all is well."""
MAX_IMBALANCE = 0.2
"""How far from the mean the calls of one gateway, or the requests of one Triton, may be, as a share of it."""


async def befall(fault: Fault, made: Cluster, load: Load) -> tuple[Report, Goals]:
    before, begun_s = await made.counted(), time.monotonic()
    await fault.happen(made)
    await made.until_well()
    await load.until_ended(time.monotonic())
    await asyncio.sleep(CALM_S)
    after = await made.counted()
    seen = report(fault.name, begun_s, load.since(begun_s), before, after)
    goals = {f"{fault.name}: no call by {way} fails": way not in seen.failed for way in WAYS}
    if fault.max_s is not None:
        slowest = max(value for way, value in seen.slowest_s.items() if way not in fault.patient)
        but = f", but by {' and '.join(sorted(fault.patient))}" if fault.patient else ""
        goals[f"{fault.name}: no call takes over {fault.max_s:g} s{but}"] = slowest <= fault.max_s
    if fault.name == "balance":
        goals |= balance(made, before, after)
    return seen, goals


def balance(made: Cluster, before: Counted, after: Counted) -> Goals:
    pairs = list(zip(before.gateways, after.gateways, strict=True))
    counts = {
        "gateways": [grown(*pair, "visiongate_calls_total{", 'code="OK"') for pair in pairs],
        "Tritons": [
            sum(grown(*pair, "visiongate_triton_requests_total{", f'"{triton.address}"') for pair in pairs)
            for triton in made.tritons
        ],
    }
    print(f"calls of the gateways, and requests to the Tritons: {counts}", flush=True)
    return {
        f"balance: {kind} have the mean, within {MAX_IMBALANCE:.0%}": imbalance(each) <= MAX_IMBALANCE
        for kind, each in counts.items()
    }


async def watch(faults: list[Fault]) -> Goals:
    reports: list[Report] = []
    goals: dict[str, bool] = {}
    async with cluster(FOLDER) as made:
        begun_s = time.monotonic()
        goals |= await start(made)
        print(f"all are well {time.monotonic() - begun_s:.0f} s after the start of the first", flush=True)
        load = Load(made)
        async with load.running():
            await asyncio.sleep(WARM_UP_S)
            for fault in faults:
                try:
                    seen, reached = await befall(fault, made, load)
                except (TimeoutError, RuntimeError) as error:
                    goals[f"{fault.name}: all are well again ({error!r})"] = False
                    break
                reports.append(seen)
                goals |= reached
                print(table([HEADER, seen.row()]), flush=True)
                for way, said in seen.failed.items():
                    print(f"  {way}: {said}", flush=True)
    print(table([HEADER, *(each.row() for each in reports)]))
    result = {"goals": goals, "faults": [asdict(each) for each in reports]}
    (FOLDER / "result.json").write_text(json.dumps(result, indent=1))
    return goals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = [fault.name for fault in FAULTS]
    parser.add_argument("--only", default="", help=f"some of {', '.join(names)}, with commas between them")
    asked = [name for name in parser.parse_args().only.split(",") if name]
    if unknown := set(asked) - set(names):
        raise SystemExit(f"no fault is called {', '.join(sorted(unknown))}: there are {', '.join(names)}")
    if os.geteuid():
        raise SystemExit("make hosts needs root: it makes network namespaces")
    # Those of the machine are not to be reached from these hosts.
    for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[variable]
    try:
        network.enter()
    except PermissionError as error:
        raise SystemExit(str(error)) from None
    finish(asyncio.run(watch([fault for fault in FAULTS if not asked or fault.name in asked])))


if __name__ == "__main__":
    main()
