"""How many processors this process may use."""

import os
from math import ceil
from pathlib import Path

# Docker and Kubernetes bound a container's processor time there: "200000 100000" is two processors.
_CGROUP = Path("/sys/fs/cgroup/cpu.max")


def available_cpus(cgroup: Path = _CGROUP) -> int:
    """Return the processors that this process may use: a container's share, not those of its host."""
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = cgroup.read_text().split()
        return max(1, min(count, ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup of version 2, or the quota is "max"
        return count
