# SPDX-License-Identifier: Apache-2.0
"""The door to NumPy."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from .. import _core
from .checks import check_answer, check_floats  # noqa: F401, check_floats is one of a door's functions

name = "NumPy"
array_type = np.ndarray
xp = np
look_every = 1  # looking costs nothing where the host is the device
empty = np.empty  # memory that nothing has been written to: shape, dtype

_HERE = nullcontext()

_SOLVERS: dict[tuple[str, Any], Any] = {
    ("fixed_point", np.dtype(np.float32)): _core.FixedPoint32,
    ("fixed_point", np.dtype(np.float64)): _core.FixedPoint64,
    ("adjoint", np.dtype(np.float32)): _core.Adjoint32,
    ("adjoint", np.dtype(np.float64)): _core.Adjoint64,
    ("newton", np.dtype(np.float32)): _core.NewtonSolve32,
    ("newton", np.dtype(np.float64)): _core.NewtonSolve64,
    ("ode", np.dtype(np.float32)): _core.OdeSolve32,
    ("ode", np.dtype(np.float64)): _core.OdeSolve64,
    ("continuation", np.dtype(np.float32)): _core.FollowPath32,
    ("continuation", np.dtype(np.float64)): _core.FollowPath64,
    ("linear_solve", np.dtype(np.float32)): _core.LinearSolve32,
    ("linear_solve", np.dtype(np.float64)): _core.LinearSolve64,
}


def on_stream() -> AbstractContextManager[Any]:
    """Where the map's work goes: here, at once."""
    return _HERE


def inward(array: np.ndarray, what: str = "array") -> np.ndarray:
    """The caller's array, as this door's other functions take it."""
    return array


def outward(array: np.ndarray) -> np.ndarray:
    """An array of this door, as the caller and the map get it."""
    return array


def all_outward(arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same for several; None stays None."""
    return arrays


def solver(
    family: str, dtype: Any, rows: int, width: int, shape: tuple[int, ...], options: tuple[Any, ...], threads: int
) -> tuple[Any, np.ndarray]:
    """A solver of a family, and its scratch. ``options``: method, stop rule, and what the family takes besides."""
    kind = _SOLVERS[family, dtype]
    memory = scratch(kind.scratch_bytes(rows, width, *options))
    return kind(rows, width, list(shape), *options, threads, memory), memory


def shine(
    method: Any,
    history: np.ndarray,
    at: np.ndarray,
    fallback: float,
    g: np.ndarray,
    u: np.ndarray,
    fell: np.ndarray,
    threads: int,
) -> None:
    """U = -B' g by the pairs of a handle."""
    apply = _core.shine32 if g.dtype == np.float32 else _core.shine64
    apply(method, history, at, fallback, g, u, fell, threads)


def operand(array: Any) -> Any:
    """What a solver's ``start`` takes for an array."""
    return array


def scales(given: np.ndarray | None) -> np.ndarray | None:
    """The scales where the solver runs."""
    return given


def answers(solver: Any, memory: np.ndarray, shape: tuple[int, ...], dtype: Any) -> Any:
    """The call that hands a map's answer to the solver; it refuses what it cannot use in place."""
    return solver.advance


def native_report(status: np.ndarray, integers: np.ndarray, reals: np.ndarray, trace: np.ndarray | None) -> Any:
    """The report's arrays, as the core takes them: steps, rejected, singular and residual, scale by rows of a block."""
    return _core.Report(status, integers, reals, trace)


def native_ode_report(status: np.ndarray, integers: np.ndarray, reached: np.ndarray) -> Any:
    """The same of an integration: evaluations, accepted and rejected by rows of a block."""
    return _core.OdeReport(status, integers, reached)


def native_path(integers: np.ndarray, lam: np.ndarray, record: tuple[np.ndarray, ...] | None) -> Any:
    """The arrays about paths, as the core takes them; ``record``: numbers, kinds, points and components."""
    return _core.Path(integers, lam, *(record or (None,) * 4))


def scratch(size: int) -> np.ndarray:
    """``size`` bytes at an address that a solver accepts."""
    raw = np.empty(size + _core.alignment, np.uint8)
    start = _core.to_alignment(raw)
    return raw[start : start + size]


def view(memory: np.ndarray, offset: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A read-only array over a piece of scratch, which stays read-only whatever its holder does."""
    return np.frombuffer(memory.data.toreadonly(), dtype, math.prod(shape), offset).reshape(shape)


def read_only(array: np.ndarray) -> np.ndarray:
    """The same array for a map to read."""
    view = array.view()
    view.flags.writeable = False
    return view


def check_finite(array: np.ndarray, what: str) -> None:
    """Refuse NaN and infinity, naming the first one's place."""
    at = _core.first_not_finite(array)
    if at >= 0:
        place = tuple(int(i) for i in np.unravel_index(at, array.shape))
        raise ValueError(f"{what}: {array[place]} at index {place}; expected finite numbers")


def contiguous(array: np.ndarray) -> np.ndarray:
    """The same numbers in row-major order: ``array`` itself if it is so already."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.array(array, order="C", subok=False)


def take(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The named rows, copied."""
    return array.take(rows, axis=0)


def accept(answer: Any, shape: tuple[int, ...], dtype: Any, what: str) -> np.ndarray:
    """A contiguous copy of a map's answer that could not be used in place; an error if it is not an answer at all."""
    ours = isinstance(answer, np.ndarray) and not isinstance(answer, np.ma.MaskedArray)
    check_answer(answer, ours, name, shape, dtype, what)
    return np.array(answer, dtype, order="C", copy=True, subok=False)
