# SPDX-License-Identifier: Apache-2.0
"""The maps z = a(W z + x) that all libraries solve, and how good an answer truly is, in float64.

gaussian  W standard normal, scaled to a spectral norm; x ~ N(0, 1)
harder    eight slow directions, singular values 0.75 to 1, above a bulk of norm 0.5; the whole scaled to 0.99;
          x ~ N(2, 1)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RTOL = 1e-6  # asked of every row, relative to |f(z)|
SLACK = 1.1  # an answer up to this many times beyond it still counts
STEPS = 1000
THREADS = 2
SIZES = ((1, 64), (1, 1024), (32, 128), (64, 512), (256, 1024), (1024, 256))
QUICK = ((3, 20),)


@dataclass(frozen=True, eq=False)
class Problem:
    """W is width x width and x is rows x width, float32; ``threads`` is what every library may use."""

    W: np.ndarray
    x: np.ndarray
    activation: str
    threads: int = THREADS

    @property
    def rows(self) -> int:
        return self.x.shape[0]

    @property
    def width(self) -> int:
        return self.x.shape[1]

    def f(self, z: np.ndarray) -> np.ndarray:
        """The map in float64."""
        y = z.astype(np.float64) @ self.W.T.astype(np.float64) + self.x
        return np.tanh(y) if self.activation == "tanh" else np.maximum(y, 0)

    def residuals(self, z: np.ndarray) -> np.ndarray:
        """|f(z) - z| / |f(z)| of each row."""
        image = self.f(z)
        return np.linalg.norm(image - z, axis=1) / np.linalg.norm(image, axis=1)


def gaussian(rows: int, width: int, activation: str = "tanh", norm: float = 0.9) -> Problem:
    rng = np.random.default_rng(0)
    W = rng.standard_normal((width, width))
    W *= norm / np.linalg.norm(W, 2)
    return Problem(W.astype(np.float32), rng.standard_normal((rows, width)).astype(np.float32), activation)


def harder(rows: int, width: int) -> Problem:
    rng = np.random.default_rng(0)
    bulk = rng.standard_normal((width, width))
    bulk *= 0.5 / np.linalg.norm(bulk, 2)
    slow = min(8, width)
    left, _ = np.linalg.qr(rng.standard_normal((width, slow)))
    right, _ = np.linalg.qr(left + 0.25 * rng.standard_normal((width, slow)) / np.sqrt(width))
    W = (left * np.linspace(0.75, 1.0, slow)) @ right.T + bulk - left @ (left.T @ bulk)
    W *= 0.99 / np.linalg.norm(W, 2)
    return Problem(W.astype(np.float32), (rng.standard_normal((rows, width)) + 2).astype(np.float32), "relu")


def gradient_of_squares(problem: Problem) -> np.ndarray:
    """dL/dW of L = sum of z^2 in float64: z and u by iteration, u of a few rows held against a dense solve."""
    W = problem.W.astype(np.float64)
    z = iterated(problem.f, np.zeros(problem.x.shape))
    y = z @ W.T + problem.x
    d = 1 - z * z if problem.activation == "tanh" else (y > 0).astype(np.float64)
    u = iterated(lambda u: 2 * z + (d * u) @ W, 2 * z)
    for row in range(min(2, problem.rows)):
        dense = np.linalg.solve(np.eye(problem.width) - W.T * d[row], 2 * z[row])
        if np.linalg.norm(dense - u[row]) > 1e-10 * np.linalg.norm(dense):
            raise RuntimeError(f"row {row}: the iterated adjoint and the dense one differ")
    return (d * u).T @ z


def iterated(f, z: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The fixed point of a contraction, to the noise of float64."""
    for _ in range(5000):
        z, last = f(z), z
        if np.linalg.norm(z - last) <= 1e-14 * np.linalg.norm(z):
            return z
    raise RuntimeError("the reference did not converge")
