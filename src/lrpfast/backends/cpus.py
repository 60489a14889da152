"""How many CPUs this process may use."""

from __future__ import annotations

import os
from pathlib import Path

from ..cgroups import ROOT, folders


def default_num_threads() -> int:
    """`OMP_NUM_THREADS` if it is a positive number, else the affinity or the cgroup's quota, at least 1."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, cpus if quota is None else min(cpus, int(quota)))


def cgroup_quota(root: Path = ROOT) -> float | None:
    """CPUs that the process's control group and those above it grant; None without a limit.

    Parameters
    ----------
    root : Path
        Where the file system begins.
    """
    quotas = (_quota(version, group) for version, group in folders("cpu", root))
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(version: int, group: Path) -> float | None:
    try:
        if version == 2:
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return None if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError):
        return None
