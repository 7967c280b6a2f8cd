"""What a process keeps of the memory that it frees, told by its resident size."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import json
from pathlib import Path
import numpy as np
from graphcl.pipelines.freed_memory import give_back_freed_memory, keep_freed_memory

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024

def freed():
    before = resident()
    block = np.ones(16 * 2**20)  # 128 MiB
    del block
    return resident() - before

usual = freed()
keep_freed_memory()
kept = freed()
give_back_freed_memory()
print(json.dumps({"usual": usual, "kept": kept, "given_back": freed()}))
"""


def measured(**environment: str) -> dict[str, int]:
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    found: dict[str, int] = json.loads(finished.stdout)
    return found


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told")
def test_freed_memory_is_kept_and_given_back() -> None:
    found = measured()
    assert found["usual"] < 20
    assert found["kept"] > 100
    assert found["given_back"] < 20
    assert measured(MALLOC_TRIM_THRESHOLD_=str(2**20))["kept"] < 20
