# SPDX-License-Identifier: Apache-2.0
"""Integration of dz/dt = tanh(W z + x) - z, |W|_2 = 0.9: evaluations, errors and times beside other libraries; one
stiff row among many; memory of gradients.

A peer takes part where it is installed: SciPy, torchdiffeq (with torch), diffrax (with jax). All run in turn.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import deqcore
from harness.measure import Plan, case, in_turn

ROWS, WIDTH, END, TOLERANCE = 64, 512, 10.0, 1e-6
THREADS = 2


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    yield from batches(plan)
    yield from stiff(plan)
    yield from memory(plan)


def batches(plan: Plan) -> Iterator[dict[str, Any]]:
    """Must: evaluations within 10 % of diffrax's, at no larger error; the native map at most 1.4 times its floor."""
    rows, width = (3, 20) if plan.quick else (ROWS, WIDTH)
    rng = np.random.default_rng(0)
    W = rng.standard_normal((width, width))
    W *= 0.9 / np.linalg.norm(W, 2)
    x = rng.standard_normal((rows, width))
    exact = deqcore.odeint(
        deqcore.maps.Dense(W), np.zeros_like(x), [0, END], row_args=(x,), relax=True, rtol=1e-12, atol=1e-12
    ).value[-1]
    W, x = W.astype(np.float32), x.astype(np.float32)
    layer, z0 = deqcore.maps.Dense(W), np.zeros_like(x)
    options = {"row_args": (x,), "rtol": TOLERANCE, "atol": TOLERANCE, "control": "batch", "threads": THREADS}

    def native() -> tuple[int, Any]:
        solution = deqcore.odeint(layer, z0, [0, END], relax=True, **options)
        return solution.nfe, solution.value[-1]

    def called() -> tuple[int, Any]:
        solution = deqcore.odeint(lambda t, z, x: np.tanh(z @ W.T + x) - z, z0, [0, END], **options)
        return solution.nfe, solution.value[-1]

    contestants = {"native map": native, "callable": called, **peers(W, x, z0)}
    found = {name: body() for name, body in contestants.items()}
    evaluations = found["native map"][0]
    answer = np.empty_like(x)

    def map_alone() -> None:
        for _ in range(evaluations):
            layer._native.value(z0, x, answer, THREADS)

    times = in_turn(plan, THREADS, [*contestants.values(), map_alone], wall=True, case_seconds=60)
    floor = float(np.median(times[:, -1]))
    for i, name in enumerate(contestants):
        nfe, value = found[name]
        error = float(abs(np.asarray(value, np.float64) - exact).max())
        yield case(
            f"relaxation to t = 10 as one system, rtol = atol = 1e-6: {name}",
            "dormand_prince",
            np.float32,
            rows,
            width,
            THREADS,
            counts={"nfe": nfe},
            samples=times[:, i],
            clock="wall",
            floor=(floor, f"{evaluations} evaluations of the native map"),
            parts={"largest error": error},
        )


def peers(W: Any, x: Any, z0: Any) -> dict[str, Callable[[], tuple[int, Any]]]:
    """Those that are installed."""
    found: dict[str, Callable[[], tuple[int, Any]]] = {}
    if importlib.util.find_spec("scipy"):
        from scipy.integrate import solve_ivp

        def by_scipy() -> tuple[int, Any]:
            solution = solve_ivp(
                lambda t, y: (np.tanh(y.reshape(x.shape) @ W.T + x) - y.reshape(x.shape)).ravel(),
                (0, END),
                z0.ravel(),
                rtol=TOLERANCE,
                atol=TOLERANCE,
            )
            return solution.nfev, solution.y[:, -1].reshape(x.shape)

        found["SciPy"] = by_scipy
    if importlib.util.find_spec("torchdiffeq"):
        import torch
        import torchdiffeq

        torch.set_num_threads(THREADS)
        weight, condition, start = (torch.from_numpy(array) for array in (W, x, z0))
        times = torch.tensor([0.0, END])

        def by_torchdiffeq() -> tuple[int, Any]:
            calls = [0]

            def f(t: Any, z: Any) -> Any:
                calls[0] += 1
                return torch.tanh(z @ weight.T + condition) - z

            with torch.no_grad():
                value = torchdiffeq.odeint(f, start, times, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5")[-1]
            return calls[0], value.numpy()

        found["torchdiffeq"] = by_torchdiffeq
    if importlib.util.find_spec("diffrax"):
        import diffrax
        import jax
        import jax.numpy as jnp

        weights, conditions, begin = jnp.asarray(W), jnp.asarray(x), jnp.asarray(z0)
        term = diffrax.ODETerm(lambda t, z, args: jnp.tanh(z @ weights.T + conditions) - z)
        controller = diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE)

        @jax.jit
        def solve(z: Any) -> Any:
            solution = diffrax.diffeqsolve(
                term, diffrax.Dopri5(), 0.0, END, None, z, stepsize_controller=controller, max_steps=4096
            )
            return solution.ys[0], solution.stats["num_steps"]

        def by_diffrax() -> tuple[int, Any]:
            value, tried = solve(begin)
            value.block_until_ready()
            return 6 * int(tried) + 2, np.asarray(value)

        found["diffrax"] = by_diffrax
    return found


def stiff(plan: Plan) -> Iterator[dict[str, Any]]:
    """Must: the other rows' evaluations do not change."""
    rows = 16 if plan.quick else 256
    rates = np.ones((rows, 1))

    def f(t: Any, z: Any, k: Any) -> Any:
        return -k * (z - np.sin(t))

    def solve(control: str) -> deqcore.OdeSolution:
        return deqcore.odeint(f, np.zeros((rows, 8)), [0, 1], row_args=(rates,), control=control)

    easy = solve("rows")
    rates[rows // 2] = 1000.0
    mixed, together = solve("rows"), solve("batch")
    others = np.arange(rows) != rows // 2
    counts = {
        "evaluations of the others without the stiff row": int(easy.evaluations[others].sum()),
        "with it": int(mixed.evaluations[others].sum()),
        "of the stiff row": int(mixed.evaluations[rows // 2]),
        "rows asked": mixed.rows_asked,
        "rows asked as one system": together.rows_asked,
    }
    yield case("one stiff row", "dormand_prince", np.float64, rows, 8, 1, counts=counts)


def memory(plan: Plan) -> Iterator[dict[str, Any]]:
    """Must: the adjoint's memory does not grow with the steps, and plan() says so. Measured by tracemalloc."""
    import tracemalloc

    rows, width = (4, 50) if plan.quick else (32, 256)
    rng = np.random.default_rng(0)
    A, u, z0 = rng.standard_normal((width, width)) / width, rng.standard_normal((rows, width)), np.zeros((rows, width))

    def f(t: Any, z: Any, u: Any) -> Any:
        return np.tanh(z @ A.T + u)

    def vjp(t: Any, z: Any, a: Any, u: Any) -> Any:
        D = a * (1 - np.tanh(z @ A.T + u) ** 2)
        return D @ A, (D,), ()

    for gradient in ("adjoint", "solver"):
        for steps in (4, 16, 64):
            method = deqcore.RK4(steps)
            z = deqcore.odeint(f, z0, [0, 1], row_args=(u,), method=method).value
            tracemalloc.start()
            deqcore.odeint_adjoint(f, vjp, z, [0, 1], z0 + 1, row_args=(u,), method=method, gradient=gradient)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            planned = deqcore.plan(rows, width, np.float64, method=method, gradient=gradient).scratch_bytes
            yield case(
                f"memory of the gradient by {gradient!r}, {steps} steps",
                "rk4",
                np.float64,
                rows,
                width,
                1,
                counts={"planned bytes": planned},
                parts={"peak bytes": float(peak)},
            )
