# SPDX-License-Identifier: Apache-2.0
"""Pictures of solves. They need matplotlib (``pip install "deqcore[demo]"``), which is imported when one is drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._arrays import describe, to_host
from ._solution import Solution, Status

__all__ = ["convergence"]

_EACH = 12  # as many rows are drawn one by one
_MARKERS = 300  # of rows that converged
# Told apart with every kind of colour vision (Okabe and Ito 2008).
_BLUE, _ORANGE, _RED = "#0072B2", "#E69F00", "#D55E00"


def convergence(solution: Solution, ax: Any = None) -> Any:
    """Draw residual / scale of every row against its evaluations of the map, on a logarithmic axis.

    Up to 12 rows have a line each. More are drawn as their median, the band of their middle 80 %, and the worst row: of
    those that failed, or else of all, the one that ended with the largest residual / threshold. A row that has ended
    stays at its last residual in median and band. Markers say where rows ended: dots converged, crosses failed; of many
    that converged 300 are shown. The dashed line is the threshold / scale at the end, shaded where rows differ in it.

    Args:
        solution: from a solve with ``trace=True``; of any solving function, and any library.
        ax: a matplotlib ``Axes`` to draw into; None makes a figure.

    Returns:
        The ``Axes``; ``ax.figure.savefig("picture.png")`` keeps it.

    Raises:
        TypeError: not a :class:`Solution`, or not an ``Axes``.
        ValueError: the solution has no trace.
        ImportError: there is no matplotlib.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> import numpy as np, deqcore, deqcore.plot
        >>> solution = deqcore.fixed_point(np.cos, np.linspace(0, 1, 40)[:, None], method="picard", trace=True)
        >>> deqcore.plot.convergence(solution).get_ylabel()
        'residual / scale'
    """
    if not isinstance(solution, Solution):
        raise TypeError(f"solution: {describe(solution)} given; expected what a solve returns")
    if solution.trace is None:
        raise ValueError(
            "solution: it has no trace; solve with trace=True, as in deqcore.fixed_point(f, z0, trace=True)"
        )
    if ax is not None and not hasattr(ax, "semilogy"):
        raise TypeError(f"ax: {describe(ax)} given; expected a matplotlib Axes, or None")
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError('plot: there is no matplotlib; pip install "deqcore[demo]"') from None
    if ax is None:
        ax = pyplot.figure(layout="constrained").add_subplot()

    trace, steps, status = (np.asarray(to_host(a)) for a in (solution.trace, solution.steps, solution.status))
    scale = np.asarray(to_host(solution.scale), np.float64)
    scale = np.where(scale > 0, scale, 1.0)
    rows = trace.shape[1]
    # Infinity where a row was not finite; a residual of 0 is drawn at the bottom.
    relative = trace / scale
    eps = float(np.finfo(to_host(solution.value).dtype).eps)
    lowest = eps / 16
    drawn = np.where(np.isnan(relative), math.nan, np.maximum(relative, lowest))
    drawn[np.isinf(drawn)] = math.nan
    ends = np.maximum(np.minimum(steps, len(trace)) - 1, 0)
    last = drawn[ends, np.arange(rows)] if len(trace) else np.full(rows, math.nan)
    thresholds = _thresholds(solution, scale)
    failed = status < 0

    when = np.arange(1, len(trace) + 1)
    if rows <= _EACH:
        for row in range(rows):
            ax.semilogy(when, drawn[:, row], lw=1.5, color=_RED if failed[row] else _BLUE, alpha=0.8)
    elif np.isfinite(drawn).any():
        held = drawn.copy()
        for row in range(rows):
            held[ends[row] + 1 :, row] = last[row]
        known = ~np.isnan(held).all(axis=1)
        low, median, high = np.nanquantile(held[known], [0.1, 0.5, 0.9], axis=1)
        ax.fill_between(when[known], low, high, color=_BLUE, alpha=0.25, lw=0, label=f"10 % to 90 % of {rows} rows")
        ax.semilogy(when[known], median, color=_BLUE, lw=2, label="median")
        worst = _worst(last / thresholds, failed)
        ax.semilogy(when, drawn[:, worst], color=_ORANGE, lw=1.2, label=f"worst: row {worst}")
    for members, marker, colour, word in (
        (np.flatnonzero(status == Status.converged), "o", _BLUE, "converged"),
        (np.flatnonzero(failed), "x", _RED, "failed"),
    ):
        if len(members):
            some = members[np.linspace(0, len(members) - 1, min(len(members), _MARKERS)).astype(int)]
            style = {"color": colour, "ms": 5, "alpha": 1.0 if rows <= _EACH else 0.5, "ls": "none"}
            ax.semilogy(ends[some] + 1, last[some], marker, label=f"{word}: {len(members)}", **style)
    least, most = float(thresholds.min()), float(thresholds.max())
    ax.axhline(float(np.median(thresholds)), color="black", lw=1, ls="--", label="threshold")
    if most > 1.2 * least:
        ax.axhspan(least, most, color="black", alpha=0.08, lw=0)
    ax.set_xlim(left=0)
    ax.set_xlabel("evaluations of the map (per row)")
    ax.set_ylabel("residual / scale")
    ax.set_title(f"{solution._solver}, {solution._methods()}: {int((status == 0).sum())} of {rows} rows converged")
    ax.legend(loc="best", frameon=False)
    return ax


def _thresholds(solution: Solution, scale: np.ndarray) -> np.ndarray:
    """What each row's residual was held against at its best point, relative to its scale."""
    told = solution.tolerances
    against = scale
    if told.relative_to == "image":  # |f| there is |z| to within the residual
        value = np.asarray(to_host(solution.value)).reshape(len(scale), -1).astype(np.float64)
        lengths = np.abs(value).max(axis=1) if told.norm == "inf" else np.linalg.norm(value, axis=1)
        against = np.minimum(np.where(np.isfinite(lengths), lengths, math.inf), 10 * scale)
    eps = float(np.finfo(to_host(solution.value).dtype).eps)
    floor = 4 * eps * scale if told.relative_to == "image" else 0.0
    least = np.finfo(np.float64).tiny  # a logarithmic axis has no 0
    thresholds: np.ndarray = np.maximum(np.maximum(told.atol + told.rtol * against, floor) / scale, least)
    return thresholds


def _worst(ratio: np.ndarray, failed: np.ndarray) -> int:
    """The row that ended furthest above its threshold; one without a residual is worse than all."""
    ratio = np.where(np.isnan(ratio), math.inf, ratio)
    candidates = np.flatnonzero(failed) if failed.any() else np.arange(len(ratio))
    return int(candidates[np.argmax(ratio[candidates])])
