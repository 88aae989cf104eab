# SPDX-License-Identifier: Apache-2.0
"""Libraries solve one problem in turn: tolerances are found, settings tried, the chosen ones timed, answers checked.

A library whose own test is per row and relative is asked for 1e-6. One that tests the batch as a whole, or in absolute
terms, is asked for the loosest tolerance with which every row meets 1e-6 x 1.1, found beforehand: it never pays for
more than is asked. Of a library's settings its default is timed, and the one that was fastest in a trial.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.measure import Plan, case, figures, in_turn

from . import pools
from .problems import RTOL

LADDER = tuple(RTOL * 2.0 ** (3 - k) for k in range(8))  # tolerances tried, the loosest first
TRIAL_SECONDS = 0.15
CASE_SECONDS = 4.0
SEARCH_SECONDS = 5.0  # for a setting's tolerance; then it has missed
SLOW = 1.5  # seconds: a setting beyond is timed in its trial only


@dataclass(frozen=True, eq=False)
class Contestant:
    """One library with one setting: ``solve(tolerance)`` gives its answer when it is ready, in its own type."""

    library: str
    setting: str
    solve: Callable[[float], Any]
    default: bool = False
    per_row: bool = False  # its own test is the one that the answer is held to
    always: bool = False  # timed whatever its rank: ours, and the limit
    blas: int = 1  # threads of NumPy's and SciPy's BLAS
    torch: int = 2  # threads of torch
    value: Callable[[Any], Any] = np.asarray

    @property
    def name(self) -> str:
        return f"{self.library}, {self.setting}" if self.setting else self.library


@dataclass(frozen=True)
class Verdict:
    """``counts`` say how much of an answer is good, ``error`` how far off the worst of it is."""

    good: bool
    counts: dict[str, Any]
    error: float


Judge = Callable[[Any], Verdict]


@dataclass(frozen=True, eq=False)
class Entry:
    """A contestant with its tolerance, its verdict and the seconds of a trial."""

    contestant: Contestant
    tolerance: float
    verdict: Verdict
    seconds: float


def by_rows(residuals: Callable[[np.ndarray], np.ndarray], limit: float) -> Judge:
    """Judge answers by the residual of each row."""

    def judge(z: np.ndarray) -> Verdict:
        found = residuals(z)
        good = found <= limit  # NaN is not
        worst = float(np.max(found)) if np.isfinite(found).all() else float("inf")
        return Verdict(bool(good.all()), {"converged": int(good.sum()), "of": len(good)}, worst)

    return judge


def timed(contestant: Contestant, tolerance: float) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = contestant.solve(tolerance)
    return time.perf_counter() - start, answer


def try_out(contestant: Contestant, judge: Judge, quick: bool) -> Entry | None:
    """Find the tolerance and the time of one contestant; None if it raises or answers nothing."""
    pools.set_threads(contestant.blas, contestant.torch)
    entry, started = None, time.perf_counter()
    for tolerance in (RTOL,) if contestant.per_row else LADDER:
        try:
            seconds, answer = timed(contestant, tolerance)
            if entry is None and seconds > 0.2:  # it may have compiled
                again, answer = timed(contestant, tolerance)
                seconds = min(seconds, again)
        except Exception as error:  # whatever another library raises: it is out, and the run goes on
            said = str(error).strip().splitlines() or [""]
            print(f"  {contestant.name}: {type(error).__name__}: {said[0][:150]}", flush=True)
            return entry
        entry = Entry(contestant, tolerance, judge(contestant.value(answer)), seconds)
        if entry.verdict.good or time.perf_counter() - started > SEARCH_SECONDS:
            break
    if entry is None or quick or entry.seconds > SLOW or not entry.verdict.good:
        return entry
    times, started = [], time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - started < TRIAL_SECONDS and len(times) < 50):
        times.append(timed(contestant, entry.tolerance)[0])
    return Entry(contestant, entry.tolerance, entry.verdict, float(np.median(times)))


def chosen(entries: Sequence[Entry]) -> list[tuple[str, Entry]]:
    """-> (role, entry): everything that is always timed, and of each library its default and its best setting."""
    roles = [("as is", entry) for entry in entries if entry.contestant.always]
    rest = [entry for entry in entries if not entry.contestant.always]
    for library in dict.fromkeys(entry.contestant.library for entry in rest):
        own = [entry for entry in rest if entry.contestant.library == library]
        best = min(own, key=lambda entry: (not entry.verdict.good, entry.seconds))
        default = [entry for entry in own if entry.contestant.default]
        if best in default:
            roles.append(("default and best", best))
            continue
        roles += [("default", entry) for entry in default] + [("best", best)]
    return roles


def contest(
    plan: Plan,
    problem: str,
    contestants: Sequence[Contestant],
    judge: Judge,
    rows: int,
    width: int,
    threads: int,
    parts: dict[str, float] | None = None,
) -> Iterator[dict[str, Any]]:
    """One line per chosen contestant, timed in turn; ``over_ours`` is its median over that of the first one."""
    entries = [try_out(contestant, judge, plan.quick) for contestant in contestants]
    roles = chosen([entry for entry in entries if entry is not None])
    if not roles:
        return
    in_rounds = [(role, entry) for role, entry in roles if entry.seconds <= SLOW or entry.contestant.always]
    bodies = [_body(entry) for _, entry in in_rounds]
    before = [
        pools.before(entry.contestant.blas, entry.contestant.torch, body, entry.seconds)
        for (_, entry), body in zip(in_rounds, bodies, strict=True)
    ]
    times = in_turn(plan, threads, bodies, before=before, wall=True, case_seconds=CASE_SECONDS)
    samples = {entry: times[:, column] for column, (_, entry) in enumerate(in_rounds)}
    ours = float(np.median(times[:, 0]))
    for role, entry in roles:
        taken = samples.get(entry, np.array([entry.seconds]))
        line = case(
            problem,
            entry.contestant.name,
            np.float32,
            rows,
            width,
            threads,
            clock="wall",
            counts=entry.verdict.counts,
            samples=taken,
            parts=parts if entry is roles[0][1] else None,
        )
        line |= {
            "library": entry.contestant.library,
            "setting": entry.contestant.setting,
            "role": role,
            "good": entry.verdict.good,
            "error": figures(entry.verdict.error),
            "tolerance": figures(entry.tolerance),
            "over_ours": figures(float(np.median(taken)) / ours),
        }
        yield line


def _body(entry: Entry) -> Callable[[], Any]:
    return lambda: entry.contestant.solve(entry.tolerance)
