# SPDX-License-Identifier: Apache-2.0
"""Maps with known properties, and references in plain NumPy at float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit, ndtr

Array = Any

# activation and derivative, as formulas at float64
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "identity": (lambda x: x, np.ones_like),
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(x.dtype)),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sigmoid": (expit, lambda x: expit(x) * expit(-x)),
    "softplus": (lambda x: np.logaddexp(0, x), expit),
    "gelu": (lambda x: x * ndtr(x), lambda x: ndtr(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)),
    "silu": (lambda x: x * expit(x), lambda x: expit(x) * (1 + x * expit(-x))),
    "sin": (np.sin, np.cos),
}
# The steepest slope of gelu, silu is 1.13, 1.10: with weights of norm 0.8 every one of these maps contracts.
WEIGHT_NORM = 0.8

# (rows, width): one row, one element, odd widths beside the vector lengths, more rows than a tile has
SHAPES = [(1, 1), (1, 7), (3, 1), (5, 17), (2, 64), (33, 31)]


def weights(rng: np.random.Generator, width: int, norm: float = WEIGHT_NORM, symmetric: bool = False) -> Array:
    """A random float64 matrix of the given spectral norm."""
    W = rng.standard_normal((width, width))
    if symmetric:
        W = W + W.T
    return W * (norm / np.linalg.norm(W, 2))


def iid(gain: float, seed: int, width: int) -> tuple[Array, Array]:
    """W and b of z = tanh(W z + b): independent normal entries scaled by gain / sqrt(width), b ~ N(0, 1)."""
    rng = np.random.default_rng(seed)
    return gain * rng.standard_normal((width, width)) / np.sqrt(width), rng.standard_normal(width)


def outliers(top: float, seed: int, width: int) -> tuple[Array, Array]:
    """W and b of z = tanh(W z + b), as trained layers have them: 12 eigenvalues from top to 0.6 top, every third
    negative, the rest uniform in +-0.3, in a random orthogonal basis, and a skew-symmetric part; b ~ 0.1 N(0, 1)."""
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((width, width)))
    leading = np.linspace(top, 0.6 * top, 12)
    leading[2::3] *= -1
    W = (Q * np.concatenate([leading, rng.uniform(-0.3, 0.3, width - 12)])) @ Q.T
    A = rng.standard_normal((width, width))
    return W + 0.2 * (A - A.T) / np.sqrt(2 * width), 0.1 * rng.standard_normal(width)


def dense_value(activation: str, W: Array, z: Array, c: Array) -> Array:
    a, _ = ACTIVATIONS[activation]
    return a(z @ W.T + c)


def dense_jacobians(activation: str, W: Array, z: Array, c: Array) -> Array:
    """J of every row, (rows, width, width)."""
    _, slope = ACTIVATIONS[activation]
    return slope(z @ W.T + c)[:, :, None] * W


def dense_fixed_point(activation: str, W: Array, c: Array) -> Array:
    """The fixed points by Newton with dense Jacobians at float64; every row of c has one."""
    W, c = np.asarray(W, np.float64), np.atleast_2d(np.asarray(c, np.float64))
    z = np.zeros_like(c)
    eye = np.eye(len(W))
    for _ in range(300):  # Picard brings Newton near enough for the kinks of relu
        z = dense_value(activation, W, z, c)
    for _ in range(3):
        g = dense_value(activation, W, z, c) - z
        z = z + np.linalg.solve(eye - dense_jacobians(activation, W, z, c), g[:, :, None])[:, :, 0]
    return z


def dense_adjoint(activation: str, W: Array, z: Array, c: Array, g: Array) -> Array:
    """u = J' u + g by dense solves, row by row."""
    eye = np.eye(len(W))
    J = dense_jacobians(activation, W, z, np.broadcast_to(c, z.shape))
    return np.linalg.solve(np.swapaxes(eye - J, 1, 2), g[:, :, None])[:, :, 0]


def matvec(v: Array, A: Array) -> Array:
    """A v, with a matrix for each row."""
    return np.einsum("rij,rj->ri", A, v)


def systems(
    rng: np.random.Generator, rows: int, width: int, spread: Any = 0.3, dtype: type = np.float64
) -> tuple[Array, Array, Array]:
    """A = I + spread / sqrt(width) Gaussian for each row, b, and the float64 solution of A x = b."""
    A = (np.eye(width) + spread / np.sqrt(width) * rng.standard_normal((rows, width, width))).astype(dtype)
    b = rng.standard_normal((rows, width)).astype(dtype)
    return A, b, np.linalg.solve(A.astype(float), b.astype(float)[:, :, None])[:, :, 0]


def independent_rows(W: Array) -> Callable[[Array, Array], Array]:
    """z -> y / sqrt(1 + y^2) with y = W z + c, whose rows have the same bits alone and in a batch.

    Every sum runs over k in one order, and +, *, / and sqrt round alike wherever an element stands; a library's matrix
    product or tanh need not.
    """

    def f(z: Array, c: Array) -> Array:
        y = c.copy()
        for k in range(z.shape[1]):
            y = y + z[:, k : k + 1] * W[:, k]
        return y / np.sqrt(1 + y * y)

    return f


def independent_products(W: Array) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """J' v and J v of that map, with the same property."""

    def slope(z: Array, c: Array) -> Array:
        y = c.copy()
        for k in range(z.shape[1]):
            y = y + z[:, k : k + 1] * W[:, k]
        root = np.sqrt(1 + y * y)
        return 1 / (root * root * root)

    def times(v: Array, matrix: Array) -> Array:  # row k of the matrix belongs to element k of v
        product = np.zeros_like(v)
        for k in range(v.shape[1]):
            product = product + v[:, k : k + 1] * matrix[k]
        return product

    return lambda z, v, c: times(slope(z, c) * v, W), lambda z, v, c: slope(z, c) * times(v, W.T)


def power_of_two(count: int) -> bool:
    return count & (count - 1) == 0


def relative_error(got: Array, expected: Array) -> float:
    """|got - expected| / |expected| over everything, at float64; for 0 expected, |got|."""
    expected = np.asarray(expected, np.float64)
    return float(np.linalg.norm(got - expected) / (np.linalg.norm(expected) or 1.0))


class Recorder:
    """A map that remembers what it was asked: the counted calls, the rows, the residuals."""

    def __init__(self, f: Callable[..., Array]) -> None:
        self.f = f
        self.counts: list[int] = []
        self.residuals: list[Array] = []  # per call, by position
        self.rows: list[Array] = []
        self.points: list[Array] = []

    def __call__(self, z: Array, *args: Array, rows: Array | None = None) -> Array:
        answer = self.f(z, *args)
        block = (answer - z).astype(np.float64).reshape(len(z) if z.ndim > 1 else 1, -1)
        self.counts.append(len(block))
        self.residuals.append(np.linalg.norm(block, axis=1))
        self.points.append(z.copy())
        if rows is not None:
            self.rows.append(rows.copy())
        return answer


class Asked:
    """A product that remembers its questions."""

    def __init__(self, product: Callable[..., Array]) -> None:
        self.product = product
        self.seen: list[Array] = []

    def __call__(self, v: Array, *args: Array, **rows: Array) -> Array:
        assert not v.flags.writeable
        self.seen.append(v.copy())
        return self.product(v, *args, **rows)
