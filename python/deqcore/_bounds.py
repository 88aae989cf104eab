# SPDX-License-Identifier: Apache-2.0
"""How far a point is from the fixed point: bounds that hold where a named assumption does."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from ._arrays import describe
from ._dialogue import State
from ._options import keyword_options, real, refuse_unknown
from ._products import asked, host_state
from ._regularisers import _erfc, _sigmoid, _slope_and_curvature
from .maps import Dense

__all__ = ["ErrorBound", "error_bound"]

_EPS = float(np.finfo(np.float64).eps)

#: sup |a'| of each activation. gelu has it at sqrt(2), silu at 2.3994.
_STEEPEST = {
    "identity": 1.0,
    "relu": 1.0,
    "tanh": 1.0,
    "sigmoid": 0.25,
    "softplus": 1.0,
    "gelu": 1.1289041452,  # Phi(sqrt 2) + sqrt(2) phi(sqrt 2)
    "silu": 1.0998393201,
    "sin": 1.0,
}
#: sup |a''| of those whose slope does not jump.
_SHARPEST = {
    "identity": 0.0,
    "tanh": 0.7698003590,  # 4 / (3 sqrt 3), where tanh^2 = 1/3
    "sigmoid": 0.0962250449,  # 1 / (6 sqrt 3): an eighth of tanh's, for sigmoid(x) = (1 + tanh(x / 2)) / 2
    "softplus": 0.25,  # the steepest slope of sigmoid
    "gelu": 0.7978845609,  # 2 phi(0) = sqrt(2 / pi); a'' = (2 - x^2) phi turns at 0 and +-2
    "silu": 0.5,  # at 0
    "sin": 1.0,
}
#: Resolvents of subdifferentials: non-decreasing and 1-Lipschitz.
_PROXIMAL = ("identity", "relu", "tanh", "sigmoid", "softplus")

_VALUES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "softplus": lambda x: np.logaddexp(0, x),
    "gelu": lambda x: x * _erfc(-x / math.sqrt(2)) / 2,
    "silu": lambda x: x * _sigmoid(x),
    "sin": np.sin,
}


@dataclass(frozen=True, eq=False, repr=False)
class ErrorBound:
    """Bounds on the distance to a fixed point, from :func:`error_bound`; arrays have one entry per row.

    Attributes:
        bound: float64, \\|at - z*\\|_2 is at most this; infinite where the assumption gives no bound.
        kind: ``"contraction"``, ``"monotone"`` or ``"kantorovich"``.
        assumption: in words, what must hold for the bounds to be true.
        at: the points that the bounds are about, of the shape and dtype of z: z itself, or f(z) for ``"monotone"``.
        unique_within: float64, no other fixed point is nearer to ``at`` than this: infinite for the first two kinds, 0
            where there is no bound.
        noise: float64, what was allowed for the rounding error of f(z) in the dtype of z, in the 2-norm.
        constants: float64 each: ``L``; ``m`` and ``norm``; or ``beta``, ``eta``, ``gamma`` and ``h``.

    Example:
        >>> import numpy as np, deqcore
        >>> z = np.array([[2.5], [2.0]])                            # z* = 2, an error of 0.5 in the first row
        >>> bound = deqcore.error_bound(lambda z: 0.5 * z + 1, z, contraction=0.5)
        >>> bound.bound.round(6).tolist()
        [0.5, 0.0]
    """

    bound: np.ndarray
    kind: str
    assumption: str
    at: np.ndarray
    unique_within: np.ndarray
    noise: np.ndarray
    constants: dict[str, np.ndarray]

    def __repr__(self) -> str:
        """The first line of what :meth:`explain` says."""
        return f"<ErrorBound {self.explain().splitlines()[0]}>"

    def __str__(self) -> str:
        """What :meth:`explain` says."""
        return self.explain()

    def explain(self) -> str:
        """Say in plain words how far the rows are from their fixed points at most, and what that rests on.

        Example:
            >>> import numpy as np, deqcore
            >>> print(deqcore.error_bound(lambda z: 0.5 * z + 1, np.array([[2.5]]), contraction=0.5))
            contraction: |z - z*| is at most 0.5 (row 0), median 0.5, over 1 row.
            True if f is a contraction with factor L in the 2-norm of a row, wherever |x - z| <= bound.
        """
        rows = len(self.bound)
        point = "f(z)" if self.kind == "monotone" else "z"
        counted = f"{rows} row" if rows == 1 else f"{rows} rows"
        known = np.flatnonzero(np.isfinite(self.bound))
        if len(known):
            worst = int(known[np.argmax(self.bound[known])])
            line = (
                f"{self.kind}: |{point} - z*| is at most {self.bound[worst]:.2g} (row {worst}), median "
                f"{float(np.median(self.bound[known])):.2g}, over {counted}."
            )
        else:
            line = f"{self.kind}: no bound in any of {counted}."
        lines = [line]
        if 0 < len(known) < rows:
            without = np.flatnonzero(~np.isfinite(self.bound))
            shown = ", ".join(map(str, without[:5])) + (", ..." if len(without) > 5 else "")
            lines.append(f"No bound in {len(without)} of them (row{'s' if len(without) > 1 else ''} {shown}).")
        if len(known) < rows and self.kind == "kantorovich":
            lines.append("There h > 1/2, I - J is close to singular, or f(z) is not finite: solve to a tighter rtol.")
        return "\n".join([*lines, f"True if {self.assumption}."])


def error_bound(
    f: Callable[..., Any] | Dense,
    z: np.ndarray,
    *,
    args: tuple[Any, ...] = (),
    row_args: tuple[Any, ...] = (),
    contraction: Any = None,
    monotone: Any = None,
    kantorovich: Any = None,
    jvp: Callable[..., Any] | None = None,
    vjp: Callable[..., Any] | None = None,
    noise: Any = None,
    **unknown: NoReturn,
) -> ErrorBound:
    """Bound the distance of each row to its fixed point z*, by one of three theorems. Give exactly one.

    ``contraction=L``
        For \\|f(x) - f(y)\\| <= L \\|x - y\\| with L < 1: \\|z - z*\\| <= \\|f(z) - z\\| / (1 - L), and z* is the only
        fixed point (Banach). It is enough that f contracts within the bound around z.

    ``monotone=(m, norm)``
        For f(z) = a(W z + c) with slopes of a between 0 and 1, x' (I - W) x >= m \\|x\\|^2 with m > 0, and
        norm >= \\|W\\|_2: w = f(z) has \\|w - z*\\| <= (norm / m) \\|w - z\\|, and z* is the only fixed point. **This
        bound is for w, not for z**: w is ``ErrorBound.at``. W need not contract.

    ``kantorovich=gamma``
        For narrow rows of smooth maps. With beta >= \\|(I - J(z))^-1\\|, eta >= \\|(I - J(z))^-1 (f(z) - z)\\| and
        \\|J(x) - J(y)\\| <= gamma \\|x - y\\|: where h = beta gamma eta <= 1/2 there is a fixed point within
        (1 - sqrt(1 - 2h)) / (beta gamma) of z, and no other within (1 + sqrt(1 - 2h)) / (beta gamma). Nothing need
        contract. beta and eta are computed here, from J by width products and a singular value decomposition of each
        row: ``rows * width^2`` numbers, width^3 operations per row.

    ``"weights"`` in place of numbers takes them from a :class:`maps.Dense`: L = sup\\|a'\\| \\|W\\|_2; m from the
    eigenvalues of (W + W') / 2; gamma = sup\\|a''\\| \\|W\\|_2 max_i \\|W_i\\|_2, W_i the rows of W.

    ========  ========  =====  ====  =====  ======  ======  ========  ===
    a         identity  relu   tanh  sin    gelu    silu    softplus  sigmoid
    sup|a'|   1         1      1     1      1.1290  1.0999  1         1/4
    sup|a''|  0         jumps  0.7698 1     0.7979  1/2     1/4       0.0963
    monotone  yes       yes    yes   no     no      no      yes       yes
    ========  ========  =====  ====  =====  ======  ======  ========  ===

    Rounding: everything here is float64, with a margin for its rounding errors that is added to the bound. Of a
    :class:`maps.Dense` the value and J are computed anew in float64 and their errors bounded by
    (width + 2) eps (\\|W\\| \\|z\\| + \\|c\\|), element by element, so that the bound is about the exact map with
    these weights. The value of a callable is trusted to within ``noise``, and its products to the same relative error.
    LAPACK's singular values and eigenvalues are trusted to 8 width eps \\|W\\|.

    Args:
        f: the map, ``f(z, *args, *row_args)``; or a native map.
        z: the points, a NumPy array, float32 or float64, shape ``(rows, ...)``; ``(width,)`` is one row.
        args: passed to the map whole.
        row_args: arrays with one entry per row; ``(injection,)`` for a :class:`maps.Dense`.
        contraction: L in [0, 1), a number or one per row; or ``"weights"``.
        monotone: ``(m, norm)``, two numbers, m > 0 and norm >= 0; or ``"weights"``.
        kantorovich: gamma >= 0, a number or one per row; or ``"weights"``.
        jvp, vjp: one of them for ``kantorovich`` with a callable: ``jvp(z, v, *args, *row_args)`` returning J(z) v, or
            ``vjp`` returning J(z)' v, of the shape and dtype of v.
        noise: the most that a callable's f(z) may be off by rounding, in the 2-norm of a row: a number or one per row.
            None is (8 + sqrt(width)) eps (\\|z\\| + \\|f(z)\\|), eps of the dtype; terms within f that are much larger
            than z and f(z) need more.

    Returns:
        An :class:`ErrorBound`. Rows without a bound get infinity: h > 1/2, or f(z) not finite.

    Raises:
        TypeError: an argument of the wrong kind or dtype, an unknown option, a map that does not return an array.
        ValueError: an argument out of range or of the wrong shape, or not finite; none or several of the three; a
            native map that is not a contraction, not monotone or not smooth.
        Exception: whatever the map raises, unchanged.

    Sources: Winston and Kolter 2020, "Monotone operator equilibrium networks", for the condition on W; Kantorovich 1948
    in the form of Ortega 1968, Amer. Math. Monthly 75.

    Example:
        >>> import numpy as np, deqcore
        >>> rng = np.random.default_rng(0)
        >>> layer = deqcore.maps.Dense(0.3 * rng.standard_normal((16, 16)), activation="tanh")   # no contraction
        >>> x = rng.standard_normal((4, 16))
        >>> z = deqcore.fixed_point(layer, np.zeros((4, 16)), row_args=(x,), rtol=1e-4).value
        >>> exact = deqcore.fixed_point(layer, z, row_args=(x,), rtol=1e-14).value
        >>> bound = deqcore.error_bound(layer, z, row_args=(x,), kantorovich="weights").bound
        >>> bool((np.linalg.norm(z - exact, axis=1) <= bound).all()), bool((bound < 1e-2).all())
        (True, True)
    """
    if unknown:
        refuse_unknown("error_bound", unknown, _OPTIONS)
    if not callable(f):
        raise TypeError(f"f: {describe(f)} given; expected a callable or a map from deqcore.maps")
    state = host_state(z, "z")
    kinds = {"contraction": contraction, "monotone": monotone, "kantorovich": kantorovich}
    given = [kind for kind, constant in kinds.items() if constant is not None]
    if len(given) != 1:
        raise ValueError(f"contraction, monotone, kantorovich: {' and '.join(given) or 'none'} given; expected one")
    kind = given[0]
    for name, product in (("jvp", jvp), ("vjp", vjp)):
        if product is None:
            continue
        if not callable(product):
            raise TypeError(f"{name}: {describe(product)} given; expected {name}(z, v, ...)")
        if kind != "kantorovich" or isinstance(f, Dense):
            raise ValueError(f"{name}: given; expected None: only kantorovich= with a callable uses it")
    constants = _checked_constants(kind, kinds[kind], f, state)

    if isinstance(f, Dense):
        if noise is not None:
            raise ValueError("noise: given with a native map; expected None: its rounding errors are bounded here")
        value: _Value = _DenseValue(f, state, f._injection(args, row_args, False, state))
    else:
        value = _CallableValue(f, state, args, row_args, noise, jvp, vjp)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if kind == "contraction":
            found = _by_contraction(value, constants["L"])
        elif kind == "monotone":
            found = _by_monotonicity(value, constants["m"], constants["norm"])
        else:
            found = _by_kantorovich(value, constants)
    bound, unique_within, at = found
    known = np.isfinite(bound)
    return ErrorBound(
        np.where(known, bound, math.inf),
        kind,
        _ASSUMPTIONS[kind],
        at.reshape(state.shape),
        np.where(known, unique_within, 0.0),
        value.noise,
        constants,
    )


_OPTIONS = keyword_options(error_bound)

_ASSUMPTIONS = {
    "contraction": "f is a contraction with factor L in the 2-norm of a row, wherever |x - z| <= bound",
    "monotone": "f(z) = a(W z + c), the slopes of a lie between 0 and 1, x' (I - W) x >= m |x|^2 for every x, and the "
    "2-norm of W is at most norm",
    "kantorovich": "J is Lipschitz with constant gamma in the 2-norm of a row, wherever |x - z| <= bound",
}


def _per_row(given: Any, what: str, rows: int, expected: str) -> np.ndarray:
    """One number, or one per row, as float64; finite and at least 0."""
    try:
        array = np.asarray(given)
    except (TypeError, ValueError):  # rows of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{what}: {describe(given)} given; expected {expected}")
    if array.shape not in ((), (rows,)):
        raise ValueError(f"{what}: {describe(given)} given; expected a number, or an array of shape ({rows},)")
    spread = np.array(np.broadcast_to(array, (rows,)), np.float64)
    wrong = ~(np.isfinite(spread) & (spread >= 0))
    if wrong.any():
        raise ValueError(f"{what}: {spread[wrong][0]:g} given; expected {expected}")
    return spread


def _checked_constants(kind: str, given: Any, f: Any, state: State) -> dict[str, np.ndarray]:
    """What the theorem takes for granted, one entry per row."""
    if isinstance(given, str):
        if given != "weights":
            raise ValueError(f"{kind}: {given!r} given; expected numbers, or 'weights'")
        if not isinstance(f, Dense):
            raise ValueError(f"{kind}: 'weights' given with a callable; expected numbers: only a native map has them")
        return {name: np.full(state.rows, number) for name, number in _from_weights(kind, f).items()}
    if kind == "monotone":
        if not isinstance(given, tuple) or len(given) != 2:
            raise TypeError(f"monotone: {describe(given)} given; expected (m, norm), or 'weights'")
        m, norm = real(given[0], "monotone, m"), real(given[1], "monotone, norm")
        if not (math.isfinite(m) and m > 0):
            raise ValueError(f"monotone: m = {m:g} given; expected a finite number > 0")
        if not (math.isfinite(norm) and norm >= 0):
            raise ValueError(f"monotone: norm = {norm:g} given; expected a finite number >= 0")
        return {"m": np.full(state.rows, m), "norm": np.full(state.rows, norm)}
    if kind == "kantorovich":
        return {"gamma": _per_row(given, kind, state.rows, "gamma >= 0, finite, or 'weights'")}
    L = _per_row(given, kind, state.rows, "L, at least 0 and below 1, or 'weights'")
    if (L >= 1).any():
        raise ValueError(f"contraction: L = {L.max():g} given; expected below 1: at 1 and above nothing follows")
    return {"L": L}


def _from_weights(kind: str, layer: Dense) -> dict[str, float]:
    """The constants of a dense map, rounded to the safe side."""
    W, activation = layer.weights.astype(np.float64), layer.activation
    exact_to = 8 * layer.width * _EPS
    norm = float(np.linalg.norm(W, 2)) * (1 + exact_to)
    steepest = _STEEPEST[activation] * (1 + 1e-9)  # the tables have 10 digits
    if kind == "contraction":
        L = steepest * norm if activation in ("gelu", "silu") else _STEEPEST[activation] * norm
        if L >= 1:
            raise ValueError(
                f"contraction: the weights have sup|a'| |W| = {L:.6g}; expected below 1 (monotone= and kantorovich= "
                f"need no contraction)"
            )
        return {"L": L}
    if kind == "monotone":
        if activation not in _PROXIMAL:
            raise ValueError(
                f"monotone: 'weights' given with activation {activation!r}, whose slopes leave [0, 1]; expected one of "
                f"{', '.join(_PROXIMAL)}"
            )
        m = 1 - float(np.linalg.eigvalsh((W + W.T) / 2)[-1]) - exact_to * (1 + norm)
        if m <= 0:
            raise ValueError(f"monotone: the weights have m = {m:.6g}; expected above 0: I - W is not monotone")
        return {"m": m, "norm": norm}
    if activation not in _SHARPEST:
        raise ValueError(
            f"kantorovich: 'weights' given with activation {activation!r}, whose slope jumps; expected one of "
            f"{', '.join(_SHARPEST)}"
        )
    longest = float(np.linalg.norm(W, axis=1).max()) * (1 + exact_to)
    return {"gamma": _SHARPEST[activation] * (1 + 1e-9) * norm * longest}


def _lengths(block: np.ndarray) -> np.ndarray:
    """2-norms of the rows, of numbers of any size; infinite where an element is not finite."""
    largest = np.abs(block).max(axis=1)
    finite = np.isfinite(largest)
    safe = np.where(finite & (largest > 0), largest, 1)
    lengths = np.where(finite[:, None], block, 0) / safe[:, None]
    return np.where(finite, np.linalg.norm(lengths, axis=1) * safe, math.inf)


class _Value(ABC):
    """f(z) at float64, how far off it may be, and J."""

    z: np.ndarray  # (rows, width) at float64
    w: np.ndarray  # of the dtype of z
    away: np.ndarray  # (rows,): |w - z|, rounding error of w included
    noise: np.ndarray  # (rows,): |w - exact|

    @abstractmethod
    def jacobian(self, row: int) -> tuple[np.ndarray, float]:
        """J of a row, and how far off it may be in the 2-norm."""

    @abstractmethod
    def residual(self, row: int) -> tuple[np.ndarray, float]:
        """f(z) - z of a row, and how far off it may be."""


class _DenseValue(_Value):
    """Computed anew: the errors of sums are bounded by those of sums of absolute values (Higham 2002, section 3.5)."""

    def __init__(self, layer: Dense, state: State, injection: np.ndarray) -> None:
        self.z = state.block.astype(np.float64)
        c, W = injection.astype(np.float64), layer.weights.astype(np.float64)
        self.W, self.norm, self.activation = W, float(np.linalg.norm(W, 2)), layer.activation
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            self.inner = self.z @ W.T + c
            sizes = np.abs(self.z) @ np.abs(W).T + np.abs(c)
            self.inner_noise = (state.width + 2) * _EPS * sizes + np.finfo(np.float64).tiny
            value = _VALUES[self.activation](self.inner)
            self.exact = value
            within = 1.13 * self.inner_noise + 8 * _EPS * (np.abs(value) + np.minimum(np.abs(self.inner), 1))
            self.value_noise = _lengths(within)
            self.w = value.astype(state.dtype)
            self.noise = self.value_noise + _lengths(self.w - value)
            self.away = _lengths(value - self.z) + self.value_noise

    def jacobian(self, row: int) -> tuple[np.ndarray, float]:
        slope = _slope_and_curvature(self.activation, self.inner[row])[0]
        slope_noise = _SHARPEST.get(self.activation, math.inf) * self.inner_noise[row].max() + 16 * _EPS
        return slope[:, None] * self.W, float(slope_noise * self.norm * (1 + 1e-9))

    def residual(self, row: int) -> tuple[np.ndarray, float]:
        return self.exact[row] - self.z[row], float(self.value_noise[row])


class _CallableValue(_Value):
    """As the callable says, to within the noise."""

    def __init__(
        self, f: Any, state: State, args: tuple[Any, ...], row_args: tuple[Any, ...], noise: Any, jvp: Any, vjp: Any
    ) -> None:
        self.w = asked(f, "f", state, args, row_args)(state.block)
        self.state = state
        self.J: Any = None
        self.z = state.block.astype(np.float64)
        self.difference = self.w.astype(np.float64) - self.z
        self.relative = (8 + math.sqrt(state.width)) * float(np.finfo(state.dtype).eps)
        if noise is None:
            self.noise = self.relative * (_lengths(self.z) + _lengths(self.w.astype(np.float64)))
        else:
            self.noise = _per_row(noise, "noise", state.rows, "a finite number >= 0")
        self.away = _lengths(self.difference) + self.noise
        self.products = [
            (name, asked(product, name, state, args, row_args))
            for name, product in (("jvp", jvp), ("vjp", vjp))
            if product is not None
        ]

    def jacobian(self, row: int) -> tuple[np.ndarray, float]:
        if self.J is None:
            self.J = self._assembled()
        J = self.J[row]
        return J, self.relative * (1 + float(np.linalg.norm(J)))

    def residual(self, row: int) -> tuple[np.ndarray, float]:
        return self.difference[row], float(self.noise[row])

    def _assembled(self) -> Any:
        """J of all rows, from products with unit vectors: columns by jvp, rows by vjp."""
        if len(self.products) != 1:
            given = "both" if self.products else "neither"
            raise ValueError(f"jvp, vjp: {given} given; kantorovich= with a callable takes one of them")
        (name, product), state = self.products[0], self.state
        J = np.empty((state.rows, state.width, state.width))
        unit = np.zeros_like(state.block)
        for i in range(state.width):
            unit[:, i] = 1
            J[(slice(None), slice(None), i) if name == "jvp" else (slice(None), i)] = product(state.block, unit)
            unit[:, i] = 0
        return J


def _by_contraction(value: _Value, L: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    bound = value.away / (1 - L) * _outward(value)
    return bound, np.full(len(bound), math.inf), value.z.astype(value.w.dtype)


def _by_monotonicity(value: _Value, m: np.ndarray, norm: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # |w - z*| for the exact w; what is returned is noise away from it.
    bound = (norm / m * value.away + value.noise) * _outward(value)
    return bound, np.full(len(bound), math.inf), value.w


def _by_kantorovich(value: _Value, constants: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """With A the computed I - J, E its error, x that of A x = r: (I - J)^-1 r = x + (I - J)^-1 (r - A x + E x)."""
    rows, width = value.z.shape
    beta, eta = np.full(rows, math.inf), np.full(rows, math.inf)
    for r in range(rows):
        J, off = value.jacobian(r)
        residual, noise = value.residual(r)
        if not (np.isfinite(J).all() and np.isfinite(residual).all()):
            continue
        A = np.eye(width) - J
        sizes = np.linalg.svd(A, compute_uv=False)
        off += _EPS * (1 + float(np.linalg.norm(J)))  # of the subtraction
        least = float(sizes[-1]) - 8 * width * _EPS * float(sizes[0]) - off
        if least <= 0:
            continue
        beta[r] = (1 + 4 * _EPS) / least
        x = np.linalg.solve(A, residual)
        length, left, frobenius = (float(np.linalg.norm(v)) for v in (x, residual - A @ x, A))
        rounded = (width + 2) * _EPS * (float(np.linalg.norm(residual)) + frobenius * length)
        eta[r] = length + beta[r] * (left + rounded + noise + off * length)
    eta *= _outward(value)
    gamma = constants["gamma"]
    reach = beta * gamma
    h = np.where(np.isfinite(beta), reach * eta, math.inf) * (1 + 8 * _EPS)
    root = np.sqrt(np.where(h <= 0.5, 1 - 2 * h, math.nan))
    constants |= {"beta": beta, "eta": eta, "h": h}
    bound = 2 * eta / (1 + root) * (1 + 8 * _EPS)  # (1 - root) / (beta gamma) without its cancellation
    unique_within = np.where(reach > 0, (1 + root) / np.where(reach > 0, reach, 1), math.inf) * (1 - 16 * _EPS)
    return bound, unique_within, value.z.astype(value.w.dtype)


def _outward(value: _Value) -> float:
    """More than norms and quotients lose by rounding."""
    return 1.0 + float(value.z.shape[1] + 16) * _EPS
