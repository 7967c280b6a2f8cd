"""Argument checks shared by the pair kernels: every message names the argument and the value it got."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

FLOAT_TYPES: Final = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INTEGER_TYPES: Final = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
SIMILARITIES: Final = ("dot", "cosine", "sqeuclidean")
MEMORY_BUDGET: Final = 64 * 2**20


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type in which sums are accumulated: float64 for float64 inputs, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_matrix(name: str, value: Tensor) -> None:
    if value.dim() != 2:
        raise ValueError(f"{name} must have shape (rows, features), got shape {tuple(value.shape)}")
    if value.dtype not in FLOAT_TYPES:
        raise TypeError(f"{name} must be a float tensor, got dtype {value.dtype}")


def check_same_space(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    """Both are matrices of one width, one dtype and one device."""
    check_matrix(first_name, first)
    check_matrix(second_name, second)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{first_name} and {second_name} must have the same number of features, "
            f"got {first.shape[1]} and {second.shape[1]}"
        )
    if first.dtype != second.dtype:
        raise TypeError(f"{first_name} and {second_name} must share one dtype, got {first.dtype} and {second.dtype}")
    if first.device != second.device:
        raise ValueError(f"{first_name} is on {first.device} but {second_name} is on {second.device}")


def check_no_nan(name: str, value: Tensor) -> None:
    bad = torch.isnan(value.detach())
    if bool(bad.any()):
        position = torch.nonzero(bad)[0].tolist()
        raise ValueError(f"{name} holds NaN, first at position {position}")


def check_log_weight(name: str, value: Tensor) -> None:
    """Log weights may be -inf, which leaves a pair out; NaN and +inf have no meaning."""
    check_no_nan(name, value)
    high = value.detach() == torch.inf
    if bool(high.any()):
        raise ValueError(f"{name} must be below +inf, got inf at position {torch.nonzero(high)[0].tolist()}")


def check_vector(name: str, value: Tensor, length: int, *, device: torch.device) -> None:
    if value.dim() != 1 or value.shape[0] != length:
        raise ValueError(f"{name} must have shape ({length},), got shape {tuple(value.shape)}")
    if not value.dtype.is_floating_point:
        raise TypeError(f"{name} must be a float tensor, got dtype {value.dtype}")
    if value.device != device:
        raise ValueError(f"{name} is on {value.device}, expected {device}")


def check_indices(name: str, value: Tensor, length: int | None, bound: int | None, *, check: bool) -> None:
    """``value`` is an integer vector; with ``check`` its entries lie in ``0 .. bound - 1``."""
    if value.dim() != 1 or (length is not None and value.shape[0] != length):
        expected = "(entries,)" if length is None else f"({length},)"
        raise ValueError(f"{name} must have shape {expected}, got shape {tuple(value.shape)}")
    if value.dtype not in INTEGER_TYPES:
        raise TypeError(f"{name} must be an integer tensor, got dtype {value.dtype}")
    if check and bound is not None and value.numel() > 0:
        low, high = (int(v) for v in torch.aminmax(value))
        if low < 0 or high >= bound:
            raise IndexError(f"{name} holds {low if low < 0 else high}, outside 0 .. {bound - 1}")


def check_csr(offsets_name: str, offsets: Tensor, columns_name: str, columns: Tensor, rows: int, bound: int) -> None:
    """Offsets start at 0, never fall, end at the number of columns; column ids are in range and sorted within a row."""
    check_indices(offsets_name, offsets, rows + 1, None, check=False)
    check_indices(columns_name, columns, None, bound, check=True)
    if int(offsets[0]) != 0 or int(offsets[-1]) != columns.shape[0]:
        raise ValueError(
            f"{offsets_name} must run from 0 to {columns.shape[0]} (the length of {columns_name}), "
            f"got {int(offsets[0])} to {int(offsets[-1])}"
        )
    falls = torch.nonzero(offsets[1:] < offsets[:-1])
    if falls.numel() > 0:
        row = int(falls[0, 0])
        raise ValueError(f"{offsets_name} must not decrease, got {int(offsets[row])} then {int(offsets[row + 1])}")
    if columns.shape[0] > 1:
        falling = columns[1:] < columns[:-1]
        starts = offsets[1:-1]
        starts = starts[(starts > 0) & (starts < columns.shape[0])]
        falling[starts.long() - 1] = False
        where = torch.nonzero(falling)
        if where.numel() > 0:
            at = int(where[0, 0])
            raise ValueError(
                f"{columns_name} must be sorted within each row, got {int(columns[at])} before {int(columns[at + 1])}"
            )


def check_similarity(value: str) -> None:
    if value not in SIMILARITIES:
        raise ValueError(f"similarity must be one of {', '.join(SIMILARITIES)}, got {value!r}")


def check_positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a finite number above 0, got {value}")


def check_positive_tensor(name: str, value: Tensor) -> None:
    bad = ~((value.detach() > 0) & torch.isfinite(value.detach()))
    if bool(bad.any()):
        what = "above 0" if bool((~(value.detach() > 0)).any()) else "finite"
        raise ValueError(f"{name} must be {what}, got {float(value.detach()[bad].flatten()[0])}")


def check_block_size(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return value
