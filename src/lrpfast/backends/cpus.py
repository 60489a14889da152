"""How many CPUs this process may use."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath


def default_num_threads() -> int:
    """`OMP_NUM_THREADS` if it is a positive number, else the affinity or the cgroup's quota, at least 1."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, cpus if quota is None else min(cpus, int(quota)))


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """CPUs that the process's control group and those above it grant; None without a limit.

    Parameters
    ----------
    root : Path
        Where the file system begins; tests put one elsewhere.
    """
    quotas = []
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:  # "0::/path" for version 2, "4:cpu,cpuacct:/path" for version 1
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            quotas += [_quota_v2(group) for group in _with_parents(root / "sys/fs/cgroup", path)]
        elif "cpu" in controllers.split(","):
            for mount in ("cpu", controllers):
                quotas += [_quota_v1(group) for group in _with_parents(root / "sys/fs/cgroup" / mount, path)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _with_parents(mount: Path, path: str) -> list[Path]:
    """The group's folder and all above it; in a container the mount itself may be the group."""
    group = PurePosixPath(path.lstrip("/"))
    return [mount / group, *(mount / parent for parent in group.parents)]


def _quota_v2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        return quota / int((group / "cpu.cfs_period_us").read_text()) if quota > 0 else None
    except (OSError, ValueError):
        return None
