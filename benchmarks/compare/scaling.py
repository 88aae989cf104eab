# SPDX-License-Identifier: Apache-2.0
"""Time and bytes against rows, width, history and threads; and beside peers at 10,000 rows and at width 100,000.

The native map z = tanh(W z + x) of norm 0.9 by Anderson. Its times are held against the law

    T = N (2 w^2 a + (2 h + 12) 4 w b) + c        N row steps, width w, history h

whose a (seconds per operation of the products), b (per byte of a step) and c (of a solve) are fitted, not negative, to
all cases of one number of threads, in relative error. Width 100,000 has no dense W: there z = 0.9 tanh(z shifted by
one) + x, as a callable, whose memory is held against plan().
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import deqcore
from harness.measure import Plan, case, figures, in_turn

from . import peers, problems
from .contest import Contestant, by_rows, contest
from .problems import RTOL, SLACK, STEPS, THREADS
from .solves import measure as solve_beside_peers

ROWS = [(rows, 64) for rows in (1, 10, 100, 1000, 10_000)]
WIDTHS = [(64, width) for width in (64, 128, 256, 512, 1024, 2048)]
HISTORIES = (1, 3, 6, 12, 24)


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    lines = []
    for name, shapes in (("rows", ROWS), ("width", WIDTHS)):
        for rows, width in shapes[:1] if plan.quick else shapes:
            lines += native(plan, f"scaling with {name}", rows, width, 6)
    for history in HISTORIES[:1] if plan.quick else HISTORIES:
        rows, width = problems.QUICK[0] if plan.quick else (64, 512)
        lines += native(plan, f"scaling with history {history}", rows, width, history)
    for threads in (1, THREADS):
        held_against_law([line for line in lines if line["threads"] == threads])
    yield from lines
    rows, width = (6, 12) if plan.quick else (10_000, 64)
    yield from solve_beside_peers(plan, "many rows, tanh 0.9, anderson", problems.gaussian(rows, width), "anderson")
    yield from wide(plan, *((3, 40) if plan.quick else (8, 100_000)))


def native(plan: Plan, name: str, rows: int, width: int, history: int) -> list[dict[str, Any]]:
    """A line for each number of threads, timed in turn."""
    problem = problems.gaussian(rows, width)
    layer, z0 = deqcore.maps.Dense(problem.W), np.zeros_like(problem.x)
    method = deqcore.Anderson(history=history)

    def solve(threads: int) -> deqcore.Solution:
        return deqcore.fixed_point(
            layer, z0, row_args=(problem.x,), method=method, rtol=RTOL, max_steps=STEPS, threads=threads
        )

    counts = (1, THREADS)
    solutions = [solve(threads) for threads in counts]
    pause = partial(time.sleep, 0.0 if plan.quick else 0.002)
    bodies = [partial(solve, threads) for threads in counts]
    times = in_turn(plan, THREADS, bodies, before=[pause] * len(bodies), wall=True, case_seconds=1.5)
    medians = np.median(times, axis=0)
    lines = []
    for column, (threads, solution) in enumerate(zip(counts, solutions, strict=True)):
        steps = int(solution.steps.sum())
        per_row_step = float(medians[column]) / steps
        line = case(
            name, "anderson, native", np.float32, rows, width, threads, clock="wall",
            counts={"row steps": steps, "scratch bytes": solution.scratch_bytes},
            samples=times[:, column],
            parts={"per row and step": per_row_step, "flop/s of the products": 2 * width * width / per_row_step},
        )  # fmt: skip
        speedup = figures(float(medians[0] / medians[column]))
        lines.append(line | {"library": "deqcore", "history": history, "speedup": speedup})
    return lines


def held_against_law(lines: list[dict[str, Any]]) -> None:
    """Add to each line the seconds of the law, its coefficients, and the time over it."""
    steps, width, history, seconds = (
        np.array(values, float)
        for values in (
            [line["counts"]["row steps"] for line in lines],
            [line["width"] for line in lines],
            [line["history"] for line in lines],
            [line["seconds"]["median"] for line in lines],
        )
    )
    terms = np.stack([steps * 2 * width**2, steps * (2 * history + 12) * 4 * width, np.ones(len(lines))], 1)
    relative, kept = terms / seconds[:, None], [0, 1, 2]
    while True:  # terms that would be negative leave, one by one
        sizes = np.linalg.norm(relative[:, kept], axis=0)
        found = np.linalg.lstsq(relative[:, kept] / sizes, np.ones(len(lines)), rcond=None)[0] / sizes
        if found.min() >= 0 or len(kept) == 1:
            break
        kept.pop(int(np.argmin(found * sizes)))
    coefficients = np.zeros(3)
    coefficients[kept] = found
    for line, law in zip(lines, terms @ coefficients, strict=True):
        line["law"] = dict(zip("abc", map(figures, map(float, coefficients)), strict=True))
        line["over_law"] = figures(line["seconds"]["median"] / float(law))


def wide(plan: Plan, rows: int, width: int) -> Iterator[dict[str, Any]]:
    x = np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32)

    def image(z: np.ndarray, x: np.ndarray) -> np.ndarray:
        y = np.empty_like(z)
        np.tanh(z[:, :-1], out=y[:, 1:])
        np.tanh(z[:, -1:], out=y[:, :1])
        y *= 0.9
        y += x
        return y

    def residuals(z: np.ndarray) -> np.ndarray:
        f = image(z.astype(np.float64), x)
        return np.linalg.norm(f - z, axis=1) / np.linalg.norm(f, axis=1)

    found: dict[str, Any] = {}

    def ours(tolerance: float, threads: int) -> np.ndarray:
        found["solution"] = deqcore.fixed_point(
            image, np.zeros_like(x), row_args=(x,), method="anderson", rtol=tolerance, max_steps=STEPS,
            threads=threads, on_failure="return",
        )  # fmt: skip
        return found["solution"].value

    contestants = [Contestant("deqcore NumPy callable", "", partial(ours, threads=THREADS), per_row=True, always=True)]
    contestants += by_torchdeq(x) if peers.there("torchdeq") else []
    contestants += by_jaxopt(x) if peers.there("jaxopt") else []
    judge = by_rows(residuals, RTOL * SLACK)
    for line in contest(plan, "wide rows, anderson", contestants, judge, rows, width, THREADS):
        if line["library"].startswith("deqcore"):
            planned = deqcore.plan(rows, width, np.float32, method="anderson").scratch_bytes
            line["counts"] |= {"scratch bytes": found["solution"].scratch_bytes, "planned": planned}
        yield line


def by_torchdeq(x: np.ndarray) -> Iterator[Contestant]:
    import torch
    from torchdeq.solver.anderson import anderson_solver

    c, z0 = torch.from_numpy(x), torch.zeros(x.shape)

    def run(tolerance: float, lam: float) -> Any:
        with torch.no_grad():
            return anderson_solver(
                lambda z: 0.9 * torch.tanh(torch.roll(z, 1, 1)) + c, z0, max_iter=STEPS, tol=tolerance,
                stop_mode="rel", lam=lam,
            )[0]  # fmt: skip

    for lam in (1e-4, 1e-8):
        yield Contestant("torchdeq", f"lam {lam:g}, m 6", partial(run, lam=lam), per_row=True, default=lam == 1e-4)


def by_jaxopt(x: np.ndarray) -> Iterator[Contestant]:
    import jax
    import jax.numpy as jnp
    import jaxopt

    c, scale = jnp.asarray(x), float(np.linalg.norm(x))

    def run(x: Any, tolerance: Any, **options: Any) -> Any:
        f = lambda z, x: 0.9 * jnp.tanh(jnp.roll(z, 1, 1)) + x  # noqa: E731
        solver = jaxopt.AndersonAcceleration(f, tol=tolerance, maxiter=STEPS, **options)
        return solver.run(jnp.zeros_like(x), x).params

    for setting, options in (("default", {}), ("ridge 1e-08, history 6", {"ridge": 1e-8, "history_size": 6})):
        compiled = jax.jit(partial(run, **options))

        def solve(tolerance: float, compiled: Any = compiled) -> Any:
            return compiled(c, tolerance * scale).block_until_ready()

        yield Contestant("jaxopt", setting, solve, default=setting == "default")
