# SPDX-License-Identifier: Apache-2.0
"""Libraries solve one problem in turn: tolerances are found, settings tried, the chosen ones timed, answers checked.

A library whose own test is per row and relative is asked for 1e-6. One that tests the batch as a whole, or in absolute
terms, is asked for the loosest tolerance with which every row meets 1e-6 x 1.1, found beforehand: it never pays for
more than is asked. Of a library's settings its default is timed, and the one that was fastest in a trial. What a
search found is kept for the next run on this machine, which tries the chosen settings only; each answer is judged anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.measure import Plan, case, figures, in_turn

from . import pools
from .problems import RTOL

LADDER = tuple(RTOL * 2.0 ** (3 - k) for k in range(8))  # tolerances tried, the loosest first
TRIAL_SECONDS = 0.15
CASE_SECONDS = 20.0
SEARCH_SECONDS = 3.0  # for a setting's tolerance; then it is taken with the last one tried
COMPILING = 5.0  # seconds: a first call up to here is made again, for it may have compiled
LONG = 2.0  # seconds: a setting that took longer in the search is not run again
SLOW, FAR = 0.3, 3.0  # a setting beyond these seconds and this many times ours is timed in its trial only


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


@dataclass
class Settings:
    """What searches found: by case, the tolerance, the seconds and the verdict of each setting.

    ``versions`` says what each library is now; findings of another version are forgotten.
    """

    file: Path | None = None
    versions: dict[str, str] = field(default_factory=dict)
    cases: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def load(self) -> None:
        if self.file is None or not self.file.exists():
            return
        found = json.loads(self.file.read_text(encoding="utf-8"))
        same = {name for name, said in found["versions"].items() if self.versions.get(name) == said}
        for name, settings in found["cases"].items():
            self.cases[name] = {setting: of for setting, of in settings.items() if setting.partition(",")[0] in same}

    def save(self) -> None:
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        found = {"versions": self.versions, "cases": self.cases}
        self.file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


SETTINGS = Settings()


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


def entered(case: str, contestants: Sequence[Contestant], judge: Judge, quick: bool) -> list[tuple[str, Entry]]:
    """-> what is to be timed, as chosen() has it: by trials, or by those of an earlier run for the same ``case``."""
    known = SETTINGS.cases.setdefault(case, {})
    entries = {}
    for one in contestants:
        if one.name in known and not one.always:
            of = known[one.name]
            verdict = Verdict(of["good"], of["counts"], of["error"])
            entries[one.name] = Entry(one, of["tolerance"], verdict, of["seconds"])
        else:
            entries[one.name] = try_out(one, judge, quick)
    tried = {name for name in entries if name not in known or known[name]["seconds"] > LONG}
    while True:
        roles = chosen([entry for entry in entries.values() if entry is not None])
        unseen = [entry for _, entry in roles if entry.contestant.name not in tried]
        if not unseen:
            break
        for entry in unseen:
            one = entry.contestant
            again = try_out(one, judge, True, entry.tolerance)
            if again is None or again.verdict.good != entry.verdict.good:
                again = try_out(one, judge, quick)
            elif entry.seconds < again.seconds:  # a single slow trial takes no setting's place
                again = replace(again, seconds=entry.seconds)
            tried.add(one.name)
            entries[one.name] = again
    for name in tried:
        entry = entries[name]
        if entry is not None and not entry.contestant.library.startswith(("deqcore", "limit")):
            known[name] = {
                "tolerance": entry.tolerance,
                "seconds": figures(entry.seconds),
                "good": entry.verdict.good,
                "counts": entry.verdict.counts,
                "error": figures(entry.verdict.error),
            }
    return roles


def try_out(contestant: Contestant, judge: Judge, quick: bool, known: float | None = None) -> Entry | None:
    """Find the tolerance, unless it is known, and the time of one contestant; None if it raises or answers nothing."""
    pools.set_threads(1, contestant.torch)
    pools.wait_until_quiet()
    pools.set_threads(contestant.blas, contestant.torch)
    tolerances = (known,) if known is not None else (RTOL,) if contestant.per_row else LADDER
    entry, low, high, started = None, 0, len(tolerances), time.perf_counter()
    while low < high:  # the loosest that is good; those beyond it are good too
        middle = (low + high) // 2
        try:
            seconds, answer = timed(contestant, tolerances[middle])
            if entry is None and COMPILING > seconds > 0.02:
                again, answer = timed(contestant, tolerances[middle])
                seconds = min(seconds, again)
        except Exception as error:  # whatever another library raises: it is out, and the run goes on
            said = str(error).strip().splitlines() or [""]
            print(f"  {contestant.name}: {type(error).__name__}: {said[0][:150]}", flush=True)
            return entry
        found = Entry(contestant, tolerances[middle], judge(contestant.value(answer)), seconds)
        if found.verdict.good:
            entry, high = found, middle
        else:
            entry, low = entry if entry is not None and entry.verdict.good else found, middle + 1
        if time.perf_counter() - started > SEARCH_SECONDS:
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
    beside: Callable[[], Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """One line per chosen contestant, timed in turn; ``over_ours`` is its median over that of the first one.

    ``beside`` takes its turn too, on as many threads of BLAS as the first one; the lines say its median.
    """
    roles = entered(f"{problem}, {rows} x {width}, {threads}", contestants, judge, plan.quick)
    if not roles:
        return
    slow = max(SLOW, FAR * roles[0][1].seconds)
    in_rounds = [(role, entry) for role, entry in roles if entry.seconds <= slow or entry.contestant.always]
    bodies = [_body(entry) for _, entry in in_rounds]
    before = [
        pools.before(entry.contestant.blas, entry.contestant.torch, body, entry.seconds)
        for (_, entry), body in zip(in_rounds, bodies, strict=True)
    ]
    if beside is not None:
        first = roles[0][1]
        bodies.append(beside)
        before.append(pools.before(first.contestant.blas, first.contestant.torch, beside, first.seconds))
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
        if beside is not None:
            line["beside"] = figures(float(np.median(times[:, -1])))
        yield line


def _body(entry: Entry) -> Callable[[], Any]:
    return lambda: entry.contestant.solve(entry.tolerance)
