# SPDX-License-Identifier: Apache-2.0
"""Rows of very different speed: z = s_i tanh(W z) + x_i, W symmetric of norm 1, s_i uniform in 0.1..0.999, 256 x 512.

The floor is what the rows need: the sum of their steps, each at the cost that a step of a row has in a batch whose rows
all have the same speed and so end together, which is timed in turn with the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import deqcore
from harness.measure import Plan, figures

from . import peers
from .contest import Contestant, by_rows, contest
from .problems import RTOL, SLACK, THREADS

ROWS, WIDTH, STEPS = 256, 512, 20_000


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    rows, width = (3, 12) if plan.quick else (ROWS, WIDTH)
    rng = np.random.default_rng(0)
    A = rng.standard_normal((width, width))
    W = ((A + A.T) / np.linalg.norm(A + A.T, 2)).astype(np.float32)
    s = rng.uniform(0.1, 0.999, (rows, 1)).astype(np.float32)
    x = (0.1 * rng.standard_normal((rows, width))).astype(np.float32)

    def residuals(z: np.ndarray) -> np.ndarray:
        image = s * np.tanh(z.astype(np.float64) @ W) + x
        return np.linalg.norm(image - z, axis=1) / np.linalg.norm(image, axis=1)

    for method in ("anderson", "picard"):
        contestants = list(ours(W, s, x, method))
        if method == "anderson":  # plain steps of whole batches take the slowest row's thousands
            for name, offer in (("torchdeq", by_torchdeq), ("jaxopt", by_jaxopt)):
                if peers.there(name):
                    contestants += offer(W, s, x)
        needed, alike, of_alike = needs(W, s, x, method)
        lines = contest(
            plan, f"skewed batch, {method}", contestants, by_rows(residuals, RTOL * SLACK), rows, width, THREADS,
            beside=alike,
        )  # fmt: skip
        for line in lines:
            each = line["beside"] / of_alike
            line["floor"] = {"seconds": figures(needed * each), "by": "the steps that its rows need"}
            line["over_floor"] = figures(line["seconds"]["median"] / (needed * each))
            line["counts"]["row steps needed"] = needed
            yield line


def solve(W: np.ndarray, s: np.ndarray, x: np.ndarray, method: str, tolerance: float, threads: int) -> Any:
    def f(z: np.ndarray, s: np.ndarray, x: np.ndarray) -> np.ndarray:
        y = z @ W
        np.tanh(y, out=y)
        y *= s
        y += x
        return y

    return deqcore.fixed_point(
        f, np.zeros_like(x), row_args=(s, x), method=method, rtol=tolerance, max_steps=STEPS, threads=threads,
        on_failure="return",
    )  # fmt: skip


def needs(W: np.ndarray, s: np.ndarray, x: np.ndarray, method: str) -> tuple[int, Callable[[], Any], int]:
    """-> the sum of the steps of all rows; a solve whose rows all go on to the end, and the sum of its steps."""
    steps = int(solve(W, s, x, method, RTOL, THREADS).steps.sum())
    alike = partial(solve, W, np.full_like(s, 0.9), x, method, RTOL, THREADS)
    return steps, alike, int(alike().steps.sum())


def ours(W: np.ndarray, s: np.ndarray, x: np.ndarray, method: str) -> Iterator[Contestant]:
    def run(tolerance: float, threads: int) -> np.ndarray:
        return solve(W, s, x, method, tolerance, threads).value

    yield Contestant(
        "deqcore NumPy callable", "1 in the products", partial(run, threads=THREADS), per_row=True, always=True
    )


def by_torchdeq(W: np.ndarray, s: np.ndarray, x: np.ndarray) -> Iterator[Contestant]:
    import torch
    from torchdeq.solver.anderson import anderson_solver

    tW, ts, tx = (torch.from_numpy(a) for a in (W, s, x))
    z0 = torch.zeros(x.shape)

    def run(tolerance: float, **options: Any) -> Any:
        with torch.no_grad():
            return anderson_solver(
                lambda z: ts * torch.tanh(z @ tW) + tx, z0, max_iter=STEPS, tol=tolerance, stop_mode="rel", **options
            )[0]

    for lam in (1e-8, 1e-11):
        yield Contestant("torchdeq", f"lam {lam:g}, m 6", partial(run, lam=lam), per_row=True)


def by_jaxopt(W: np.ndarray, s: np.ndarray, x: np.ndarray) -> Iterator[Contestant]:
    import jax
    import jax.numpy as jnp
    import jaxopt

    jW, js, jx = (jnp.asarray(a) for a in (W, s, x))
    scale = float(np.linalg.norm(x, axis=1).min())

    def f(z: Any, s: Any, x: Any) -> Any:
        return s * jnp.tanh(z @ jW) + x

    def run(s: Any, x: Any, tolerance: Any, ridge: float) -> Any:
        def one(s: Any, x: Any) -> Any:
            solver = jaxopt.AndersonAcceleration(f, tol=tolerance, maxiter=STEPS, history_size=6, ridge=ridge)
            return solver.run(jnp.zeros_like(x), s, x).params

        return jax.vmap(one)(s, x)

    for ridge in (1e-8, 1e-11):
        compiled = jax.jit(partial(run, ridge=ridge))

        def solve_all(tolerance: float, compiled: Any = compiled) -> Any:
            return compiled(js, jx, tolerance * scale).block_until_ready()

        yield Contestant("jaxopt", f"vmap, ridge {ridge:g}, history 6", solve_all)
