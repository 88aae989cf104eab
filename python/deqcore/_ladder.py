# SPDX-License-Identifier: Apache-2.0
"""Ladders: methods tried in order; rows that failed go on under the next from their best points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ._arrays import to_host
from ._dialogue import State, complain
from ._methods import Anderson, Broyden, Method, Newton, NewtonKrylov, default_steps, resolve_method
from ._solution import Solution, Status

__all__ = ["climb", "default_ladder", "first_share", "fitting", "is_ladder", "placed", "rungs_of"]

# These rows were not lost by a method: the caller stopped them, or the map cannot be evaluated where they are.
_NOT_RESCUED = (Status.cancelled, Status.map_failed)
_RESCUE = 1000  # steps of a rung that nobody asked for


def is_ladder(method: Any) -> bool:
    """Whether several methods were given."""
    return isinstance(method, (list, tuple))


def rungs_of(ladder: Any, function: str) -> list[Method]:
    """The methods of a ladder, checked."""
    if not ladder:
        raise ValueError("method: an empty list given; expected at least one method")
    return [resolve_method(rung, function) for rung in ladder]


def default_ladder(function: str) -> list[Method]:
    """What ``method=None`` tries: measured as best on half of a catalogue of problems (benchmarks/README.md)."""
    if function == "root":
        return [Newton(max_width=64), NewtonKrylov(), Newton(descent=False)]
    return [Anderson(), Broyden(), NewtonKrylov(restart=20)]


def first_share(max_steps: int) -> int:
    """Of the default ladder's steps, those of its first method: 200 as ever, or a third of a larger limit."""
    return min(max_steps, max(200, max_steps // 3))


def fitting(rungs: list[Method], width: int) -> list[Method]:
    """Those that can take rows of this width; the others of a ladder are passed over."""
    return [rung for rung in rungs if not isinstance(rung, Newton) or width <= rung.max_width]


def placed(function: Any, rows: np.ndarray, door: Any) -> Callable[..., Any]:
    """A function that is told ``rows``: those of a rung, by their places in the whole batch."""
    ids = door.xp.asarray(rows.astype(np.int32))
    return lambda *data, rows: function(*data, rows=door.outward(ids[door.inward(rows)]))


def climb(
    solve: Callable[..., Solution],
    rungs: list[Method],
    state: State,
    row_args: tuple[Any, ...],
    apart: bool,
    max_steps: int | None,
    on_failure: str,
    function: str,
    with_handle: Callable[[Solution], Solution],
    frames: int,
    before: Solution | None = None,
) -> Solution:
    """Solve by ``solve(z0, rows, row_args, method, max_steps, scale)`` rung by rung; -> what the rungs found together.

    ``apart``: whether rows can be solved without the others. If not, all are asked about again, and those that have
    converged start from their solutions. Every rung has an equal share of the steps, so that a row's share does not
    depend on the others, or as many as it has by default where no limit is given. ``before``: what earlier rungs have
    found. ``frames``: from a warning up to the caller.
    """
    door = state.door
    total = before
    if before is not None or len(rungs) > 1:
        rungs = fitting(rungs, state.width)
    names = np.full(state.rows, "" if before is None else before._method, object)
    going = np.arange(state.rows) if before is None else _unsolved(before)
    tried = [] if before is None else [str(before._method)]
    most = 0 if before is None else before.tolerances.max_steps
    left = None if max_steps is None else max_steps - most
    for i, rung in enumerate(rungs):
        if not len(going):
            break
        if left is None:
            share = default_steps(rung, state.width)
            share = share if before is None else min(share, _RESCUE)
        else:
            share = left * (i + 1) // len(rungs) - left * i // len(rungs)
        if share < 1 or (len(rungs) > 1 and isinstance(rung, Newton) and share < state.width + 2):
            continue
        tried.append(rung.name)
        most += share
        if total is None:
            total = solve(door.outward(state.block.reshape(state.shape)), None, row_args, rung, share, None)
            names[:] = rung.name
        else:
            rows = going if apart else np.arange(state.rows)
            try:
                total, better = _rescue(solve, total, state, rows, going, row_args, rung, share)
            except MemoryError:
                if before is None:
                    raise
                break  # nobody asked for this rung
            names[going[better]] = rung.name
        going = _unsolved(total)
    if total is None:
        raise ValueError(
            f"method: {rungs!r} given; none of them takes rows of width {state.width} in {max_steps} steps"
        )
    total = replace(
        total,
        _method=names,
        _tried=", then ".join(dict.fromkeys(tried)),
        tolerances=replace(total.tolerances, max_steps=max_steps or most),
    )
    total = with_handle(total)
    if on_failure != "return" and bool((to_host(total.status) < 0).any()):
        complain(total, function, on_failure, frames)
    return total


def _unsolved(solution: Solution) -> np.ndarray:
    """The rows that another rung may solve; none where the caller has stopped the solve."""
    status = to_host(solution.status)
    if (status == Status.cancelled).any():
        return np.empty(0, int)
    measured = np.isfinite(to_host(solution.residual))  # elsewhere the map has no value at z0
    return np.flatnonzero((status < 0) & measured & ~np.isin(status, _NOT_RESCUED))


def _rescue(
    solve: Callable[..., Solution],
    before: Solution,
    state: State,
    rows: np.ndarray,
    going: np.ndarray,
    row_args: tuple[Any, ...],
    rung: Method,
    share: int,
) -> tuple[Solution, np.ndarray]:
    """``before`` with the rows ``going`` solved further, where that was better; ``rows``: those asked about.

    -> and which of ``going`` were.
    """
    door, xp = state.door, state.door.xp
    one = len(state.shape) == 1
    whole = len(rows) == state.rows
    at = xp.asarray(rows)
    value = door.inward(before.value)
    own = row_args if whole else tuple(door.outward(door.take(door.inward(data), at)) for data in row_args)
    start = value if one or whole else value[at]
    scales = to_host(before.scale)
    scale = np.where(scales > 0, scales, 1.0)[rows]
    after = solve(door.outward(start), rows, own, rung, share, scale)
    place = np.searchsorted(rows, going)  # of the rows asked about
    better = (to_host(after.status)[place] >= 0) | (to_host(after.residual)[place] < to_host(before.residual)[going])
    better |= np.isnan(to_host(before.residual)[going])
    mine, to = xp.asarray(place), xp.asarray(going)
    mine_better, to_better = xp.asarray(place[better]), xp.asarray(going[better])

    def merged(name: str, add: bool = False) -> Any:
        old, new = door.inward(getattr(before, name)), door.inward(getattr(after, name))
        if one and name == "value":
            return door.outward(new if better[0] else old)
        joined = old.copy()
        if add:
            joined[to] = old[to] + new[mine]
        elif name == "status":  # what the last method says
            joined[to] = new[mine]
        else:
            joined[to_better] = new[mine_better]
        return door.outward(joined)

    trace = None
    if before.trace is not None and after.trace is not None:
        first, second = door.inward(before.trace), door.inward(after.trace)
        taken, more = to_host(before.steps), to_host(after.steps)
        most = int((taken[going] + more[place]).max())
        longer = xp.full((max(len(first), most), state.rows), np.nan)
        longer[: len(first)] = first
        for row, at in zip(going, place, strict=True):  # a row's residuals follow each other
            longer[taken[row] : taken[row] + more[at], row] = second[: more[at], at]
        trace = door.outward(longer)
    joined = replace(
        before,
        value=merged("value"),
        residual=merged("residual"),
        status=merged("status"),
        steps=merged("steps", add=True),
        rejected=merged("rejected", add=True),
        singular=merged("singular", add=True),
        nfe=before.nfe + after.nfe,
        products=before.products + after.products,
        rows_asked=before.rows_asked + after.rows_asked,
        copies=before.copies + after.copies,
        scratch_bytes=max(before.scratch_bytes, after.scratch_bytes),
        trace=trace,
        path=None,  # of one method alone
    )
    return joined, better
