# SPDX-License-Identifier: Apache-2.0
"""optimistix, jitted: fixed-point iteration, the only fixed-point solver it has; implicit gradients through lineax."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ..contest import Contestant
from ..problems import STEPS, Problem
from .with_jaxopt import dense

NEEDS = ("jax", "optimistix")
INSTALL = "pip install jax optimistix"


def solvers(problem: Problem, method: str) -> Iterator[Contestant]:
    if method != "picard":
        return
    import jax
    import jax.numpy as jnp
    import optimistix

    W, x = jnp.asarray(problem.W), jnp.asarray(problem.x)
    f = dense(problem.activation)

    def run(W: Any, x: Any, tolerance: Any, norm: Any) -> Any:
        solver = optimistix.FixedPointIteration(rtol=tolerance, atol=tolerance, norm=norm)
        return optimistix.fixed_point(
            lambda z, args: f(z, *args), solver, jnp.zeros_like(x), (W, x), max_steps=STEPS, throw=False
        ).value

    for setting, norm in (("default", optimistix.max_norm), ("rms norm", optimistix.rms_norm)):
        compiled = jax.jit(partial(run, norm=norm))

        def solve(tolerance: float, compiled: Any = compiled) -> Any:
            return compiled(W, x, tolerance).block_until_ready()

        yield Contestant("optimistix", setting, solve, default=setting == "default")


def trainers(problem: Problem) -> Iterator[Contestant]:
    import jax
    import jax.numpy as jnp
    import lineax
    import optimistix

    W, x = jnp.asarray(problem.W), jnp.asarray(problem.x)
    f = dense(problem.activation)

    def step(W: Any, x: Any, tolerance: Any, linear: Any) -> Any:
        solver = optimistix.FixedPointIteration(rtol=tolerance, atol=tolerance, norm=optimistix.rms_norm)
        backward = optimistix.ImplicitAdjoint(linear(rtol=tolerance, atol=tolerance) if linear else lineax.LU())

        def loss(W: Any) -> Any:
            z = optimistix.fixed_point(
                lambda z, args: f(z, *args), solver, jnp.zeros_like(x), (W, x), max_steps=STEPS, throw=False,
                adjoint=backward,
            ).value  # fmt: skip
            return (z * z).sum(), z

        dW, z = jax.grad(loss, has_aux=True)(W)
        return z, dW

    settings: list[tuple[str, Any]] = [
        ("backward by GMRES", partial(lineax.GMRES, norm=optimistix.rms_norm)),
        ("backward by BiCGStab", partial(lineax.BiCGStab, norm=optimistix.rms_norm)),
    ]
    if problem.x.size <= 2048:  # its default forms the Jacobian of the whole batch
        settings.append(("default", None))
    for setting, linear in settings:
        compiled = jax.jit(partial(step, linear=linear))

        def run(tolerance: float, compiled: Any = compiled) -> Any:
            return jax.block_until_ready(compiled(W, x, tolerance))

        yield Contestant(
            "optimistix", setting, run, default=setting == "default",
            value=lambda answer: tuple(np.asarray(part) for part in answer),
        )  # fmt: skip
