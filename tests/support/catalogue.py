# SPDX-License-Identifier: Apache-2.0
"""Hard problems: maps whose fixed point is wanted, f(z) = z, and systems whose root is wanted, F(z) = 0.

Every function takes rows, (rows, width), and treats each alone; where rows differ, what differs is in ``row_args``.
Jacobians are J = df/dz of the function as it is given. All is float64, and the scalings are those of the sources.

    for entry in CATALOGUE:             # or TUNING, REPORTING: every other one of each family, in the order declared
        problem = entry.draw(rng)       # random problems are drawn afresh, the others are always the same
        z0 = problem.start(10)          # 10 times the standard start; where that is 0, 10 in every element

Sources, as named at each problem:
    reference   the generators of the reference counts in the literature on equilibrium models
    MGH         More, Garbow and Hillstrom 1981, ACM Trans. Math. Softw. 7, 17-41: formulas, starts, and 10 and 100
                times the start. The square forms of Wood, Watson and the variably dimensioned function are gradients
                of half their sums of squares (Wood's second and fourth equation twice that)
    W&K         Winston and Kolter 2020, "Monotone operator equilibrium networks"
    T&E         Trefethen and Embree 2005, "Spectra and Pseudospectra"
    Kelley      Kelley 2003, "Solving Nonlinear Equations with Newton's Method"
    elementary  solutions by a closed formula
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any

import numpy as np
from scipy import fft
from scipy.special import lambertw

Array = Any
Rng = np.random.Generator
SCALES = (1, 10, 100)  # of starts


@dataclass(frozen=True, eq=False)
class Problem:
    """One problem as drawn.

    Attributes:
        kind: ``"fixed_point"``, f(z) = z, or ``"root"``, f(z) = 0.
        f, jvp: f(z, *row_args), and J v as jvp(z, v, *row_args).
        vjp, jacobian: J' v and the matrices (rows, width, width), where they are cheap.
        standard: the standard start, (rows, width).
        solutions: known ones, each (rows, width); there may be others.
        solvable: whether there is a solution.
        bound: without a solution, the residual's norm is at least this at every point.
    """

    kind: str
    source: str
    f: Callable[..., Array]
    jvp: Callable[..., Array]
    standard: Array
    row_args: tuple[Array, ...] = ()
    vjp: Callable[..., Array] | None = None
    jacobian: Callable[..., Array] | None = None
    solutions: tuple[Array, ...] = ()
    solvable: bool = True
    bound: float = 0.0
    name: str = ""
    family: str = ""

    @property
    def rows(self) -> int:
        return len(self.standard)

    @property
    def width(self) -> int:
        return self.standard.shape[1]

    def start(self, scale: float = 1) -> Array:
        """The standard start times ``scale``; where that is 0 and the scale is not 1, ``scale`` in every element.

        (The rule of the published test driver of MGH.)
        """
        if scale == 1 or self.standard.any():
            return scale * self.standard
        return np.full_like(self.standard, scale)

    def residual(self, z: Array, *row_args: Array) -> Array:
        """What shall be 0: f(z) - z or F(z); without row_args, of all rows."""
        value = self.f(z, *(row_args or self.row_args))
        return value - z if self.kind == "fixed_point" else value


@dataclass(frozen=True)
class Entry:
    """A problem of the catalogue, by name."""

    name: str
    family: str
    make: Callable[..., Problem] = field(repr=False)

    @property
    def random(self) -> bool:
        """Whether two draws differ."""
        return not isinstance(self.make, Fixed)

    def draw(self, rng: Rng) -> Problem:
        problem = self.make(rng)
        functions = {name: getattr(problem, name) for name in ("f", "jvp", "vjp", "jacobian")}
        quietly = {name: quiet(function) for name, function in functions.items() if function is not None}
        return replace(problem, name=self.name, family=self.family, **quietly)


def quiet(function: Callable[..., Array]) -> Callable[..., Array]:
    """Overflow far from a solution is a value like any other."""

    @wraps(function)
    def evaluate(*operands: Array) -> Array:
        with np.errstate(all="ignore"):
            return function(*operands)

    return evaluate


def by_columns(jvp: Callable[..., Array]) -> Callable[..., Array]:
    """The Jacobians of narrow rows from J v, one v per column."""

    def jacobian(z: Array, *row_args: Array) -> Array:
        rows, width = z.shape
        repeated = [np.repeat(a, width, axis=0) for a in (z, *row_args)]
        columns = jvp(repeated[0], np.tile(np.eye(width), (rows, 1)), *repeated[1:])
        return columns.reshape(rows, width, width).transpose(0, 2, 1)

    return jacobian


def transposed(jacobian: Callable[..., Array]) -> Callable[..., Array]:
    return lambda z, v, *row_args: np.einsum("ri,rij->rj", v, jacobian(z, *row_args))


# Layers z = a(W z + x) ------------------------------------------------------------------------------------------------

SLOPES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "identity": (lambda y: y, np.ones_like),
    "tanh": (np.tanh, lambda y: 1 - np.tanh(y) ** 2),
    "relu": (lambda y: np.maximum(y, 0), lambda y: (y > 0).astype(float)),
}


def layer(activation: str, W: Array, x: Array, source: str, **known: Any) -> Problem:
    a, slope = SLOPES[activation]
    return Problem(
        "fixed_point",
        source,
        lambda z, x: a(z @ W.T + x),
        lambda z, v, x: slope(z @ W.T + x) * (v @ W.T),
        row_args=(x,),
        vjp=lambda z, v, x: (slope(z @ W.T + x) * v) @ W,
        jacobian=lambda z, x: slope(z @ W.T + x)[:, :, None] * W,
        **{"standard": np.zeros_like(x), **known},
    )


def iid(gain: float, rng: Rng, width: int = 400) -> Problem:
    """Independent normal weights: their eigenvalues fill the disc of radius ``gain``."""
    W = gain * rng.standard_normal((width, width)) / np.sqrt(width)
    return layer("tanh", W, rng.standard_normal((2, width)), "reference")


def outlier_weights(top: float, rng: Rng, width: int, nonsymmetric: bool = False) -> Array:
    """Twelve eigenvalues from ``top`` to 0.6 ``top``, every third negative, the rest within 0.3."""
    Q, _ = np.linalg.qr(rng.standard_normal((width, width)))
    leading = np.linspace(top, 0.6 * top, 12)
    leading[2::3] *= -1
    W = (Q * np.concatenate([leading, rng.uniform(-0.3, 0.3, width - 12)])) @ Q.T
    if nonsymmetric:
        A = rng.standard_normal((width, width))
        W = W + 0.2 * (A - A.T) / np.sqrt(2 * width)
    return W


def outliers(top: float, nonsymmetric: bool, rng: Rng, activation: str = "tanh", width: int = 400) -> Problem:
    W = outlier_weights(top, rng, width, nonsymmetric)
    return layer(activation, W, 0.1 * rng.standard_normal((2, width)), "reference")


def relu_of_norm(norm: float, rng: Rng, width: int = 100) -> Problem:
    W = rng.standard_normal((width, width))
    return layer("relu", W * (norm / np.linalg.norm(W, 2)), rng.standard_normal((2, width)), "elementary")


def sawtooth(levels: int, rng: Rng) -> Problem:
    """A tent map applied ``levels`` times: W is nilpotent, its powers grow to 4^levels."""
    W, b = np.zeros((2 * levels, 2 * levels)), np.tile([0, -0.5], levels)
    for j in range(2, 2 * levels, 2):
        W[j : j + 2, j - 2 : j] = [2, -4]
    x = np.zeros((2, 2 * levels)) + b
    x[:, :2] += rng.uniform(0, 1, (2, 1))
    solution = np.zeros_like(x)
    for _ in range(levels):
        solution = np.maximum(solution @ W.T + x, 0)
    return layer("relu", W, x, "tent maps as layers", solutions=(solution,))


def triangular(gain: float, rng: Rng, width: int = 100) -> Problem:
    """A random triangular matrix: small eigenvalues and a condition that grows exponentially with the width."""
    W = gain * np.triu(rng.standard_normal((width, width))) / np.sqrt(width)
    return layer("tanh", W, 0.1 * rng.standard_normal((2, width)), "T&E section 38")


def grcar(radius: float, rng: Rng, width: int = 100) -> Problem:
    """Grcar's matrix, ones on the diagonal and three above, -1 below, scaled to a spectral radius."""
    G = sum(np.eye(width, k=k) for k in range(4)) - np.eye(width, k=-1)
    W = G * (radius / np.abs(np.linalg.eigvals(G)).max())
    return layer("tanh", W, 0.1 * rng.standard_normal((2, width)), "T&E section 7")


def linear_with_solution(W: Array, rng: Rng, source: str) -> Problem:
    solution = rng.standard_normal((2, len(W)))
    return layer("identity", W, solution - solution @ W.T, source, solutions=(solution,))


def jordan(eigenvalue: float, rng: Rng, width: int = 20) -> Problem:
    """One Jordan block: Picard's error grows to 1e5 before it falls."""
    return linear_with_solution(eigenvalue * np.eye(width) + np.eye(width, k=1), rng, "T&E section 51")


def symmetric(leading: float, rng: Rng, width: int = 100) -> tuple[Array, Array]:
    """W with one eigenvalue given and the others within 0.9, and the eigenvector."""
    Q, _ = np.linalg.qr(rng.standard_normal((width, width)))
    return (Q * np.concatenate([[leading], rng.uniform(-0.9, 0.9, width - 1)])) @ Q.T, Q[:, 0]


def near_singular(gap: float, rng: Rng) -> Problem:
    return linear_with_solution(symmetric(1 - gap, rng)[0], rng, "elementary")


def singular_root(rng: Rng) -> Problem:
    """The only root is 0, and I - J is singular there: plain steps and Newton's both slow down."""
    W, _ = symmetric(1.0, rng)
    x = np.zeros((2, len(W)))
    return layer("tanh", W, x, "elementary", standard=rng.standard_normal(x.shape), solutions=(np.zeros_like(x),))


def monotone(m: float, rng: Rng, width: int = 100) -> Problem:
    """W = (1 - m) I - A'A + B - B' with A and B normal, deviation 0.7 / sqrt(width): I - W >= m I."""
    A, B = 0.7 * rng.standard_normal((2, width, width)) / np.sqrt(width)
    W = (1 - m) * np.eye(width) - A.T @ A + B - B.T
    return layer("relu", W, rng.standard_normal((2, width)), "W&K, reference")


def ramp(exponent: int, rng: Rng) -> Problem:
    """clip(x / delta, 0, 1), delta = 2^-exponent, by two relu units with weights within 1: Picard needs 1 / delta."""
    delta = 2.0**-exponent
    x = np.concatenate([rng.uniform(-delta, 2 * delta, (2, 1)), rng.uniform(-1, 1, (2, 1))])
    solution = np.hstack([np.clip(x / delta, 0, 1), np.maximum(x - delta, 0)])
    W = np.array([[1 - delta, -1], [0, 0]])
    return layer("relu", W, np.hstack([x, x - delta]), "steep ramps as layers", solutions=(solution,))


# Elementwise maps and rows of different speed -------------------------------------------------------------------------


def elementwise(f: Callable[..., Array], slope: Callable[..., Array], source: str, **known: Any) -> Problem:
    def product(z: Array, v: Array, *row_args: Array) -> Array:
        return slope(z, *row_args) * v

    return Problem("fixed_point", source, f, product, vjp=product, jacobian=by_columns(product), **known)


NONE: dict[str, Any] = {"standard": np.zeros((2, 16)), "solvable": False}


def drift(rng: Rng) -> Problem:
    sign = np.sign(rng.standard_normal((2, 16)))
    return elementwise(
        lambda z, sign: z + sign * (1 + 0.1 * np.tanh(z)),
        lambda z, sign: 1 + sign * 0.1 / np.cosh(z) ** 2,
        "elementary",
        row_args=(sign,),
        bound=0.9 * 4,
        **NONE,
    )


def wave() -> Problem:
    return elementwise(
        lambda z: z + 1 + 0.1 * np.sin(z), lambda z: 1 + 0.1 * np.cos(z), "elementary", bound=0.9 * 4, **NONE
    )


def inconsistent(rng: Rng) -> Problem:
    """Linear with the eigenvalue 1, and a right side with a component 1 along it."""
    W, q = symmetric(1.0, rng, 16)
    x = 0.3 * rng.standard_normal((2, 16))
    return layer("identity", W, x + (1 - x @ q)[:, None] * q, "elementary", bound=1.0, **NONE)


def hyperbola() -> Problem:
    """sqrt(z^2 + 1): the residual falls to 0 at infinity, and is exactly 0 in floating point beyond 1e8."""
    return elementwise(lambda z: np.hypot(z, 1), lambda z: z / np.hypot(z, 1), "elementary", **NONE)


def quadratic(rng: Rng) -> Problem:
    """z^2 + c: one root attracts, one repels, and beyond it Picard runs away."""
    c = rng.uniform(0.05, 0.2, (2, 8))
    root = np.sqrt(1 - 4 * c)
    return elementwise(
        lambda z, c: z * z + c,
        lambda z, c: 2 * z,
        "elementary",
        standard=np.zeros_like(c),
        row_args=(c,),
        solutions=((1 - root) / 2, (1 + root) / 2),
    )


def exponential(rng: Rng) -> Problem:
    """c exp(z) with c below 1 / e."""
    c = rng.uniform(0.1, 0.3, (2, 8))
    return elementwise(
        lambda z, c: c * np.exp(z),
        lambda z, c: c * np.exp(z),
        "elementary",
        standard=np.zeros_like(c),
        row_args=(c,),
        solutions=tuple(-lambertw(-c, k).real for k in (0, -1)),
    )


def two_wells(rng: Rng, width: int = 50) -> Problem:
    """tanh with the weights 2 s s' / width, s a vector of signs: fixed points 0, m s and -m s with m = tanh(2 m)."""
    s = np.sign(rng.standard_normal(width))
    m = 1.0
    for _ in range(60):
        m = math.tanh(2 * m)
    solutions = tuple(np.tile(c * s, (2, 1)) for c in (0.0, m, -m))
    start = 0.1 * rng.standard_normal((2, width))
    W = 2 * np.outer(s, s) / width
    return layer("tanh", W, np.zeros((2, width)), "elementary", standard=start, solutions=solutions)


def skewed(activation: str, rng: Rng, rows: int = 8, width: int = 128) -> Problem:
    """s_i a(W z) + x_i with W symmetric of norm 1: rows from fast to slow, 1 - s_i from 0.9 to 0.001."""
    a, slope = SLOPES[activation]
    W = rng.standard_normal((width, width))
    W = (W + W.T) / np.linalg.norm(W + W.T, 2)
    s = (1 - np.geomspace(0.9, 0.001, rows))[:, None]
    return Problem(
        "fixed_point",
        "reference",
        lambda z, s, x: s * a(z @ W) + x,
        lambda z, v, s, x: s * slope(z @ W) * (v @ W),
        vjp=lambda z, v, s, x: (s * slope(z @ W) * v) @ W,
        jacobian=lambda z, s, x: (s * slope(z @ W))[:, :, None] * W,
        standard=np.zeros((rows, width)),
        row_args=(s, 0.1 * rng.standard_normal((rows, width))),
    )


# Classical systems ----------------------------------------------------------------------------------------------------


def system(
    f: Callable[[Array], Array], jvp: Callable[[Array, Array], Array], start: Any, *solutions: Any, source: str = "MGH"
) -> Problem:
    jacobian = by_columns(jvp)
    return Problem(
        "root",
        source,
        f,
        jvp,
        np.array([start], float),
        vjp=transposed(jacobian),
        jacobian=jacobian,
        solutions=tuple(np.array([solution], float) for solution in solutions),
    )


def columns(*columns: Array) -> Array:
    return np.stack(np.broadcast_arrays(*columns), axis=1)


def rosenbrock() -> Problem:
    def f(z: Array) -> Array:
        x, y = z.T
        return columns(1 - x, 10 * (y - x * x))

    def jvp(z: Array, v: Array) -> Array:
        x, _ = z.T
        return columns(-v[:, 0], 10 * (v[:, 1] - 2 * x * v[:, 0]))

    return system(f, jvp, [-1.2, 1], [1, 1])


def powell_singular() -> Problem:
    def f(z: Array) -> Array:
        a, b, c, d = z.T
        return columns(a + 10 * b, math.sqrt(5) * (c - d), (b - 2 * c) ** 2, math.sqrt(10) * (a - d) ** 2)

    def jvp(z: Array, v: Array) -> Array:
        a, b, c, d = z.T
        s, t, u, w = v.T
        third, fourth = 2 * (b - 2 * c) * (t - 2 * u), 2 * math.sqrt(10) * (a - d) * (s - w)
        return columns(s + 10 * t, math.sqrt(5) * (u - w), third, fourth)

    return system(f, jvp, [3, -1, 0, 1], [0, 0, 0, 0])


def powell_badly_scaled() -> Problem:
    def f(z: Array) -> Array:
        x, y = z.T
        return columns(1e4 * x * y - 1, np.exp(-x) + np.exp(-y) - 1.0001)

    def jvp(z: Array, v: Array) -> Array:
        x, y = z.T
        s, t = v.T
        return columns(1e4 * (s * y + x * t), -np.exp(-x) * s - np.exp(-y) * t)

    return system(f, jvp, [0, 1], [POWELL_X, 1e-4 / POWELL_X])


def wood() -> Problem:
    def f(z: Array) -> Array:
        a, b, c, d = z.T
        first, second = b - a * a, d - c * c
        return columns(
            -200 * a * first - (1 - a),
            200 * first + 20.2 * (b - 1) + 19.8 * (d - 1),
            -180 * c * second - (1 - c),
            180 * second + 20.2 * (d - 1) + 19.8 * (b - 1),
        )

    def jvp(z: Array, v: Array) -> Array:
        a, b, c, d = z.T
        s, t, u, w = v.T
        first, second = t - 2 * a * s, w - 2 * c * u
        return columns(
            -200 * (s * (b - a * a) + a * first) + s,
            200 * first + 20.2 * t + 19.8 * w,
            -180 * (u * (d - c * c) + c * second) + u,
            180 * second + 20.2 * w + 19.8 * t,
        )

    return system(f, jvp, [-3, -1, -3, -1], [1, 1, 1, 1])


def helical_valley() -> Problem:
    def f(z: Array) -> Array:
        x, y, height = z.T
        # turns in (-1/4, 3/4), as published: the cut is the negative second axis
        turns = np.where(
            x == 0, np.where(y < 0, -0.25, 0.25), np.arctan(y / np.where(x == 0, 1, x)) / (2 * np.pi) + 0.5 * (x < 0)
        )
        return columns(10 * (height - 10 * turns), 10 * (np.hypot(x, y) - 1), height)

    def jvp(z: Array, v: Array) -> Array:
        x, y, _ = z.T
        s, t, u = v.T
        square = x * x + y * y
        return columns(
            10 * (u - 10 * (x * t - y * s) / (2 * np.pi * square)), 10 * (x * s + y * t) / np.sqrt(square), u
        )

    return system(f, jvp, [-1, 0, 0], [1, 0, 0])


def watson(width: int) -> Problem:
    t = np.arange(1, 30)[:, None] / 29
    k = np.arange(width)
    powers = t**k
    slopes = k * t ** np.maximum(k - 1, 0)  # of the powers

    def f(z: Array) -> Array:
        p = z @ powers.T
        rest = z @ slopes.T - p * p - 1
        value = rest @ slopes - 2 * (rest * p) @ powers
        last = z[:, 1] - z[:, 0] ** 2 - 1
        value[:, 0] += z[:, 0] * (1 - 2 * last)
        value[:, 1] += last
        return value

    def jvp(z: Array, v: Array) -> Array:
        p, q = z @ powers.T, v @ powers.T
        rest, change = z @ slopes.T - p * p - 1, v @ slopes.T - 2 * p * q
        value = change @ slopes - 2 * (change * p + rest * q) @ powers
        last, moved = z[:, 1] - z[:, 0] ** 2 - 1, v[:, 1] - 2 * z[:, 0] * v[:, 0]
        value[:, 0] += v[:, 0] * (1 - 2 * last) - 2 * z[:, 0] * moved
        value[:, 1] += moved
        return value

    return system(f, jvp, np.zeros(width))


def chebyquad(width: int) -> Problem:
    """Mean of the shifted Chebyshev polynomials at the points, less their integrals."""
    order = np.arange(1, width + 1)
    integrals = np.where(order % 2 == 0, -1 / np.maximum(order**2 - 1.0, 1), 0)

    def polynomials(z: Array, v: Array) -> tuple[Array, Array]:
        y, dy = 2 * z - 1, 2 * v
        T, dT = [np.ones_like(y), y], [np.zeros_like(y), dy]
        for _ in range(width - 1):
            dT.append(2 * (dy * T[-1] + y * dT[-1]) - dT[-2])
            T.append(2 * y * T[-1] - T[-2])
        return np.stack(T[1:], axis=1).mean(axis=2), np.stack(dT[1:], axis=1).mean(axis=2)

    def f(z: Array) -> Array:
        return polynomials(z, z)[0] - integrals

    return system(f, lambda z, v: polynomials(z, v)[1], order / (width + 1))


def brown_almost_linear(width: int) -> Problem:
    def f(z: Array) -> Array:
        value = z + z.sum(axis=1, keepdims=True) - (width + 1)
        value[:, -1] = z.prod(axis=1) - 1
        return value

    def jvp(z: Array, v: Array) -> Array:
        value = v + v.sum(axis=1, keepdims=True)
        one = np.ones((len(z), 1))
        before = np.cumprod(np.hstack([one, z[:, :-1]]), axis=1)
        after = np.cumprod(np.hstack([one, z[:, :0:-1]]), axis=1)[:, ::-1]
        value[:, -1] = (before * after * v).sum(axis=1)
        return value

    return system(f, jvp, np.full(width, 0.5), np.ones(width))


def neighbours(z: Array) -> tuple[Array, Array]:
    """The elements before and after, 0 beyond the ends."""
    padded = np.pad(z, ((0, 0), (1, 1)))
    return padded[:, :-2], padded[:, 2:]


def discrete_boundary_value(width: int) -> Problem:
    h = 1 / (width + 1)
    t = h * np.arange(1, width + 1)

    def second_difference(z: Array) -> Array:
        before, after = neighbours(z)
        return 2 * z - before - after

    return system(
        lambda z: second_difference(z) + h * h / 2 * (z + t + 1) ** 3,
        lambda z, v: second_difference(v) + 1.5 * h * h * (z + t + 1) ** 2 * v,
        t * (t - 1),
    )


def discrete_integral_equation(width: int) -> Problem:
    h = 1 / (width + 1)
    t = h * np.arange(1, width + 1)
    kernel = h / 2 * np.where(t[:, None] >= t, (1 - t[:, None]) * t, t[:, None] * (1 - t))
    return system(
        lambda z: z + (z + t + 1) ** 3 @ kernel.T,
        lambda z, v: v + (3 * (z + t + 1) ** 2 * v) @ kernel.T,
        t * (t - 1),
    )


def trigonometric(width: int) -> Problem:
    i = np.arange(1, width + 1)

    def f(z: Array) -> Array:
        cosine = np.cos(z)
        return width - cosine.sum(axis=1, keepdims=True) + i * (1 - cosine) - np.sin(z)

    def jvp(z: Array, v: Array) -> Array:
        sine = np.sin(z)
        return (sine * v).sum(axis=1, keepdims=True) + (i * sine - np.cos(z)) * v

    return system(f, jvp, np.full(width, 1 / width), np.zeros(width))


def variably_dimensioned(width: int) -> Problem:
    j = np.arange(1, width + 1)

    def f(z: Array) -> Array:
        total = (z - 1) @ j
        return z - 1 + (total + 2 * total**3)[:, None] * j

    def jvp(z: Array, v: Array) -> Array:
        total = (z - 1) @ j
        return v + ((1 + 6 * total**2) * (v @ j))[:, None] * j

    return system(f, jvp, 1 - j / width, np.ones(width))


def broyden_tridiagonal(width: int) -> Problem:
    def f(z: Array) -> Array:
        before, after = neighbours(z)
        return (3 - 2 * z) * z - before - 2 * after + 1

    def jvp(z: Array, v: Array) -> Array:
        before, after = neighbours(v)
        return (3 - 4 * z) * v - before - 2 * after

    return system(f, jvp, -np.ones(width))


def broyden_banded(width: int) -> Problem:
    """Five neighbours below the diagonal and one above it."""
    band = sum(np.eye(width, k=k) for k in (-5, -4, -3, -2, -1, 1))
    return system(
        lambda z: z * (2 + 5 * z * z) + 1 - (z * (1 + z)) @ band.T,
        lambda z, v: (2 + 15 * z * z) * v - ((1 + 2 * z) * v) @ band.T,
        -np.ones(width),
    )


# Partial differential equations on n x n inner points of the unit square, 0 on its edge -------------------------------


def on_grid(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Of (rows, n, n) padded by 0, for rows of n^2."""

    def apply(u: Array) -> Array:
        n = math.isqrt(u.shape[1])
        return function(np.pad(u.reshape(-1, n, n), ((0, 0), (1, 1), (1, 1)))).reshape(u.shape)

    return apply


@on_grid
def minus_laplacian(u: Array) -> Array:
    """h^2 times the five-point operator."""
    return 4 * u[:, 1:-1, 1:-1] - u[:, 2:, 1:-1] - u[:, :-2, 1:-1] - u[:, 1:-1, 2:] - u[:, 1:-1, :-2]


@on_grid
def gradient_sum(u: Array) -> Array:
    """2 h (u_x + u_y) by central differences; its transpose is its negative."""
    return u[:, 2:, 1:-1] - u[:, :-2, 1:-1] + u[:, 1:-1, 2:] - u[:, 1:-1, :-2]


def inverse_laplacian(u: Array) -> Array:
    """By sines: the transform is its own inverse."""
    n = math.isqrt(u.shape[1])
    c = 2 - 2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1))
    grid = u.reshape(-1, n, n)
    waves = fft.dstn(grid, type=1, axes=(1, 2), norm="ortho") / (c[:, None] + c)
    return fft.dstn(waves, type=1, axes=(1, 2), norm="ortho").reshape(u.shape)


def bratu(strength: float, n: int, preconditioned: bool) -> Problem:
    """-Laplace u = strength exp(u), times h^2. Solvable to a strength of 6.8; there are two solutions then."""
    c = strength / (n + 1) ** 2
    source, zeros = "Kelley; the customary scaling by h^2", np.zeros((1, n * n))
    if preconditioned:
        return Problem(
            "fixed_point",
            source,
            lambda u: inverse_laplacian(c * np.exp(u)),
            lambda u, v: inverse_laplacian(c * np.exp(u) * v),
            zeros,
            vjp=lambda u, v: c * np.exp(u) * inverse_laplacian(v),
        )

    def product(u: Array, v: Array) -> Array:
        return minus_laplacian(v) - c * np.exp(u) * v

    return Problem("root", source, lambda u: minus_laplacian(u) - c * np.exp(u), product, zeros, vjp=product)


def convection_diffusion(n: int, preconditioned: bool, strength: float = 20) -> Problem:
    """-Laplace u + 20 u (u_x + u_y) = g, times h^2, with g such that u = 10 x y (1 - x) (1 - y) exp(x^4.5) solves it.

    (The discrete equations, exactly.)
    """
    c = strength / (2 * (n + 1))
    t = np.arange(1, n + 1) / (n + 1)
    x, y = t[:, None], t[None, :]
    solution = (10 * x * y * (1 - x) * (1 - y) * np.exp(x**4.5)).reshape(1, -1)
    g = minus_laplacian(solution) + c * solution * gradient_sum(solution)

    def convection(u: Array, v: Array) -> Array:
        return c * (v * gradient_sum(u) + u * gradient_sum(v))

    def turned(u: Array, v: Array) -> Array:
        return c * (v * gradient_sum(u) - gradient_sum(u * v))

    source, known = "Kelley section 3.7", {"standard": np.zeros_like(solution), "solutions": (solution,)}
    if preconditioned:
        return Problem(
            "fixed_point",
            source,
            lambda u: inverse_laplacian(g - c * u * gradient_sum(u)),
            lambda u, v: -inverse_laplacian(convection(u, v)),
            vjp=lambda u, v: -turned(u, inverse_laplacian(v)),
            **known,
        )
    return Problem(
        "root",
        source,
        lambda u: minus_laplacian(u) + c * u * gradient_sum(u) - g,
        lambda u, v: minus_laplacian(v) + convection(u, v),
        vjp=lambda u, v: minus_laplacian(v) + turned(u, v),
        **known,
    )


# The catalogue --------------------------------------------------------------------------------------------------------

POWELL_X = 1.0981593296998175e-05  # 1e4 x y = 1 and exp(-x) + exp(-y) = 1.0001
GRIDS = (16, 64, 256)


class Fixed(partial):
    """What makes a problem without anything random."""

    def __call__(self, rng: Rng) -> Problem:
        return self.func(*self.args)


def families() -> dict[str, dict[str, Callable[[Rng], Problem]]]:
    return {
        "tanh": {f"iid {gain}": partial(iid, gain) for gain in (0.5, 0.9, 1.2, 1.5)},
        "relu": {
            "norm 0.9": partial(relu_of_norm, 0.9),
            "norm 0.99": partial(relu_of_norm, 0.99),
            "relu outliers 0.99": partial(outliers, 0.99, False, activation="relu"),
            "sawtooth 2^5": partial(sawtooth, 5),
            "sawtooth 2^10": partial(sawtooth, 10),
        },
        "outliers": {
            "0.9 symmetric": partial(outliers, 0.9, False),
            "0.99 symmetric": partial(outliers, 0.99, False),
            "0.99 nonsymmetric": partial(outliers, 0.99, True),
            "1.05 nonsymmetric": partial(outliers, 1.05, True),
            "1.05 symmetric": partial(outliers, 1.05, False),
        },
        "nonnormal": {
            "triangular 2": partial(triangular, 2.0),
            "triangular 4": partial(triangular, 4.0),
            "grcar 0.9": partial(grcar, 0.9),
            "grcar 1.5": partial(grcar, 1.5),
            "jordan 0.5": partial(jordan, 0.5),
            "jordan 0.9": partial(jordan, 0.9, width=10),
        },
        "near singular": {
            "gap 1e-4": partial(near_singular, 1e-4),
            "gap 1e-6": partial(near_singular, 1e-6),
            "singular at the root": singular_root,
        },
        "no fixed point": {
            "drift": drift,
            "wave": Fixed(wave),
            "inconsistent": inconsistent,
            "hyperbola": Fixed(hyperbola),
        },
        "several fixed points": {"quadratic": quadratic, "exponential": exponential, "two wells": two_wells},
        "skewed rows": {"skewed tanh": partial(skewed, "tanh"), "skewed linear": partial(skewed, "identity")},
        "monotone": {"m = 0.1": partial(monotone, 0.1), "m = 0.02": partial(monotone, 0.02)},
        "steep ramps": {f"delta 2^-{exponent}": partial(ramp, exponent) for exponent in (6, 10, 14, 20)},
        "classical": {
            "rosenbrock": Fixed(rosenbrock),
            "powell singular": Fixed(powell_singular),
            "powell badly scaled": Fixed(powell_badly_scaled),
            "wood": Fixed(wood),
            "helical valley": Fixed(helical_valley),
            "watson 6": Fixed(watson, 6),
            "watson 9": Fixed(watson, 9),
            **{f"chebyquad {n}": Fixed(chebyquad, n) for n in (5, 6, 7, 9)},
            **{f"brown almost linear {n}": Fixed(brown_almost_linear, n) for n in (10, 30)},
            **{f"discrete boundary value {n}": Fixed(discrete_boundary_value, n) for n in (10, 100)},
            **{f"discrete integral equation {n}": Fixed(discrete_integral_equation, n) for n in (100, 10)},
            "trigonometric 10": Fixed(trigonometric, 10),
            "variably dimensioned 10": Fixed(variably_dimensioned, 10),
            **{f"broyden tridiagonal {n}": Fixed(broyden_tridiagonal, n) for n in (10, 100)},
            **{f"broyden banded {n}": Fixed(broyden_banded, n) for n in (100, 10)},
        },
        "grids": {
            **{f"bratu {c} on {n}": Fixed(bratu, c, n, False) for c in (1, 6) for n in GRIDS},
            **{f"convection on {n}": Fixed(convection_diffusion, n, False) for n in GRIDS},
        },
        "preconditioned grids": {
            **{f"preconditioned bratu {c} on {n}": Fixed(bratu, c, n, True) for c in (1, 6) for n in GRIDS},
            **{f"preconditioned convection on {n}": Fixed(convection_diffusion, n, True) for n in GRIDS},
        },
    }


CATALOGUE = tuple(Entry(name, family, draw) for family, drawn in families().items() for name, draw in drawn.items())
TUNING = tuple(entry for name in families() for entry in [e for e in CATALOGUE if e.family == name][::2])
REPORTING = tuple(entry for entry in CATALOGUE if entry not in TUNING)
HALVES = {"tuning": TUNING, "reporting": REPORTING, "both": CATALOGUE}
