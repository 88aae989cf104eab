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
        >>> import numpy as np, deqcore
        >>> vjp, z, g = (lambda z, v: 0.9 * np.roll(v, 1)), np.zeros(50), np.ones(50)
        >>> first = deqcore.adjoint(vjp, z, g + np.arange(50), keep="state")
        >>> again = deqcore.adjoint(vjp, z, g + np.arange(50), warm=first.warm)
        >>> first.nfe > 10, again.nfe
        (True, 1)
    """

    value: Array
    ids: np.ndarray | None = None


def check_ids(ids: Any, rows: int) -> np.ndarray | None:
    """One integer per row, no two the same."""
    if ids is None:
        return None
    given = np.asarray(ids)
    if given.dtype.kind not in "iu":
        raise TypeError(f"ids: {describe(ids)} given; expected an array of integers")
    if given.shape != (rows,):
        raise ValueError(f"ids: {describe(given)} given; expected shape ({rows},), one per row")
    keys: np.ndarray = given.astype(np.int64)
    if len(np.unique(keys)) != rows:
        raise ValueError(f"ids: {rows - len(np.unique(keys))} repeated; expected a different one for each row")
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
    if warm.value.dtype != state.dtype or warm.value.shape[1:] != state.shape[1:]:
        raise ValueError(
            f"warm: a handle on {describe(warm.value)} given; expected rows of shape {state.shape[1:]} and dtype "
            f"{state.dtype}"
        )
    if ids is None and warm.value.shape != state.shape:
        raise ValueError(f"warm: a handle on {describe(warm.value)} given; expected shape {state.shape}, or ids")


def starting_points(warm: Warm | None, ids: np.ndarray | None, state: Any) -> Any:
    """The starting block from a handle; None where it knows no row. Rows that it does not know start from zero."""
    if warm is None:
        return None
    if ids is None:
        return state.door.inward(warm.value).reshape(state.block.shape)
    place, known = _places(warm, ids)
    if not known.any():
        return None
    xp = state.door.xp
    rows = state.door.inward(warm.value).reshape(len(warm.value), -1)
    start = rows[xp.asarray(place)]
    start[xp.asarray(~known)] = 0
    return start


def kept(value: Any, warm: Warm | None, ids: np.ndarray | None, state: Any) -> Warm:
    """The handle of a solve that has ended with ``value``; rows of an older one stay in it."""
    door = state.door
    if ids is None:
        return Warm(door.outward(value.copy()))
    order = np.argsort(ids)
    keys, rows = ids[order], value[door.xp.asarray(order)]
    if warm is not None and warm.ids is not None:
        others = ~np.isin(warm.ids, ids)
        keys = np.concatenate([keys, warm.ids[others]])
        older = door.inward(warm.value)[door.xp.asarray(np.flatnonzero(others))]
        rows = door.xp.concatenate([rows, older])
        order = np.argsort(keys)
        keys, rows = keys[order], rows[door.xp.asarray(order)]
    return Warm(door.outward(rows), keys)


def _places(warm: Warm, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each id stands in the handle, and whether it does."""
    assert warm.ids is not None
    place = np.minimum(np.searchsorted(warm.ids, ids), len(warm.ids) - 1)
    return place, warm.ids[place] == ids
