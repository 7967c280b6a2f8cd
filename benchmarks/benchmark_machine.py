"""What the numbers of the benchmarks were taken on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

__all__ = ["machine", "processor"]


def machine(*packages: str) -> dict[str, Any]:
    """Processor, cores, threads, and versions of the libraries and of further packages."""
    # Not above: peers' scripts, in environments without this package, want the processor alone.
    import torch

    from graphcl.pipelines.runs import library_versions

    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": library_versions(*packages),
    }


def processor() -> str:
    """Model name of the processor; its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
