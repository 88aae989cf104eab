# SPDX-License-Identifier: Apache-2.0
r"""Share of hard problems solved, and claims that are false, against the solvers of other libraries.

    python benchmarks/python/catalogue.py [--half tuning|reporting|both] [--draws 3] [--solvers NAME ...] [--out FILE]

The problems are those of tests/support/catalogue.py, each from its standard start and from 10 and 100 times that; the
random ones are drawn afresh. One criterion for all: a row is solved if what came back is finite and
\|F(z)\| <= tolerance = 1e-8 max(1, \|F(standard start)\|), with F = f(z) - z for fixed points, measured here in
float64. Every solver is handed its nearest equivalent of that tolerance; what it says of its own success is a claim,
and a claim is false where the criterion fails. Where there is no solution, the claims that meet the criterion are
counted apart: at the residual of a point alone, nobody can tell them from others.

Budget: evaluations of a row, products J v among them, and a Jacobian as ``width`` of them. 2,000, and 200 (width + 1),
the default of hybr, for those that work with dense Jacobians. Each solve may take 30 seconds of CPU time.

Peers, with their defaults but for tolerance and budget: SciPy's root (hybr to width 400), and where they are installed
KINSOL by way of CasADi (line search; dense to width 400, GMRES) and optimistix (to width 400). Dense methods get exact
Jacobians where they take them, hybr forms its own. Peers solve row by row, ours all rows at once: "deqcore" is
``method=None``, a ladder that was chosen on the tuning half.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "tests"))

import numpy as np
from scipy import optimize

import deqcore
from harness import machine
from harness.measure import Plan, case
from support.catalogue import CATALOGUE, HALVES, SCALES, Entry, Problem, by_columns

RTOL = 1e-8
BUDGET = 2000
SECONDS = 30.0
DENSE_WIDTH = 400  # widest rows for dense Jacobians
SEED = 20240


class GivenUp(Exception):
    """The budget or the time is spent."""


@dataclass(frozen=True)
class Answer:
    """What a solver returns: points, and per row whether it says that it has converged."""

    z: np.ndarray
    claimed: np.ndarray


class Counted:
    """A problem that counts the evaluations of every row and gives up when the budget or the time is spent.

    Its row arguments end in the row's index, so that a solver may ask about any rows.
    """

    def __init__(self, problem: Problem, rows: slice, budget: int) -> None:
        self.problem, self.kind, self.width = problem, problem.kind, problem.width
        self.row_args = (*(a[rows] for a in problem.row_args), np.arange(problem.rows)[rows])
        self.counts = np.zeros(problem.rows, int)
        self.budget = budget
        self.deadline = time.process_time() + SECONDS

    @property
    def late(self) -> bool:
        return time.process_time() > self.deadline

    def _count(self, index: np.ndarray, evaluations: int = 1) -> None:
        self.counts[index] += evaluations
        if self.late or (self.counts[index] > self.budget).any():
            raise GivenUp

    def f(self, z: np.ndarray, *row_args: np.ndarray) -> np.ndarray:
        self._count(row_args[-1])
        return self.problem.f(z, *row_args[:-1])

    def jvp(self, z: np.ndarray, v: np.ndarray, *row_args: np.ndarray) -> np.ndarray:
        self._count(row_args[-1])
        return self.problem.jvp(z, v, *row_args[:-1])

    def residual(self, z: np.ndarray) -> np.ndarray:
        """F of one row, (width,)."""
        self._count(self.row_args[-1])
        return self.problem.residual(z[None], *self.row_args[:-1])[0]

    def jacobian(self, z: np.ndarray) -> np.ndarray:
        """Of F, (width, width)."""
        self._count(self.row_args[-1], self.width)
        jacobian = self.problem.jacobian or by_columns(self.problem.jvp)
        J = jacobian(z[None], *self.row_args[:-1])[0]
        return J - np.eye(self.width) if self.kind == "fixed_point" else J


@dataclass(frozen=True)
class Solver:
    """``solve(counted, z0, atol)``, of one row (width,) or of ``whole`` blocks (rows, width)."""

    name: str
    solve: Callable[[Counted, np.ndarray, float], Answer]
    whole: bool = False
    dense: bool = False


# Ours -----------------------------------------------------------------------------------------------------------------


def by(method: Any, newton: bool = False) -> Callable[[Counted, np.ndarray, float], Answer]:
    """deqcore.fixed_point or deqcore.root. ``newton``: whether the method may ask for products."""

    def solve(counted: Counted, z0: np.ndarray, atol: float) -> Answer:
        def watch(progress: deqcore.Progress) -> None:
            if counted.late:
                raise StopIteration

        find = deqcore.fixed_point if counted.kind == "fixed_point" else deqcore.root
        solution = find(
            counted.f, z0, row_args=counted.row_args, method=method, jvp=counted.jvp if newton else None,
            atol=0.9 * atol, rtol=4 * np.finfo(float).eps, scale=atol / RTOL,
            max_steps=None if method is None else counted.budget, callback=watch, threads=1, on_failure="return",
        )  # fmt: skip
        return Answer(solution.value, solution.status == 0)

    return solve


# One line per candidate.
OURS = {
    "deqcore": by(None, newton=True),
    "anderson": by("anderson"),
    "anderson 20": by(deqcore.Anderson(history=20)),
    "anderson type i": by("anderson_type_i"),
    "broyden": by("broyden"),
    "broyden 32 compress": by(deqcore.Broyden(history=32, full="compress")),
    "newton krylov": by("newton_krylov", newton=True),
}
OURS_DENSE = {"newton": by("newton", newton=True)}


# Peers ----------------------------------------------------------------------------------------------------------------


def by_scipy(method: str) -> Callable[[Counted, np.ndarray, float], Answer]:
    def solve(counted: Counted, z0: np.ndarray, atol: float) -> Answer:
        if method == "hybr":
            # tests its steps alone, relative to the point, and shall not end for that before F is small
            options = {"xtol": 1e-12, "maxfev": counted.budget}
        else:
            options = {"fatol": atol, "tol_norm": np.linalg.norm, "maxiter": counted.budget}
        found = optimize.root(counted.residual, z0, method=method, options=options)
        return Answer(found.x, np.array(found.success))

    return solve


def by_kinsol(linear: str) -> Callable[[Counted, np.ndarray, float], Answer]:
    """KINSOL with its line search; it tests the largest element, so that atol / sqrt(width) is the equivalent."""
    import casadi

    class Function(casadi.Callback):  # type: ignore[misc]
        def __init__(self, counted: Counted, columns: int) -> None:
            casadi.Callback.__init__(self)
            self.counted, self.columns = counted, columns
            self.construct("F" if columns == 1 else "jac_F", {} if linear == "dense" else {"enable_fd": True})

        def get_n_in(self) -> int:
            return 1 if self.columns == 1 else 2

        def get_n_out(self) -> int:
            return 1

        def get_sparsity_in(self, i: int) -> Any:
            return casadi.Sparsity.dense(self.counted.width, 1)

        def get_sparsity_out(self, i: int) -> Any:
            return casadi.Sparsity.dense(self.counted.width, self.columns)

        def eval(self, operands: Any) -> Any:
            z = np.array(operands[0]).ravel()
            return [casadi.DM(self.counted.residual(z) if self.columns == 1 else self.counted.jacobian(z))]

        def has_jacobian(self) -> bool:
            return self.columns == 1 and linear == "dense"

        def get_jacobian(self, *names: Any) -> Any:
            self.derivative = Function(self.counted, self.counted.width)
            return self.derivative

        def has_jac_sparsity(self, *indices: int) -> bool:
            return linear != "dense"

        def get_jac_sparsity(self, *indices: Any) -> Any:  # never used, where products are differences
            return casadi.Sparsity.diag(self.counted.width)

    def solve(counted: Counted, z0: np.ndarray, atol: float) -> Answer:
        options = {
            "abstol": atol / np.sqrt(counted.width), "strategy": "linesearch", "linear_solver_type": linear,
            "max_iter": counted.budget, "exact_jacobian": linear == "dense", "error_on_fail": False,
            "disable_internal_warnings": True,
        }  # fmt: skip
        function = Function(counted, 1)
        finder = casadi.rootfinder("finder", "kinsol", function, options)
        z = np.array(finder(z0)).ravel()
        status = finder.stats()["return_status"]
        return Answer(z, np.array(status in ("KIN_SUCCESS", "KIN_INITIAL_GUESS_OK")))

    return solve


def by_optimistix(name: str) -> Callable[[Counted, np.ndarray, float], Answer]:
    """Compiled once per width; the callbacks ask whatever is solved at the time."""
    import jax
    import optimistix

    jax.config.update("jax_enable_x64", True)
    logging.getLogger("jax._src.callback").disabled = True  # a spent budget is no news
    current: list[Counted] = []
    compiled: dict[int, Any] = {}

    def compile_for(width: int) -> Any:
        vector, matrix = (jax.ShapeDtypeStruct(shape, np.float64) for shape in ((width,), (width, width)))

        def asked(of: str, shape: Any, z: Any) -> Any:
            def call(z: Any) -> np.ndarray:
                return getattr(current[-1], of)(np.asarray(z))

            return jax.pure_callback(call, shape, z)

        @jax.custom_jvp
        def residual(z: Any) -> Any:
            return asked("residual", vector, z)

        @residual.defjvp
        def _(primals: Any, tangents: Any) -> Any:
            return residual(*primals), asked("jacobian", matrix, primals[0]) @ tangents[0]

        @jax.jit
        def find(z0: Any, atol: Any) -> Any:
            solver = getattr(optimistix, name)(rtol=1e-12, atol=atol, norm=optimistix.two_norm)
            found = optimistix.root_find(lambda z, _: residual(z), solver, z0, max_steps=BUDGET, throw=False)
            return found.value, found.result == optimistix.RESULTS.successful

        return find

    def solve(counted: Counted, z0: np.ndarray, atol: float) -> Answer:
        current[:] = [counted]
        if counted.width not in compiled:
            compiled[counted.width] = compile_for(counted.width)
        z, claimed = compiled[counted.width](z0, min(atol, RTOL))  # it tests steps in z by the same number
        return Answer(np.asarray(z), np.asarray(claimed))

    return solve


def peers() -> list[Solver]:
    found = [Solver(f"scipy {name}", by_scipy(name), dense=name == "hybr") for name in SCIPY]
    if importlib.util.find_spec("casadi"):
        found += [Solver(f"kinsol {name}", by_kinsol(name), dense=name == "dense") for name in ("dense", "iterative")]
    if importlib.util.find_spec("optimistix"):
        found += [Solver(f"optimistix {name}", by_optimistix(name), dense=True) for name in OPTIMISTIX]
    return found


SCIPY = ("hybr", "broyden1", "anderson", "krylov")
OPTIMISTIX = ("Newton", "Dogleg", "LevenbergMarquardt")


def solvers() -> list[Solver]:
    return ours() + peers()


def ours() -> list[Solver]:
    found = [Solver(name, solve, whole=True) for name, solve in OURS.items()]
    return found + [Solver(name, solve, whole=True, dense=True) for name, solve in OURS_DENSE.items()]


# The comparison -------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """How one solver fared on one problem from one start: an entry per row and draw."""

    solved: list[bool] = field(default_factory=list)
    claimed: list[bool] = field(default_factory=list)
    evaluations: list[int] = field(default_factory=list)
    seconds: float = 0.0
    solvable: bool = True

    def counts(self) -> dict[str, Any]:
        spent = [e for e, s in zip(self.evaluations, self.solved, strict=True) if s]
        met = [s for s, c in zip(self.solved, self.claimed, strict=True) if c]  # of the claims
        return {
            "solved": sum(self.solved) if self.solvable else None,
            "of": len(self.solved),
            "false": len(met) - sum(met),
            "without_solution": 0 if self.solvable else sum(met),
            "median_evaluations": float(np.median(spent)) if spent and self.solvable else None,
        }


def attempt(solver: Solver, problem: Problem, z0: np.ndarray, tally: Tally) -> None:
    norms = np.linalg.norm(problem.residual(problem.start()), axis=1)
    tolerances = RTOL * np.maximum(1, norms)
    budget = max(BUDGET, 200 * (problem.width + 1)) if solver.dense else BUDGET
    parts = [slice(None)] if solver.whole else [slice(i, i + 1) for i in range(problem.rows)]
    for part in parts:
        counted = Counted(problem, part, budget)
        started = time.process_time()
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                start = z0[part].copy() if solver.whole else z0[part][0].copy()
                answer = solver.solve(counted, start, float(tolerances[part].min()))
                z = np.asarray(answer.z, float).reshape(z0[part].shape)
                claimed = np.broadcast_to(answer.claimed, len(z))
            except Exception as error:  # a peer that raises has not solved; ours must not
                if solver.whole and not isinstance(error, GivenUp):
                    raise
                z, claimed = np.full_like(z0[part], np.nan), np.zeros(len(z0[part]), bool)
            residual = problem.residual(z, *(a[part] for a in problem.row_args))
        tally.seconds += time.process_time() - started
        met = np.isfinite(z).all(axis=1) & (np.linalg.norm(residual, axis=1) <= tolerances[part])
        tally.solved += met.tolist()
        tally.claimed += claimed.tolist()
        tally.evaluations += counted.counts[part].tolist()


def compare(entries: Iterable[Entry], draws: int, solvers: list[Solver], seed: int = SEED) -> Iterator[tuple[Any, ...]]:
    """-> (entry, scale of the start, solver, tally, rows, width)."""
    for entry in entries:
        # a generator of its own: what is drawn does not depend on what else is run
        rng = np.random.default_rng([seed, *entry.name.encode()])
        drawn = [entry.draw(rng)]
        if entry.random:
            drawn += [entry.draw(rng) for _ in range(draws - 1)]
        width = drawn[0].width
        for scale in SCALES:
            for solver in solvers:
                if solver.dense and width > DENSE_WIDTH:
                    continue
                tally = Tally(solvable=drawn[0].solvable)
                for problem in drawn:
                    attempt(solver, problem, problem.start(scale), tally)
                yield entry, scale, solver, tally, drawn[0].rows, width


def line(entry: Entry, scale: int, solver: Solver, tally: Tally, rows: int, width: int) -> dict[str, Any]:
    name = f"catalogue, {entry.family}, {entry.name}, start x {scale}"
    return case(name, solver.name, np.float64, rows, width, 1, counts=tally.counts())


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    """As the other groups: ours on everything; to run, on what is small."""
    entries = [e for e in CATALOGUE if not plan.quick or e.family in ("classical", "steep ramps")]
    for found in compare(entries[:6] if plan.quick else entries, 1 if plan.quick else 3, ours()):
        yield line(*found)


COLUMNS = (
    f"{'solved':>11} {'share':>6} {'x1':>5} {'x10':>5} {'x100':>5} {'false':>6} {'none':>5} {'evals':>7} {'x best':>7}"
)


def table(lines: list[dict[str, Any]]) -> list[str]:
    """Per family and solver; then the problems that are left.

    Columns: solved of all rows; the share, of all and per start; false claims; claims where there is no solution;
    the median of evaluations over problems and starts; their ratio to those of the best solver of that problem and
    start, where all rows are solved.
    """
    text = []
    least: dict[str, float] = {}
    for one in lines:
        if complete(one):
            spent = one["counts"]["median_evaluations"]
            least[one["problem"]] = min(spent, least.get(one["problem"], np.inf))
    families = dict.fromkeys(one["problem"].split(", ")[1] for one in lines)
    names = list(dict.fromkeys(one["method"] for one in lines))
    for family in [*families, "all"]:
        text += ["", f"{family:<28} {COLUMNS}"]
        for name in names:
            of = [e for e in lines if e["method"] == name and family in (e["problem"].split(", ")[1], "all")]
            text += [f"  {name:<29}{summary(of, least)}"] if of else []
    return text + failures(lines)


def complete(one: dict[str, Any]) -> bool:
    return one["counts"]["solved"] == one["counts"]["of"]


def summary(lines: list[dict[str, Any]], least: dict[str, float]) -> str:
    solvable = [one for one in lines if one["counts"]["solved"] is not None]
    shares = [share(solvable)] + [share([e for e in solvable if e["problem"].endswith(f" x {s}")]) for s in SCALES]
    spent = [e["counts"]["median_evaluations"] for e in solvable if e["counts"]["median_evaluations"] is not None]
    ratios = [e["counts"]["median_evaluations"] / least[e["problem"]] for e in solvable if complete(e)]
    false, none = (sum(e["counts"][of] for e in lines) for of in ("false", "without_solution"))
    solved, of = (sum(e["counts"][name] for e in solvable) for name in ("solved", "of"))
    return (
        f"{solved:>4}/{of:<5} {shares[0]:>6} {' '.join(f'{s:>5}' for s in shares[1:])} {false:>6} {none:>5}"
        f" {f'{np.median(spent):.0f}' if spent else '-':>7} {f'{np.median(ratios):.2f}' if ratios else '-':>7}"
    )


def share(lines: list[dict[str, Any]]) -> str:
    of = sum(one["counts"]["of"] for one in lines)
    return f"{100 * sum(one['counts']['solved'] for one in lines) / of:.0f}%" if of else "-"


def failures(lines: list[dict[str, Any]]) -> list[str]:
    """Where nobody solves every row, and where only peers solve more than the best of ours."""
    mine = OURS | OURS_DENSE
    text = ["", "best share below 1 (ours, peers):"]
    for problem in dict.fromkeys(one["problem"] for one in lines):
        rows = [e for e in lines if e["problem"] == problem and e["counts"]["solved"] is not None]
        best = {
            whose: max(
                (e["counts"]["solved"] / e["counts"]["of"] for e in rows if (e["method"] in mine) == ours), default=0
            )
            for whose, ours in (("ours", True), ("peers", False))
        }
        if rows and min(best.values()) < 1:
            text.append(f"  {problem.removeprefix('catalogue, '):<60} {best['ours']:.2f} {best['peers']:.2f}")
    return text


def aggregated(lines: list[dict[str, Any]], half: str) -> list[dict[str, Any]]:
    """Rows solved per family and solver, on rows up to DENSE_WIDTH and on all: small enough to be committed."""
    found = []
    for method in dict.fromkeys(one["method"] for one in lines):
        for family in dict.fromkeys(one["problem"].split(", ")[1] for one in lines):
            mine = [e for e in lines if e["method"] == method and e["problem"].split(", ")[1] == family]
            for widest in (DENSE_WIDTH, None):
                some = [e["counts"] for e in mine if widest is None or e["width"] <= widest]
                solvable = [c for c in some if c["solved"] is not None]
                counts = {of: sum(c[of] for c in solvable) for of in ("solved", "of")}
                counts |= {of: sum(c[of] for c in some) for of in ("false", "without_solution")}
                found.append({"half": half, "family": family, "solver": method, "widest": widest, **counts})
    return found


def draw(rows: list[dict[str, Any]], to: Path) -> None:
    """The share of the reporting half that each solver solves."""
    from matplotlib.figure import Figure

    colours = dict.fromkeys(OURS | OURS_DENSE | {"picard": None}, "navajowhite") | {"deqcore": "tab:orange"}
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, widest, title in zip(
        figure.subplots(1, 2), (DENSE_WIDTH, None), (f"width up to {DENSE_WIDTH}", "all widths, to 65,536"), strict=True
    ):
        of = {r["solver"]: [0, 0] for r in rows}
        for r in rows:
            if r["half"] == "reporting" and r["widest"] == widest:
                of[r["solver"]] = [of[r["solver"]][0] + r["solved"], of[r["solver"]][1] + r["of"]]
        most = max(total for _, total in of.values())
        shares = sorted((s / t, name) for name, (s, t) in of.items() if t == most)  # of those that take all of them
        bars = axes.barh(
            [name for _, name in shares],
            [100 * s for s, _ in shares],
            color=[colours.get(name, "tab:gray") for _, name in shares],
        )
        axes.bar_label(bars, fmt="%.0f", padding=2)
        axes.set(title=title, xlabel="rows solved, %", xlim=(0, 108))
    figure.savefig(to, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description="Share of the catalogue that each solver solves.")
    parser.add_argument("--half", choices=HALVES, default="both")
    parser.add_argument("--draws", type=int, default=3, help="of random problems")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--solvers", nargs="*", help="names, or beginnings of names; default: all that are installed")
    parser.add_argument("--families", nargs="*", help="default: all")
    parser.add_argument("--quick", action="store_true", help="a few small problems")
    parser.add_argument("--out", type=Path, help="JSON lines, appended")
    parser.add_argument("--read", type=Path, nargs="+", help="lines of earlier runs of a half, instead of solving")
    parser.add_argument("--summary", type=Path, help="rows solved per family and solver, appended")
    parser.add_argument("--chart", type=Path, nargs=2, metavar=("SUMMARY", "PNG"), help="draw a summary, and end")
    options = parser.parse_args()
    if options.chart:
        draw([json.loads(text) for text in options.chart[0].read_text("utf-8").splitlines()], options.chart[1])
        return 0
    machine.prepare()  # may start anew
    wanted = [s for s in solvers() if not options.solvers or s.name.startswith(tuple(options.solvers))]
    entries = [e for e in HALVES[options.half] if not options.families or e.family in options.families]
    if options.quick:
        entries = [e for e in entries if e.family in ("classical", "steep ramps")][:6]
    read = [json.loads(text) for file in options.read or () for text in file.read_text("utf-8").splitlines()]
    lines = list({(one["problem"], one["method"]): one for one in read}.values())  # the last of each
    out = options.out.open("a", encoding="utf-8") if options.out else None
    for found in () if read else compare(entries, 1 if options.quick else options.draws, wanted, options.seed):
        lines.append(line(*found))
        if out:
            out.write(json.dumps({**lines[-1], "elapsed": round(found[3].seconds, 3)}) + "\n")
            out.flush()
    print("\n".join(table(lines)))
    if options.summary:
        with options.summary.open("a", encoding="utf-8") as to:
            to.writelines(json.dumps(row) + "\n" for row in aggregated(lines, options.half))
    return 0


if __name__ == "__main__":
    sys.exit(main())
