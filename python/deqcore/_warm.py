# SPDX-License-Identifier: Apache-2.0
"""Warm starts: an explicit handle from one solve to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _core
from ._arrays import Array, describe

__all__ = ["History", "Warm"]


@dataclass(frozen=True, eq=False, repr=False)
class History:
    """What a method remembered of its rows at the end of a solve, as ``Warm.history``.

    Attributes:
        method: the method and its options; only the same one can go on with it.
        memory: int64 ``(rows, words)``, in the core's own layout; a row of zeros holds nothing.

    Example:
        >>> import numpy as np, deqcore
        >>> deqcore.fixed_point(np.cos, np.ones((3, 5)), method="broyden", keep="history").warm.history
        <History of Broyden(history=10, full='restart', growth=1000.0): 3 rows, 808 bytes each>
    """

    method: Any
    memory: Array

    def __repr__(self) -> str:
        """The method and the size."""
        rows, words = self.memory.shape
        return f"<History of {self.method}: {rows} rows, {8 * words} bytes each>"


@dataclass(frozen=True, eq=False, repr=False)
class Warm:
    """Solutions to start from, one per row, matched by position or by ids, and what the method remembered.

    A solve with ``keep="state"`` or ``"history"`` returns one as ``Solution.warm``; a later solve takes it as
    ``warm=``. With ``ids=``, one integer per row, rows are matched by them, whatever batch they come in, and the new
    handle still holds the rows of the old one that were not in this batch. A handle never changes.

    Rows of a :func:`fixed_point` that did not converge are NaN in it, and start cold; :func:`adjoint` and
    :func:`tangent` hand over the best they had. ``Warm(solution.value)`` hands over every row of a solve as it is.

    Attributes:
        value: the solutions, ``(rows, ...)``.
        ids: int64 ``(rows,)``, sorted, or None: by position.
        history: a :class:`deqcore.History`, or None: the solutions alone.

    Example:
        A step of training changes the gradient by a thousandth: the warm solve spends a product on measuring where it
        starts, and still takes fewer.

        >>> import numpy as np, deqcore
        >>> rates = np.linspace(-0.9, 0.9, 50)
        >>> solve = lambda g, **options: deqcore.adjoint(lambda z, v: rates * v, np.zeros(50), g, rtol=1e-6, **options)
        >>> g = np.cos(np.arange(50))
        >>> first = solve(g, keep="state")
        >>> solve(1.001 * g).nfe > 25, solve(1.001 * g, warm=first.warm).nfe < 20
        (True, True)
    """

    value: Array
    ids: np.ndarray | None = None
    history: History | None = None

    def __repr__(self) -> str:
        """What it holds."""
        matched = "by position" if self.ids is None else "by ids"
        history = "" if self.history is None else f", history of {self.history.method}"
        return f"<Warm value: {describe(self.value)}, matched {matched}{history}>"


def check_ids(ids: Any, rows: int, what: str = "ids") -> np.ndarray | None:
    """One integer per row, no two the same."""
    if ids is None:
        return None
    given = np.asarray(ids)
    if given.dtype.kind not in "iu":
        raise TypeError(f"{what}: {describe(ids)} given; expected an array of integers")
    if given.shape != (rows,):
        raise ValueError(f"{what}: {describe(given)} given; expected shape ({rows},), one per row")
    keys: np.ndarray = given.astype(np.int64)
    if len(np.unique(keys)) != rows:
        raise ValueError(f"{what}: {rows - len(np.unique(keys))} repeated; expected a different one for each row")
    return keys


def check_keep(keep: Any, history: bool = False) -> str | None:
    """What the solution's handle is to hold; ``history``: whether it can be that, too."""
    if keep is None or (isinstance(keep, str) and keep in ("state", "history")[: 1 + history]):
        return None if keep is None else str(keep)
    raise ValueError(f"keep: {keep!r} given; expected None{', ' if history else ' or '}'state'{_OR_HISTORY[history]}")


_OR_HISTORY = {False: "", True: " or 'history'"}


def check_warm(warm: Any, ids: np.ndarray | None, state: Any, what: str = "warm", like: str = "z") -> None:
    """A handle that fits this batch: same library, dtype, shape of a row, and matched the same way."""
    if warm is None:
        return
    if not isinstance(warm, Warm):
        raise TypeError(f"{what}: {describe(warm)} given; expected the .warm of a solution, or None")
    if (warm.ids is None) != (ids is None):
        has, has_not = ("the handle", "this solve") if ids is None else ("this solve", "the handle")
        raise ValueError(f"{what}: {has} has ids and {has_not} has none; expected both or neither")
    if type(warm.value) is not state.door.array_type:
        raise TypeError(
            f"{what}: a handle on {describe(warm.value)} given; expected a {state.door.name} array, like {like}"
        )
    row = state.shape if len(state.shape) == 1 else state.shape[1:]
    held = state.door.inward(warm.value)  # with NumPy's dtypes, whatever the library's own are
    fits = held.shape == state.shape if ids is None else held.shape[1:] == row
    if held.dtype != state.dtype or not fits:
        expected = f"shape {state.shape}, or ids," if ids is None else f"rows of shape {row}"
        raise ValueError(
            f"{what}: a handle on {describe(warm.value)} given; expected {expected} and dtype {state.dtype}, like "
            f"{like}"
        )
    check_ids(warm.ids, held.shape[0], f"{what}.ids")


def check_history(warm: Warm | None, method: Any) -> None:
    """A handle whose history, if it has one, ``method`` can go on with."""
    if warm is None or warm.history is None or warm.history.method == method:
        return
    kept = warm.history.method
    differs = [
        f"{option} {getattr(kept, option)!r} and {getattr(method, option)!r}"
        for option in getattr(kept, "__dataclass_fields__", ())
        if type(kept) is type(method) and getattr(kept, option) != getattr(method, option)
    ]
    raise ValueError(
        f"warm: a handle with the history of {kept!r} given to a solve by {method!r}; expected the same method and "
        f"options{': they differ in ' + ', '.join(differs) if differs else ''}. Warm(handle.value, handle.ids) hands "
        f"over the points alone"
    )


def starting_points(warm: Warm | None, ids: np.ndarray | None, state: Any, otherwise: Any = None) -> Any:
    """The starting block from a handle; None where it knows no row.

    Rows that it does not know, or that are not finite, start from ``otherwise``: a block, or None for zero.
    """
    if warm is None:
        return None
    xp = state.door.xp
    place, found = (None, None) if ids is None else _places(warm, ids)
    if found is not None and not found.any():
        return None
    start = state.door.inward(warm.value).reshape(-1, state.width)
    if place is not None:
        start = start[xp.asarray(place)]
    known = xp.isfinite(start).all(axis=1)
    if found is not None:
        known = known & xp.asarray(found)
    return xp.where(known[:, None], start, start.dtype.type(0) if otherwise is None else otherwise)


def history_words(width: int, dtype: Any, method: Any) -> int:
    """Words of 8 bytes that a handle holds of a row's history; 0 where the method remembers nothing."""
    if not hasattr(method, "history"):
        return 0
    kind = _core.FixedPoint32 if dtype == np.float32 else _core.FixedPoint64
    return int(kind.history_words(width, method._native()))


def check_remembers(method: Any, width: int, dtype: Any) -> int:
    """The words of a row's history, of a method that has one."""
    words = history_words(width, dtype, method)
    if words == 0:
        raise ValueError(f"keep: 'history' given with {method!r}, which remembers nothing; expected 'state'")
    return words


def history_places(warm: Warm, ids: np.ndarray | None, state: Any, words: int) -> tuple[Any, Any]:
    """A handle's memory, and where in it each row of the batch stands: int32, -1 where it is not known."""
    assert warm.history is not None
    door = state.door
    if ids is None:
        at = np.arange(state.rows)
    else:
        place, found = _places(warm, ids)
        at = np.where(found, place, -1)
    memory = door.inward(warm.history.memory)
    expected = (state.rows if ids is None else warm.value.shape[0], words)
    if memory.shape != expected or memory.dtype != np.int64:
        raise ValueError(f"warm.history: {describe(memory)} given; expected shape {expected} and dtype int64")
    return door.contiguous(memory), door.xp.asarray(at.astype(np.int32))


def kept(
    value: Any,
    warm: Warm | None,
    ids: np.ndarray | None,
    state: Any,
    status: Any = None,
    history: History | None = None,
) -> Warm:
    """The handle of a solve that has ended with ``value``; rows of an older one stay in it.

    With ``status``, rows that have not converged are NaN.
    """
    door, xp = state.door, state.door.xp
    if status is None:
        rows = value.copy()
    else:
        known = (status == 0).reshape(-1, *[1] * (value.ndim - 1))
        rows = xp.where(known, value, value.dtype.type(np.nan))
    memory = None if history is None else history.memory

    def handle(rows: Any, keys: np.ndarray | None, memory: Any) -> Warm:
        learnt = None if history is None else History(history.method, door.outward(memory))
        return Warm(door.outward(rows), keys, learnt)

    if ids is None:
        return handle(rows, None, memory)
    keys, rows = ids, rows[None] if rows.ndim == 1 else rows
    if warm is not None and warm.ids is not None:
        others = ~np.isin(warm.ids, ids)
        keys = np.concatenate([keys, np.asarray(warm.ids)[others]])
        at = xp.asarray(np.flatnonzero(others))
        rows = xp.concatenate([rows, door.inward(warm.value)[at]])
        if memory is not None and warm.history is not None:
            memory = xp.concatenate([memory, door.inward(warm.history.memory)[at]])
        elif memory is not None:  # a row of zeros holds nothing
            memory = xp.concatenate([memory, xp.zeros((len(at), memory.shape[1]), np.int64)])
    order = np.argsort(keys)
    at = xp.asarray(order)
    return handle(rows[at], keys[order], None if memory is None else memory[at])


def _places(warm: Warm, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each id stands in the handle, and whether it does."""
    assert warm.ids is not None
    order = np.argsort(warm.ids)
    if not len(order):
        return np.zeros(len(ids), np.int64), np.zeros(len(ids), bool)
    at = np.minimum(np.searchsorted(warm.ids, ids, sorter=order), len(order) - 1)
    place = order[at]
    return place, np.asarray(warm.ids)[place] == ids
