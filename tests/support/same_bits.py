# SPDX-License-Identifier: Apache-2.0
"""Comparing solutions to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np

LOOSE = {"max_steps": 60, "on_failure": "return"}  # rows that do not converge must agree too

PER_ROW = ("value", "residual", "scale", "status", "steps", "rejected", "singular")


def same_bits(a: Any, b: Any, rows_of_a: Any = slice(None)) -> None:
    """Everything that is said of each row, and its trace; ``b`` holds the rows ``rows_of_a`` of ``a``."""
    for field in PER_ROW:
        left, right = getattr(a, field)[rows_of_a], getattr(b, field)
        assert left.shape == right.shape
        assert left.tobytes() == right.tobytes(), field
    if a.trace is not None and b.trace is not None:
        left = a.trace[:, rows_of_a]
        steps = min(len(left), len(b.trace))
        assert left[:steps].tobytes() == b.trace[:steps].tobytes(), "trace"
        assert np.isnan(left[steps:]).all()
        assert np.isnan(b.trace[steps:]).all()


def speeds(rng: np.random.Generator, rows: int, width: int, dtype: Any) -> Any:
    """Injections under which rows end after very different numbers of steps."""
    return (rng.standard_normal((rows, width)) * rng.choice([0, 0.1, 1, 30], (rows, 1))).astype(dtype)
