# SPDX-License-Identifier: Apache-2.0
"""One JSON line per case, and the clock and spreads that go into it. The fields are those of measure.hpp."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Plan:
    """How much to run."""

    quick: bool = False
    brief: bool = False  # real sizes, few repeats

    @property
    def repeats(self) -> int:
        return 1 if self.quick else 9 if self.brief else 41

    @property
    def sample_seconds(self) -> float:
        """Shortest stretch that is timed."""
        return 0.0 if self.quick else 5e-3

    @property
    def warm_seconds(self) -> float:
        """How long a body runs untimed in each round: threads that slept take milliseconds to come."""
        return 0.0 if self.quick else 15e-3


def spread(samples: Sequence[float], clock: str) -> dict[str, Any]:
    """Median, the 10 % and 90 % quantiles, and how many."""
    low, median, high = np.quantile(samples, (0.1, 0.5, 0.9))
    return {
        "median": figures(median),
        "low": figures(low),
        "high": figures(high),
        "repeats": len(samples),
        "clock": clock,
    }


def figures(value: float) -> float:
    """Four figures: the rest of a time is noise."""
    return float(f"{value:.4g}")


def in_turn(
    plan: Plan,
    threads: int,
    bodies: Sequence[Callable[[], Any]],
    *,
    before: Sequence[Callable[[], Any]] = (),
    wall: bool = False,
    case_seconds: float = np.inf,
    fewest: int = 5,
) -> np.ndarray:
    """Seconds per call, (rounds, bodies). Bodies take turns, so that a slow moment of the machine meets all of them, in
    another order in each round, so that none always follows one that leaves the second core asleep.

    One thread is timed by its own CPU time, which a busy machine disturbs least; several, and bodies whose library
    works in threads of its own (``wall``), by the wall's clock. ``before``, one per body, runs untimed before its body
    in each round. Beyond ``case_seconds`` there are fewer rounds, ``fewest`` at least.
    """
    now = time.thread_time if threads == 1 and not wall else time.perf_counter
    prepare = before or [lambda: None] * len(bodies)

    def seconds(body: Callable[[], Any], calls: int) -> float:
        start = now()
        for _ in range(calls):
            body()
        return now() - start

    def warm(body: Callable[[], Any]) -> None:
        start = time.perf_counter()
        while time.perf_counter() - start < plan.warm_seconds:
            body()

    calls = [1] * len(bodies)
    started = time.perf_counter()
    for i, body in enumerate(bodies):
        prepare[i]()
        warm(body)
        taken = seconds(body, 1)
        while taken < plan.sample_seconds:
            calls[i] *= 2
            taken = seconds(body, calls[i])
    order = np.random.default_rng(0)
    rounds: list[np.ndarray] = []
    for _ in range(plan.repeats):
        if len(rounds) >= fewest and time.perf_counter() - started > case_seconds:
            break
        times = np.empty(len(bodies))
        for i in order.permutation(len(bodies)):
            prepare[i]()
            warm(bodies[i])
            times[i] = seconds(bodies[i], calls[i]) / calls[i]
        rounds.append(times)
    return np.array(rounds)


def case(
    problem: str,
    method: str,
    dtype: Any,
    rows: int,
    width: int,
    threads: int,
    *,
    queue: str = "cpu",
    clock: str | None = None,
    counts: dict[str, Any],
    samples: Sequence[float] = (),
    floor: tuple[float, str] | None = None,
    parts: dict[str, float] | None = None,
) -> dict[str, Any]:
    """One line. ``counts`` are exact, the same in every run; ``parts`` are further medians in seconds."""
    line: dict[str, Any] = {
        "problem": problem,
        "method": method,
        "queue": queue,
        "type": np.dtype(dtype).name,
        "rows": rows,
        "width": width,
        "threads": threads,
        "counts": counts,
    }
    if len(samples):
        line["seconds"] = spread(samples, clock or ("cpu" if threads == 1 else "wall"))
    if floor is not None:
        line["floor"] = {"seconds": figures(floor[0]), "by": floor[1]}
        line["over_floor"] = figures(line["seconds"]["median"] / floor[0])
    if parts:
        line["parts"] = {name: figures(value) for name, value in parts.items()}
    return line
