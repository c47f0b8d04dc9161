"""Counts the cores that this process may use."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cpu_limit(cgroup: Path = CGROUP) -> int:
    """Whole cores that this process may use: its affinity, limited by its cgroup's quota.

    Reads `cpu.max` (version 2) or `cpu/cpu.cfs_quota_us` (version 1) below `cgroup`.
    """
    cores = len(os.sched_getaffinity(0))
    quota, period = _quota(cgroup)
    return cores if quota <= 0 else max(1, min(cores, quota // period))


def _quota(cgroup: Path) -> tuple[int, int]:
    """Quota of CPU time and its period, in microseconds; (-1, 1) if there is no limit."""
    try:
        if (cgroup / "cpu.max").is_file():
            quota, period = (cgroup / "cpu.max").read_text().split()
            return (-1, 1) if quota == "max" else (int(quota), int(period))
        old = cgroup / "cpu"
        return (
            int((old / "cpu.cfs_quota_us").read_text()),
            int((old / "cpu.cfs_period_us").read_text()),
        )
    except OSError:
        return -1, 1
