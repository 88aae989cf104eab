# SPDX-License-Identifier: Apache-2.0
"""Short solves on CuPy arrays that run every kernel at odd shapes: what compute-sanitizer watches."""

from __future__ import annotations

import cupy
import numpy as np

import deqcore


def solves(rows: int, width: int, dtype: type) -> int:
    """Forward and backward; -> how many."""
    rng = np.random.default_rng(rows * width)
    slopes = cupy.asarray(np.linspace(0.05, 0.9, rows)[:, None].astype(dtype))
    x = cupy.asarray(rng.standard_normal((rows, width)).astype(dtype))
    z0 = cupy.zeros((rows, width), dtype)

    def f(z, slopes, x):
        return slopes * cupy.tanh(z) + x

    def vjp(z, v, slopes):
        return v * slopes

    done = 0
    for method in (
        deqcore.Picard(),
        deqcore.Picard(beta=0.7),
        deqcore.Anderson(),
        deqcore.Anderson(beta=0.8),
        deqcore.AndersonTypeI(history=3, safeguard=10),
        deqcore.SteadyState(),
    ):
        for options in ({"look_every": 1}, {"retire": False}, {"norm": np.inf, "trace": True}):
            shared = {"method": method, "max_steps": 12, "on_failure": "return", **options}
            deqcore.fixed_point(f, z0, row_args=(slopes, x), **shared)
            done += 1
            if not isinstance(method, deqcore.SteadyState):
                deqcore.adjoint(vjp, z0, x, row_args=(slopes,), **shared)
                done += 1

    def jvp(z, v, slopes, x):
        return slopes * (1 - cupy.tanh(z) ** 2) * v

    for newton in (deqcore.NewtonKrylov(restart=3), deqcore.Newton()):
        if isinstance(newton, deqcore.Newton) and width > 64:
            continue
        for given in (jvp, None):
            for options in ({"look_every": 1}, {"retire": False}, {"norm": np.inf, "trace": True}):
                shared = {
                    "row_args": (slopes, x),
                    "method": newton,
                    "max_steps": 100,
                    "on_failure": "return",
                    **options,
                }
                deqcore.fixed_point(f, z0, jvp=given, **shared)
                deqcore.root(lambda z, slopes, x: z * z + slopes * x + 1, z0 + 1, **shared)
                done += 2

    for options in (
        {},
        {"control": "batch"},
        {"method": "bogacki_shampine", "relax": True},
        {"method": deqcore.RK4(3)},
    ):
        shared = {"row_args": (slopes, x), "max_steps": 40, "on_failure": "return", **options}
        deqcore.odeint(lambda t, z, slopes, x: f(z, slopes, x) - z + t * 0, z0, [0.0, 0.3, 1.0], **shared)
        done += 1

    def cancel(progress):
        raise StopIteration

    deqcore.fixed_point(f, z0, row_args=(slopes, x), callback=cancel, on_failure="return")
    deqcore.fixed_point(lambda z: z + dtype(1e30), z0, max_steps=12, on_failure="return")
    return done + 2


def main() -> None:
    shapes = [(1, 1), (7, 33), (5, 1025), (70, 129)]
    done = sum(solves(*shape, dtype) for shape in shapes for dtype in (np.float32, np.float64))
    print(f"{done} solves")


if __name__ == "__main__":
    main()
