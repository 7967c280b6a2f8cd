"""Resident memory of a benchmark's process, as Linux tells it."""

from __future__ import annotations

import ctypes
import gc
import resource
from pathlib import Path

__all__ = ["growth_mib", "limit_memory", "memory_bytes", "reset_peak"]

RESET = Path("/proc/self/clear_refs")


def memory_bytes(name: str) -> int:
    """A line of the process's status: ``VmRSS`` is what is resident, ``VmHWM`` its peak, ``VmSize`` what is mapped.

    Unlike ``ru_maxrss`` the peak does not start from the size of the process that forked this one.
    """
    return 1024 * _kib(Path("/proc/self/status"), name)


def reset_peak(*, trim: bool = True) -> int | None:
    """Forget the peak so far; bytes resident now, or None where the system does not tell.

    With ``trim`` what setting up left to the allocator goes back first: a step that used it would seem to need nothing.
    """
    if not RESET.exists():
        return None
    if trim:
        gc.collect()
        give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if give_back is not None:
            give_back(0)
    RESET.write_text("5")
    return memory_bytes("VmRSS")


def growth_mib(before: int | None) -> float | None:
    """MiB of the peak beyond what `reset_peak` found; None where the system does not tell."""
    return None if before is None else (memory_bytes("VmHWM") - before) / 2**20


def limit_memory(most: int | None = None) -> None:
    """Who asks for more than is free, or ``most`` bytes, gets an error to report instead of ending other processes."""
    info = Path("/proc/meminfo")
    if not info.exists():
        return
    free = 1024 * _kib(info, "MemAvailable")
    wanted = (free if most is None else min(free, most)) + memory_bytes("VmSize")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _kib(file: Path, name: str) -> int:
    lines = file.read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))
