# SPDX-License-Identifier: Apache-2.0
"""Where continuation solves what nothing else does: z = tanh(W z + b), 40 problems per width n and gain.

W has independent normal entries, scaled by gain / sqrt(n); b ~ N(0, 1); the start is 0.1 N(0, 1); residuals below 1e-9.
Cost is the median over the problems solved: evaluations of the map for Picard, linear systems otherwise. Beside ours
stands an independent implementation in NumPy on draws of its own (`REFERENCE`).

    python benchmarks/python/homotopy.py --table        the table of docs/continuation.md
    python benchmarks/python/homotopy.py --out FILE     what its pictures show
    python benchmarks/python/homotopy.py --chart FILE PATH_PNG WORK_PNG
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import numpy as np

import deqcore
from harness import machine
from harness.measure import Plan, case, figures

PROBLEMS = ((20, 0.4), (20, 1.5), (20, 2.5), (20, 4.0), (50, 1.5), (50, 2.5), (50, 4.0))
DRAWS = 40
SMALL = 1e-9  # a residual that counts as solved

# Solved of 40, and the median cost where it was told.
REFERENCE: dict[str, tuple[tuple[int, int | None], ...]] = {
    "picard": ((40, 19), (28, 260), (6, None), (1, None), (25, 318), (2, None), (0, None)),
    "picard, beta 0.2": ((40, 130), (40, 292), (32, 328), (18, None), (40, 388), (27, 919), (10, None)),
    "newton": ((40, 4), (40, 7), (37, 16), (14, None), (40, 9), (17, None), (0, None)),
    "newton, descent": ((40, 4), (36, 7), (15, 14), (11, None), (39, 8), (6, None), (1, None)),
    "natural": ((40, 18), (40, 23), (37, 30), (32, 58), (40, 23), (36, 42), (25, 98)),
    "natural, Newton homotopy": ((40, 18), (32, 26), (13, 216), (4, None), (24, 38), (1, None), (0, None)),
    "arclength": ((40, 24), (40, 43), (40, 71), (40, 116), (40, 46), (40, 90), (40, 148)),
    "arclength, Newton homotopy": ((40, 22), (34, 50), (22, 294), (21, 596), (28, 67), (16, None), (17, None)),
}


@dataclass(frozen=True)
class Problems:
    """Rows that have nothing in common."""

    W: np.ndarray
    b: np.ndarray
    z0: np.ndarray

    @property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        return self.W, self.b


def draw(n: int, gain: float, draws: int) -> Problems:
    rngs = [np.random.default_rng([n, round(10 * gain), seed]) for seed in range(draws)]
    W = np.stack([gain * rng.standard_normal((n, n)) / np.sqrt(n) for rng in rngs])
    return Problems(W, np.stack([rng.standard_normal(n) for rng in rngs]), np.stack(
        [0.1 * rng.standard_normal(n) for rng in rngs]))  # fmt: skip


def f(z: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.tanh((W @ z[:, :, None])[:, :, 0] + b)


def jacobian(z: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (1 - f(z, W, b) ** 2)[:, :, None] * W


def jvp(z: np.ndarray, v: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (1 - f(z, W, b) ** 2) * (W @ v[:, :, None])[:, :, 0]


def solve(name: str, problems: Problems, **more: Any) -> deqcore.Solution:
    """By the method of a column of the table."""
    n = problems.z0.shape[1]
    shared: dict[str, Any] = {"row_args": problems.data, "rtol": 1e-11, "on_failure": "return"} | more
    if name.startswith(("natural", "arclength")):
        kind = "newton" if name.endswith("Newton homotopy") else "fixed_point"
        return deqcore.follow(
            f, problems.z0, homotopy=kind, tracker=name.partition(",")[0], **{"jacobian": jacobian} | shared
        )
    if name.startswith("newton"):
        method = deqcore.Newton(descent=name.endswith("descent"))
        return deqcore.fixed_point(f, problems.z0, method=method, jvp=jvp, max_steps=50 * (n + 1) + 1, **shared)
    damped = name.endswith("0.2")
    return deqcore.fixed_point(
        f, problems.z0, method=deqcore.Picard(beta=0.2 if damped else 1.0), max_steps=2000 if damped else 1000, **shared
    )


def costs(name: str, solution: deqcore.Solution, n: int) -> np.ndarray:
    """Evaluations of the map, or linear systems, by row."""
    if solution.path is not None:
        return solution.path.solves
    if name.startswith("newton"):
        return (solution.steps - 1 - solution.rejected) // (n + 1)
    return solution.steps


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    wanted = [(8, 0.4), (8, 4.0)] if plan.quick else PROBLEMS
    for n, gain in wanted:
        problems = draw(n, gain, 3 if plan.quick else DRAWS)
        for name in REFERENCE:
            solution = solve(name, problems)
            solved = (solution.status == 0) & (np.linalg.norm(f(solution.value, *problems.data) - solution.value,
                                                              axis=1) < SMALL)  # fmt: skip
            cost = costs(name, solution, n)[solved]
            counts: dict[str, Any] = {
                "solved": int(solved.sum()),
                "of": len(solved),
                "cost": figures(float(np.median(cost))) if len(cost) else 0,
            }
            if solution.path is not None:
                folds = solution.path.folds
                counts |= {"folds_mean": figures(float(folds.mean())), "folds_max": int(folds.max())}
                ends = np.bincount(solution.path.end, minlength=len(deqcore.PathEnd))
                counts |= {end.name: int(ends[end]) for end in deqcore.PathEnd if ends[end] and end}
            if not plan.quick:
                solved_there, cost_there = REFERENCE[name][PROBLEMS.index((n, gain))]
                counts |= {"reference_solved": solved_there, "reference_cost": cost_there or 0}
            yield case(f"roots, tanh of gain {gain}", name, np.float64, len(solved), n, 1, counts=counts)


def table() -> str:
    """In Markdown: ours, and the reference in brackets."""
    found = {(line["width"], line["problem"].split()[-1], line["method"]): line["counts"] for line in cases(Plan())}
    lines = ["| n, gain | " + " | ".join(REFERENCE) + " | folds mean / max |"]
    lines.append("|" + " --- |" * (len(REFERENCE) + 2))
    for n, gain in PROBLEMS:
        cells = []
        for name in REFERENCE:
            own = found[n, str(gain), name]
            cost, cost_there = own["cost"] or "-", own["reference_cost"] or "-"
            cells.append(f"{own['solved']} / {cost} ({own['reference_solved']} / {cost_there})")
        arclength = found[n, str(gain), "arclength"]
        folds = f"{arclength['folds_mean']:g} / {arclength['folds_max']}"
        lines.append(f"| {n}, {gain} | " + " | ".join(cells) + f" | {folds} |")
    return "\n".join(lines)


WORK = {
    "arclength, LU": "arclength",
    "arclength, GMRES": "arclength",
    "natural, LU": "natural",
    "Newton": "newton",
    "Anderson": "anderson",
    "Picard": "picard",
}


def lines_of_the_pictures() -> Iterator[dict[str, Any]]:
    """One path with its folds, all its evaluations; residuals and rows solved against work."""
    problems = draw(50, 4.0, DRAWS)
    found = solve("arclength", problems, record=True)
    assert found.path is not None

    def back(row: int) -> float:  # how far a path goes back in lambda, if it is one for a picture
        points = found.path.points(row)
        lam = points.lam[points.accepted]
        shown = 2 <= found.path.folds[row] <= 4 and len(lam) < 120
        return -float(np.minimum(np.diff(lam[lam <= 1]), 0).sum()) if shown else 0.0

    row = max(range(DRAWS), key=back)
    points = found.path.points(row)
    turning = points.z[points.accepted & (points.lam > 0.3)]
    component = int(np.argmax(np.abs(np.diff(turning, axis=0)).sum(axis=0)))
    yield {
        "picture": "path", "n": 50, "gain": 4.0, "row": row, "component": component,
        "folds": int(found.path.folds[row]), "lam": points.lam.round(6).tolist(),
        "z": points.z[:, component].round(6).tolist(),
        "slope": [None if np.isnan(slope) else round(float(slope), 6) for slope in points.slope],
        "corrections": points.corrections.tolist(), "stage": points.stage.tolist(),
        "accepted": points.accepted.tolist(), "rejected": points.rejected.tolist(),
    }  # fmt: skip
    at = np.unique(np.geomspace(1, 60000, 160).astype(int))
    for label, name in WORK.items():
        shared: dict[str, Any] = {"row_args": problems.data, "rtol": 1e-11, "on_failure": "return", "trace": True}
        if name in ("natural", "arclength"):
            tracker = deqcore.Tracker(name, dense_width=0 if label.endswith("GMRES") else 64, max_solves=20000)
            solution = deqcore.follow(f, problems.z0, jvp=jvp, tracker=tracker, max_steps=60000, **shared)
        else:
            shared |= {"method": deqcore.Newton(descent=False), "jvp": jvp} if name == "newton" else {"method": name}
            solution = deqcore.fixed_point(f, problems.z0, max_steps=60000, **shared)
        best = np.fmin.accumulate(solution.trace, axis=0)
        upto = np.append(at[at < len(best)], len(best))
        yield {
            "picture": "work", "label": label, "solved": int((solution.status == 0).sum()), "of": DRAWS,
            "steps": upto.tolist(), "residual": [figures(float(value)) for value in np.median(best[upto - 1], axis=1)],
            "solved_by": (best[upto - 1] < SMALL).sum(axis=1).tolist(),
        }  # fmt: skip


def chart(lines: list[dict[str, Any]], path_png: Path, work_png: Path) -> None:
    """The two pictures of docs/continuation.md."""
    from matplotlib.figure import Figure

    one = next(line for line in lines if line["picture"] == "path")
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    whole, close = figure.subplots(1, 2)
    for axes in (whole, close):
        draw_path(axes, one)
    lam, z = np.array(one["lam"]), np.array(one["z"])
    taken = np.array([slope is not None for slope in one["slope"]])
    slope = np.array([slope or 0.0 for slope in one["slope"]])[taken]
    folds = np.flatnonzero(slope[1:] * slope[:-1] < 0) + 1
    whole.plot(lam[taken][folds], z[taken][folds], "s", mfc="none", color="black", ms=9, label="fold")
    whole.axvline(1, color="0.85", lw=0.8, zorder=0)
    whole.legend(frameon=False, fontsize=8.5, loc="best")
    whole.set_title(f"{one['folds']} folds and {int(taken.sum()) - 1} points; n = {one['n']}, gain {one['gain']:g}")
    near = slice(max(folds[0] - 5, 0), folds[1] + 6)
    for axes, part, extra in ((whole, slice(None), 0.06), (close, near, 0.08)):
        for limit, values in ((axes.set_xlim, lam[taken][part]), (axes.set_ylim, z[taken][part])):
            margin = extra * max(float(np.ptp(values)), 1e-3)
            limit(values.min() - margin, values.max() + margin)
    close.set_title("Around the first two folds")
    figure.savefig(path_png, dpi=110)

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = ("#1f4e79", "#4f9bd9", "#2e8b57", "#b03030", "#d9822b", "0.45")
    for line, colour in zip((line for line in lines if line["picture"] == "work"), colours, strict=True):
        left.loglog(line["steps"], line["residual"], color=colour, lw=1.8, label=line["label"])
        right.semilogx(
            line["steps"], line["solved_by"], color=colour, lw=1.8, label=f"{line['label']}: {line['solved']}"
        )
    for axes in (left, right):
        axes.set(xlabel="evaluations and products per row", xlim=(10, 60000))
        axes.spines[["top", "right"]].set_visible(False)
    left.set(ylabel="best |f(z) - z| so far, median of 40 rows", ylim=(1e-12, 20), title="Residual against work")
    right.set(ylabel="rows solved to 1e-9", ylim=(-1, 41), title="n = 50, gain 4: rows solved of 40")
    right.legend(frameon=False, fontsize=8.5, loc="upper left")
    figure.savefig(work_png, dpi=110)


def draw_path(axes: Any, one: dict[str, Any]) -> None:
    """Points of a path, what was predicted for them, and what was given up."""
    lam, z = np.array(one["lam"]), np.array(one["z"])
    accepted, rejected = np.array(one["accepted"], bool), np.array(one["rejected"], bool)
    corrections, stage = np.array(one["corrections"]), np.array(one["stage"])
    predicted = (corrections == 0) & (stage == 1)
    for first in np.flatnonzero(predicted):  # a trial: its prediction and its corrections
        last = first + 1
        while last < len(lam) and corrections[last] > 0 and stage[last] == 1:
            last += 1
        failed = rejected[first:last].any()
        axes.plot(lam[first:last], z[first:last], color="#e0a0a0" if failed else "#d9822b", lw=0.8, zorder=2)
        if not failed:
            axes.plot(lam[first], z[first], "o", mfc="none", color="#d9822b", ms=5, zorder=2)
    axes.plot([], [], "o", mfc="none", color="#d9822b", ms=5, label="predicted, then corrected")
    axes.plot(lam[accepted], z[accepted], "o-", color="#1f4e79", lw=1.2, ms=3.2, zorder=3, label="on the path")
    axes.plot(lam[rejected], z[rejected], "x", color="#b03030", ms=6, zorder=4, label="given up: half the step")
    axes.set(xlabel="lambda", ylabel=f"component {one['component']} of z")
    axes.spines[["top", "right"]].set_visible(False)


def main() -> int:
    parser = argparse.ArgumentParser(description="Continuation on z = tanh(W z + b): table and pictures.")
    parser.add_argument("--table", action="store_true", help="print the table in Markdown")
    parser.add_argument("--out", type=Path, help="solve, and write what the pictures show as JSON lines")
    parser.add_argument("--chart", type=Path, nargs=3, metavar=("FILE", "PATH_PNG", "WORK_PNG"), help="draw, and end")
    options = parser.parse_args()
    if options.chart:
        text = options.chart[0].read_text("utf-8")
        chart([json.loads(line) for line in text.splitlines()], *options.chart[1:])
        return 0
    machine.prepare()  # may start anew
    if options.table:
        print(table())
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("".join(json.dumps(line) + "\n" for line in lines_of_the_pictures()), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
