# SPDX-License-Identifier: Apache-2.0
"""Ladders: methods tried in order; rows that failed go on under the next from their best points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ._arrays import to_host
from ._dialogue import State, complain
from ._methods import Method, Newton, default_steps, resolve_method
from ._solution import Solution, Status

__all__ = ["climb", "is_ladder", "rungs_of"]

# These rows were not lost by a method: the caller stopped them, or the map cannot be evaluated where they are.
_NOT_RESCUED = (Status.cancelled, Status.map_failed)


def is_ladder(method: Any) -> bool:
    """Whether several methods were given."""
    return isinstance(method, (list, tuple))


def rungs_of(ladder: Any, function: str) -> list[Method]:
    """The methods of a ladder, checked."""
    if not ladder:
        raise ValueError("method: an empty list given; expected at least one method")
    return [resolve_method(rung, function) for rung in ladder]


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
) -> Solution:
    """Solve by ``solve(z0, rows, row_args, method, max_steps, scale)`` rung by rung; -> what the rungs found together.

    ``apart``: whether rows can be solved without the others. If not, all are asked about again, and those that have
    converged start from their solutions. Every rung gets an equal share of the steps that are left, or as many as it
    has by default where no limit is given.
    """
    door = state.door
    total: Solution | None = None
    usual = [default_steps(rung, state.width) for rung in rungs]
    most = sum(usual) if max_steps is None else max_steps
    names = np.empty(state.rows, object)
    going = np.arange(state.rows)
    for i, rung in enumerate(rungs):
        used = 0 if total is None else int(to_host(total.steps)[going].max())
        if not _fits(rung, state.width, usual[i] if max_steps is None else max_steps - used) and len(rungs) > 1:
            continue
        share = usual[i] if max_steps is None else max(1, (max_steps - used) // (len(rungs) - i))
        if total is None:
            total = solve(door.outward(state.block.reshape(state.shape)), None, row_args, rung, share, None)
            names[:] = rung.name
        else:
            if used >= most:
                break
            rows = going if apart else np.arange(state.rows)
            total = _rescue(solve, total, state, rows, going, row_args, rung, share)
            names[going] = rung.name
        status = to_host(total.status)
        going = np.flatnonzero((status < 0) & ~np.isin(status, _NOT_RESCUED))
        if not len(going) or (status == Status.cancelled).any():
            break
    if total is None:
        raise ValueError(f"method: {rungs!r} given; none of them takes rows of width {state.width} in {most} steps")
    total = replace(total, _method=names, tolerances=replace(total.tolerances, max_steps=most))
    total = with_handle(total)
    if on_failure != "return" and bool((to_host(total.status) < 0).any()):
        complain(total, function, on_failure, 5)
    return total


def _fits(rung: Method, width: int, steps: int) -> bool:
    """Whether a rung can take a step at all; one that cannot is passed over."""
    return not isinstance(rung, Newton) or (width <= rung.max_width and width + 2 <= steps)


def _rescue(
    solve: Callable[..., Solution],
    before: Solution,
    state: State,
    rows: np.ndarray,
    going: np.ndarray,
    row_args: tuple[Any, ...],
    rung: Method,
    share: int,
) -> Solution:
    """``before`` with the rows ``going`` solved further; ``rows``: those asked about."""
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
    mine = xp.asarray(np.searchsorted(rows, going))  # of the rows asked about
    to = xp.asarray(going)

    def merged(name: str, add: bool = False) -> Any:
        old, new = door.inward(getattr(before, name)), door.inward(getattr(after, name))
        if one and name == "value":
            return door.outward(new)
        joined = old.copy()
        joined[to] = old[to] + new[mine] if add else new[mine]
        return door.outward(joined)

    trace = None
    if before.trace is not None and after.trace is not None:
        first, second = door.inward(before.trace), door.inward(after.trace)
        longer = xp.full((len(first) + len(second), state.rows), np.nan)
        longer[: len(first)] = first
        longer[len(first) :, to] = second[:, mine]
        trace = door.outward(longer)
    return replace(
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
    )
