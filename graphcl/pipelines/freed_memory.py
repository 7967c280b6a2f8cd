"""Memory that a training step frees stays with the process for the next step."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

# Of glibc's malloc.h. Large blocks are mapped one by one above the first; free memory at the end of the heap above the
# second goes back to the system at once.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = {_MMAP_THRESHOLD: 2**30, _TRIM_THRESHOLD: 2**31 - 1}
_CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
_USUAL = {_MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26}  # where glibc's own adjustment ends


def keep_freed_memory() -> None:
    """Keep what is freed, instead of giving it back to the system and asking for it page by page a moment later.

    A step whose activations come and go by tens of megabytes spends a good part of its time on new, zeroed pages
    otherwise. Only glibc on Linux has this choice; who made it by the environment keeps it.
    """
    library = _library()
    if library is not None:
        for name, value in _KEPT.items():
            library.mallopt(name, value)


def give_back_freed_memory() -> None:
    """Let freed memory go back to the system again, and what was kept at once."""
    library = _library()
    if library is not None:
        for name, value in _USUAL.items():
            library.mallopt(name, value)
        library.malloc_trim(0)


def _library() -> Any | None:
    """The C library, where it has these settings and the environment leaves them open."""
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _CHOSEN):
        return None
    library = ctypes.CDLL(None)
    return library if all(hasattr(library, name) for name in ("mallopt", "malloc_trim")) else None
