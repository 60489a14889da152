"""Control groups of Linux, by which containers are limited: versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
"""Where the file system begins; tests have one elsewhere."""


def folders(controller: str, root: Path = ROOT) -> Iterator[tuple[int, Path]]:
    """The version and the folder of each group that limits this process, the innermost first.

    Parameters
    ----------
    controller : str
        Such as ``cpu`` or ``memory``.
    root : Path
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:  # "0::/path" for version 2, "4:cpu,cpuacct:/path" for version 1
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from ((2, group) for group in _with_parents(root / "sys/fs/cgroup", path))
        elif controller in controllers.split(","):
            for mount in dict.fromkeys((controller, controllers)):
                yield from ((1, group) for group in _with_parents(root / "sys/fs/cgroup" / mount, path))


def memory_left(root: Path = ROOT) -> int | None:
    """Bytes that the process's control group and those above it still grant; None without a limit.

    What the system keeps of files counts as left, as it is given up when memory is asked for.
    """
    found = (_memory_left(version, group) for version, group in folders("memory", root))
    return min((left for left in found if left is not None), default=None)


def _memory_left(version: int, group: Path) -> int | None:
    limit, usage, cache = (
        ("memory.max", "memory.current", "inactive_file")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    try:
        most = (group / limit).read_text().strip()
        if most == "max" or int(most) >= 2**62:  # version 1 has no word for it
            return None
        used = int((group / usage).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(most) - used + int(stat.get(cache, 0))
    except (OSError, ValueError):
        return None


def _with_parents(mount: Path, path: str) -> list[Path]:
    """The group's folder and all above it; in a container the mount itself may be the group."""
    group = PurePosixPath(path.lstrip("/"))
    return [mount / group, *(mount / parent for parent in group.parents)]
