# SPDX-License-Identifier: Apache-2.0
"""deqcore: the native dense map, and the same map as a NumPy callable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import deqcore

from ..contest import Contestant
from ..problems import STEPS, Problem


def in_numpy(problem: Problem) -> Callable[..., np.ndarray]:
    """The map on float32 arrays, with one temporary."""
    transposed = problem.W.T
    act: Any = np.tanh if problem.activation == "tanh" else partial(np.maximum, 0)

    def f(z: np.ndarray, x: np.ndarray) -> np.ndarray:
        y = z @ transposed
        y += x
        return act(y, out=y)

    return f


def solvers(problem: Problem, method: str) -> Iterator[Contestant]:
    f, z0 = in_numpy(problem), np.zeros_like(problem.x)

    def solve(tolerance: float, map_: Any, threads: int) -> np.ndarray:
        return deqcore.fixed_point(
            map_, z0, row_args=(problem.x,), method=method, rtol=tolerance, max_steps=STEPS, threads=threads,
            on_failure="return",
        ).value  # fmt: skip

    shared: dict[str, Any] = {"per_row": True}
    for products in ("full", "bfloat16"):
        layer = deqcore.maps.Dense(problem.W, problem.activation, products=products)
        native = partial(solve, map_=layer, threads=problem.threads)
        yield Contestant("deqcore", f"native, {products} products", native, always=True, **shared)
    for blas in dict.fromkeys((1, problem.threads)):  # the threads work in the products, or in the solver
        yield Contestant(
            "deqcore NumPy callable",
            f"{blas} in the products",
            partial(solve, map_=f, threads=problem.threads + 1 - blas),
            blas=blas,
            **shared,
        )


def trainers(problem: Problem) -> Iterator[Contestant]:
    z0 = np.zeros_like(problem.x)

    def step(tolerance: float, forward: str, backward: str, layer: Any) -> tuple[np.ndarray, np.ndarray]:
        layer.update(problem.W)
        found = layer.value_and_gradients(
            z0, problem.x, target=z0, method=forward, rtol=tolerance, max_steps=STEPS, adjoint_method=backward,
            adjoint_rtol=tolerance, adjoint_max_steps=STEPS, threads=problem.threads, on_failure="return",
        )  # fmt: skip
        dW = found.dW
        dW *= 2  # of |z|^2 / 2, so far
        return found.forward.value, dW

    settings = (
        ("anderson", "gmres", "full"),
        ("anderson", "anderson", "full"),
        ("picard", "picard", "full"),
        ("picard", "picard", "bfloat16"),
    )
    for forward, backward, products in settings:
        layer = deqcore.maps.Dense(problem.W, problem.activation, products=products)
        yield Contestant(
            "deqcore",
            f"{forward}, backward by {backward}, {products} products",
            partial(step, forward=forward, backward=backward, layer=layer),
            per_row=True,
            always=True,
            value=tuple,
        )


def packing(problem: Problem) -> Callable[[], None]:
    """New weights, as training has at every step."""
    layer = deqcore.maps.Dense(problem.W, problem.activation)
    return lambda: layer.update(problem.W)
