# SPDX-License-Identifier: Apache-2.0
"""Warm starts: an explicit handle from one solve to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._arrays import Array, describe

__all__ = ["Warm"]


@dataclass(frozen=True, eq=False)
class Warm:
    """Solutions to start from, one per row, matched by position or by ids.

    A solve with ``keep="state"`` returns one as ``Solution.warm``; a later solve takes it as ``warm=``. With ``ids=``,
    one integer per row, rows are matched by them, whatever batch they come in, and the new handle still holds the rows
    of the old one that were not in this batch.

    Attributes:
        value: the solutions, ``(rows, ...)``.
        ids: int64 ``(rows,)``, sorted, or None: by position.

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


def check_keep(keep: Any) -> bool:
    """Whether the solution is to carry a handle."""
    if keep is None or (isinstance(keep, str) and keep == "state"):
        return keep is not None
    raise ValueError(f"keep: {keep!r} given; expected None or 'state'")


def check_warm(warm: Any, ids: np.ndarray | None, state: Any) -> None:
    """A handle that fits this batch: same library, dtype, shape of a row, and matched the same way."""
    if warm is None:
        return
    if not isinstance(warm, Warm):
        raise TypeError(f"warm: {describe(warm)} given; expected the .warm of a solution, or None")
    if (warm.ids is None) != (ids is None):
        has, has_not = ("the handle", "this solve") if ids is None else ("this solve", "the handle")
        raise ValueError(f"warm: {has} has ids and {has_not} has none; expected both or neither")
    if type(warm.value) is not state.door.array_type:
        raise TypeError(f"warm: a handle on {describe(warm.value)} given; expected a {state.door.name} array, like z")
    row = state.shape if len(state.shape) == 1 else state.shape[1:]
    fits = warm.value.shape == state.shape if ids is None else warm.value.shape[1:] == row
    if warm.value.dtype != state.dtype or not fits:
        expected = f"shape {state.shape}, or ids," if ids is None else f"rows of shape {row}"
        raise ValueError(
            f"warm: a handle on {describe(warm.value)} given; expected {expected} and dtype {state.dtype}, like z"
        )
    check_ids(warm.ids, len(warm.value), "warm.ids")


def starting_points(warm: Warm | None, ids: np.ndarray | None, state: Any) -> Any:
    """The starting block from a handle; None where it knows no row.

    Rows that it does not know, or that are not finite, start from zero.
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
    return xp.where(known[:, None], start, start.dtype.type(0))


def kept(value: Any, warm: Warm | None, ids: np.ndarray | None, state: Any) -> Warm:
    """The handle of a solve that has ended with ``value``; rows of an older one stay in it."""
    door = state.door
    if ids is None:
        return Warm(door.outward(value.copy()))
    keys, rows = ids, value[None] if value.ndim == 1 else value
    if warm is not None and warm.ids is not None:
        others = ~np.isin(warm.ids, ids)
        keys = np.concatenate([keys, np.asarray(warm.ids)[others]])
        older = door.inward(warm.value)[door.xp.asarray(np.flatnonzero(others))]
        rows = door.xp.concatenate([rows, older])
    order = np.argsort(keys)
    return Warm(door.outward(rows[door.xp.asarray(order)]), keys[order])


def _places(warm: Warm, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each id stands in the handle, and whether it does."""
    assert warm.ids is not None
    order = np.argsort(warm.ids)
    if not len(order):
        return np.zeros(len(ids), np.int64), np.zeros(len(ids), bool)
    at = np.minimum(np.searchsorted(warm.ids, ids, sorter=order), len(order) - 1)
    place = order[at]
    return place, np.asarray(warm.ids)[place] == ids
