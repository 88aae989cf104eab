# SPDX-License-Identifier: Apache-2.0
"""jaxopt, jitted and compiled beforehand: the batch as one vector, or vmap over rows.

Its tests are absolute: of the batch's norm, or of each row's under vmap, where all rows go on until the last has ended.
Its Anderson's ``ridge`` is absolute, 1e-5 by default.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ..contest import Contestant
from ..problems import STEPS, Problem

NEEDS = ("jax", "jaxopt")
INSTALL = "pip install jax jaxopt"
TUNED = ((1e-8, 6), (1e-11, 6))  # ridge, history_size


def dense(activation: str) -> Any:
    import jax.numpy as jnp

    act = jnp.tanh if activation == "tanh" else lambda y: jnp.maximum(y, 0)
    return lambda z, W, x: act(z @ W.T + x)


def solvers(problem: Problem, method: str) -> Iterator[Contestant]:
    import jax
    import jax.numpy as jnp
    import jaxopt

    W, x = jnp.asarray(problem.W), jnp.asarray(problem.x)
    f = dense(problem.activation)
    norms = np.linalg.norm(problem.x, axis=1)  # of the order of |z|; the tolerances tried see to the rest
    of_batch, of_row = float(np.linalg.norm(norms)), float(norms.min())

    def solver(tolerance: Any, **options: Any) -> Any:
        if method != "anderson":
            return jaxopt.FixedPointIteration(f, tol=tolerance, maxiter=STEPS)
        return jaxopt.AndersonAcceleration(f, tol=tolerance, maxiter=STEPS, **options)

    def whole(W: Any, x: Any, tolerance: Any, **options: Any) -> Any:
        return solver(tolerance, **options).run(jnp.zeros_like(x), W, x).params

    def by_rows(W: Any, x: Any, tolerance: Any, **options: Any) -> Any:
        return jax.vmap(lambda c: whole(W, c, tolerance, **options))(x)

    settings: list[tuple[str, Any, float, dict[str, Any]]] = [("default", whole, of_batch, {})]
    if problem.rows > 1:
        settings.append(("vmap", by_rows, of_row, {}))
    for ridge, history in TUNED if method == "anderson" else ():
        options = {"ridge": ridge, "history_size": history}
        settings.append((f"ridge {ridge:g}, history {history}", whole, of_batch, options))
        if problem.rows > 1 and ridge == TUNED[-1][0]:
            settings.append((f"vmap, ridge {ridge:g}, history {history}", by_rows, of_row, options))
    for setting, run, scale, options in settings:
        compiled = jax.jit(partial(run, **options))
        yield Contestant(
            "jaxopt", setting, partial(_ready, compiled, W, x, scale), default=setting == "default"
        )  # fmt: skip


def _ready(compiled: Any, W: Any, x: Any, scale: float, tolerance: float) -> Any:
    return compiled(W, x, tolerance * scale).block_until_ready()


def trainers(problem: Problem) -> Iterator[Contestant]:
    import jax
    import jax.numpy as jnp
    import jaxopt
    from jaxopt import linear_solve

    W, x = jnp.asarray(problem.W), jnp.asarray(problem.x)
    f = dense(problem.activation)
    scale = float(np.linalg.norm(problem.x))

    def by_iteration(matvec: Any, b: Any, tolerance: Any) -> Any:
        plain = jaxopt.FixedPointIteration(
            lambda u: u + matvec(u) - b, tol=tolerance * scale, maxiter=STEPS, implicit_diff=False
        )  # A = J' - 1
        return plain.run(-b).params

    def bicgstab(matvec: Any, b: Any, tolerance: Any) -> Any:
        return linear_solve.solve_bicgstab(matvec, b, tol=tolerance, maxiter=STEPS)

    def gmres(matvec: Any, b: Any, tolerance: Any) -> Any:
        return linear_solve.solve_gmres(matvec, b, tol=tolerance, maxiter=STEPS)

    def step(tolerance: Any, W: Any, x: Any, forward: Any, backward: Any) -> Any:
        solve = forward(
            f,
            tol=tolerance * scale,
            maxiter=STEPS,
            implicit_diff_solve=None if backward is None else partial(backward, tolerance=tolerance),
        )

        def loss(W: Any) -> Any:
            z = solve.run(jnp.zeros_like(x), W, x).params
            return (z * z).sum(), z

        dW, z = jax.grad(loss, has_aux=True)(W)
        return z, dW

    anderson = partial(jaxopt.AndersonAcceleration, ridge=1e-8, history_size=6)
    settings: list[tuple[str, Any, Any]] = [
        ("default", jaxopt.AndersonAcceleration, None),
        ("plain; backward by bicgstab", jaxopt.FixedPointIteration, bicgstab),
        ("plain; backward by gmres", jaxopt.FixedPointIteration, gmres),
        ("plain; backward plain", jaxopt.FixedPointIteration, by_iteration),
        ("ridge 1e-08, history 6; backward plain", anderson, by_iteration),
    ]
    for setting, forward, backward in settings:
        compiled = jax.jit(partial(step, forward=forward, backward=backward))

        def run(tolerance: float, compiled: Any = compiled) -> Any:
            return jax.block_until_ready(compiled(tolerance, W, x))

        yield Contestant("jaxopt", setting, run, default=setting == "default", value=_arrays)


def _arrays(answer: Any) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(part) for part in answer)
