# SPDX-License-Identifier: Apache-2.0
"""What is told of the paths of a continuation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from ._arrays import Array, describe, to_host
from ._options import flag, integer

__all__ = ["Path", "PathEnd", "PathPoints", "Recording"]

_MOST_ENTRIES = 4096  # per row, where no number is given


class PathEnd(IntEnum):
    """Why a row's path ended.

    Example:
        >>> import deqcore
        >>> deqcore.PathEnd(2).name
        'blow_up'
    """

    converged = 0  #: at a fixed point, or where H(z, 1) = 0 if there is no f
    step_underflow = 1  #: no step is short enough: a fold for the natural tracker, a singular or rough H
    blow_up = 2  #: the path runs to infinity
    out_of_budget = 3  #: ``max_steps`` evaluations and products, or ``Tracker.max_solves`` linear systems
    not_finite = 4  #: f has no value at z0, or next to the path
    not_verified = 5  #: the path reached lam = 1, where the residual of f stays above the threshold
    stopped = 6  #: by the caller


class PathPoints(NamedTuple):
    """One row's evaluations in order, as NumPy arrays with an entry each: see :meth:`Path.points`.

    Example:
        >>> import numpy as np, deqcore
        >>> points = deqcore.follow(np.cos, np.zeros((1, 1)), record=True).path.points(0)
        >>> isinstance(points, deqcore.PathPoints), len(points.lam) == len(points.residual)
        (True, True)
    """

    lam: np.ndarray  #: where H was evaluated
    z: np.ndarray  #: (entries, components)
    step: np.ndarray  #: h of the step that it belongs to
    residual: np.ndarray  #: |H|
    slope: np.ndarray  #: dlam per unit of h, where a tangent was taken; NaN elsewhere
    stage: np.ndarray  #: 0 at lam = 0, 1 on the path, 2 at lam = 1
    corrections: np.ndarray  #: Newton's steps since the prediction; 0 is the prediction itself
    accepted: np.ndarray  #: a point of the path
    rejected: np.ndarray  #: the step was given up here


@dataclass(frozen=True, eq=False, repr=False)
class Path:
    """How the paths of a solve went: an entry per row. The arrays lie where the solve ran.

    Attributes:
        end: int32, the code of each row; see :class:`PathEnd`.
        folds: int32, how often the path turned back in lam.
        solves: int32, linear systems: what the work is measured in.
        accepted: int32, points of the path after the first.
        lam: float64, how far the row has come: lam of its last point, 1 where it has converged.
        verified: bool, the residual of f at the point that is returned is within the tolerance; False where f is None,
            as H alone then says what is a solution.
        entries: int32, how many evaluations were recorded, or would have been had there been room; None where nothing
            was recorded.

    Example:
        >>> import numpy as np, deqcore
        >>> path = deqcore.follow(lambda z: np.tanh(-4.0 * z + 1.0), np.zeros((1, 1)), record=True).path
        >>> deqcore.PathEnd(path.end[0]).name, int(path.folds[0]), bool(path.verified[0])
        ('converged', 0, True)
    """

    end: Array
    folds: Array
    solves: Array
    accepted: Array
    lam: Array
    verified: Array
    entries: Array | None = None
    _record: Any = None  # numbers, kinds, points, components
    _called: str = ""  # of a homotopy of one's own: who was called, with the verb

    def __repr__(self) -> str:
        """How many rows, and how they went."""
        return f"<Path of {len(self.folds)} rows: {self._told()}>"

    def _told(self) -> str:
        folds, solves = to_host(self.folds), to_host(self.solves)
        ends, counts = np.unique(to_host(self.end), return_counts=True)
        named = ", ".join(f"{count} {PathEnd(end).name}" for end, count in zip(ends, counts, strict=True))
        return (
            f"Paths: {named}; linear systems per row {int(solves.min())} to {int(solves.max())}, median "
            f"{float(np.median(solves)):g}; folds in {int(np.count_nonzero(folds))} rows, at most {int(folds.max())}"
        )

    def points(self, row: int) -> PathPoints:
        """What was recorded of a row: every evaluation of H, up to the number of entries there was room for.

        Args:
            row: its place in the batch.

        Returns:
            :class:`PathPoints`, arrays on the host.

        Raises:
            ValueError: nothing was recorded, or there is no such row.
            TypeError: row is not an integer.

        Example:
            >>> import numpy as np, deqcore
            >>> path = deqcore.follow(lambda z: np.tanh(2.0 * z + 1.0), np.zeros((1, 1)), record=True).path
            >>> points = path.points(0)
            >>> float(points.lam[points.accepted].min()), float(points.lam[-1])
            (0.0, 1.0)
        """
        if self.entries is None:
            raise ValueError("record: nothing was recorded; give follow(..., record=True)")
        rows, at = len(self.folds), integer(row, "row")
        if not 0 <= at < rows:
            raise ValueError(f"row: {at} given; expected 0 to {rows - 1}")
        numbers, kinds, points = (to_host(array) for array in self._record[:3])
        count = min(int(to_host(self.entries)[at]), len(kinds))
        picked = points.shape[1] // rows
        kind = kinds[:count, at]
        verdict = kind >> 2 & 3
        known = numbers.reshape(len(kinds), rows, 4)[:count, at]
        return PathPoints(
            lam=known[:, 0],
            z=points.reshape(len(kinds), rows, picked)[:count, at],
            step=known[:, 1],
            residual=known[:, 2],
            slope=known[:, 3],
            stage=kind & 3,
            corrections=kind >> 4,
            accepted=(verdict == 1) | ((verdict == 3) & (kind & 3 == 2)),
            rejected=verdict == 2,
        )


class Recording:
    """The arrays that the core fills about the paths of a solve."""

    def __init__(self, state: Any, record: Any = False, components: Any = None) -> None:
        """``record``: False, True, or how many entries per row; ``components``: of z, None is all."""
        door, rows = state.door, state.rows
        if isinstance(record, (bool, np.bool_)):
            capacity = _MOST_ENTRIES if flag(record, "record") else 0
        else:
            capacity = integer(record, "record")
            if not 1 <= capacity < 2**31:
                raise ValueError(f"record: {capacity} given; expected False, True, or 1 to {2**31 - 1} entries")
        self.integers = door.empty((5, rows), np.dtype(np.int32))
        self.lam = door.empty(rows, np.dtype(np.float64))
        self.record: tuple[Any, ...] | None = None
        if capacity:
            picked = np.arange(state.width, dtype=np.int32) if components is None else _picked(components, state.width)
            try:
                numbers = door.empty((capacity, 4 * rows), np.dtype(np.float64))
                points = door.empty((capacity, len(picked) * rows), np.dtype(np.float64))
                kinds = door.empty((capacity, rows), np.dtype(np.int32))
            except (MemoryError, ValueError):
                raise MemoryError(
                    f"record: {capacity} entries of {rows} rows and {len(picked)} components need "
                    f"{8 * capacity * rows * (len(picked) + 5)} bytes; record fewer components or entries"
                ) from None
            self.record = numbers, kinds, points, door.xp.asarray(picked)
        elif components is not None:
            raise ValueError("components: given without a record; expected None, or record=True")
        self.native = door.native_path(self.integers, self.lam, self.record)
        self._door = door

    def path(self, status: Any, verifies: bool, called: str) -> Path:
        """What was filled. ``verifies``: whether f was asked at the ends; ``called``: see :class:`Path`."""
        end, folds, solves, accepted, entries = self.integers
        outward = self._door.outward
        return Path(
            end=outward(end),
            folds=outward(folds),
            solves=outward(solves),
            accepted=outward(accepted),
            lam=outward(self.lam),
            verified=outward((status == 0) & verifies),
            entries=None if self.record is None else outward(entries),
            _record=self.record,
            _called=called,
        )


def _picked(components: Any, width: int) -> np.ndarray:
    """Components of a flattened row, by their places."""
    try:
        given = np.asarray(components)
    except (TypeError, ValueError):
        given = np.empty(0, object)
    if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iu":
        raise TypeError(f"components: {describe(components)} given; expected a list of integers, or None for all")
    if given.min() < 0 or given.max() >= width:
        raise ValueError(f"components: {describe(components)} given; expected places from 0 to {width - 1}")
    return np.ascontiguousarray(given, np.int32)
