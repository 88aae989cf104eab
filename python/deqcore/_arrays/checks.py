# SPDX-License-Identifier: Apache-2.0
"""What every door refuses, in the same words."""

from __future__ import annotations

from typing import Any

import numpy as np

from .describe import describe

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def check_floats(array: Any, what: str, dtype: Any = None) -> None:
    """Refuse a dtype other than ``dtype``, or other than the two the core knows."""
    if dtype is None and array.dtype not in _DTYPES:
        raise TypeError(f"{what}: {describe(array)} given; expected dtype float32 or float64")
    if dtype is not None and array.dtype != dtype:
        raise TypeError(f"{what}: {describe(array)} given; expected dtype {dtype}: nothing is converted silently")


def check_answer(answer: Any, ours: bool, library: str, shape: tuple[int, ...], dtype: Any, what: str) -> None:
    """Refuse what is no answer at all; ``ours``: whether it is an array of the door's library."""
    if answer is None:
        raise TypeError(f"{what} returned None; expected an array of shape {shape} and dtype {dtype}")
    if not ours:
        raise TypeError(
            f"{what} returned {describe(answer)}; expected a {library} array of shape {shape}, dtype {dtype}"
        )
    if answer.dtype != dtype:
        raise TypeError(
            f"{what} returned {describe(answer)}; expected dtype {dtype}: nothing is converted silently "
            f"(return answer.astype(z.dtype) if that is what you mean)"
        )
    if answer.shape != shape:
        raise ValueError(f"{what} returned {describe(answer)}; expected shape {shape}, that of its argument")
