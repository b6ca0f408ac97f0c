"""The largest requests that are allowed: for how long does each stop the event loop, and all other calls?

    PYTHONPATH=tests python -m soak.gaps

Prints the longest stop of each of several rounds in milliseconds. Exits with 1 where no round of a request
stays within the goal. It measures the machine, too: let it be quiet.
"""

import argparse
from collections.abc import Callable
from functools import partial

from export.demo.serving import REPOSITORY
from gateway.embedded import EmbeddedTriton
from gateway.settings import Settings
from loop_gaps import HTTP, LARGEST, MULTIPLYING, serving
from soak.goals import finish

GOAL_S = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of each request")
    rounds = parser.parse_args().rounds
    requests = [(method, make.__name__, make().SerializeToString()) for method, make in LARGEST]
    requests += [(method, str(unit), unit * (size // len(unit))) for method, unit, size in MULTIPLYING]
    goals = {}
    with EmbeddedTriton(REPOSITORY) as triton:
        settings = Settings(triton=triton.grpc_address, repository=REPOSITORY, port=0, grace_s=0)
        with serving(settings) as served:
            asks: list[tuple[str, Callable[[], object]]] = [
                (f"{method} {name}", partial(served.answer, method, data)) for method, name, data in requests
            ]
            asks += [
                (f"{path} {make.__name__}", partial(served.http_status, path, make(), content_type))
                for path, content_type, make, _ in HTTP
            ]
            for name, ask in asks:
                served.gap_s()
                gaps = []
                for _ in range(rounds):
                    ask()
                    gaps.append(served.gap_s())
                print(name, *(f"{1e3 * gap:.0f}" for gap in gaps), flush=True)
                goals[f"{name}: at most {1e3 * GOAL_S:.0f} ms"] = min(gaps) <= GOAL_S
    finish(goals)


if __name__ == "__main__":
    main()
