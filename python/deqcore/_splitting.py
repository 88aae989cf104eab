# SPDX-License-Identifier: Apache-2.0
"""Operator splitting: equilibrium layers that are monotone, and maps that reach their fixed points where Picard fails.

W         weights, (width, width)                      a         activation, by element
x         injection                                    alpha     step of the splitting, > 0
V         ((1 + alpha) I - alpha W)^-1, the resolvent  prox      of alpha times the function whose prox is a
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from ._arrays import check_numpy, describe, numpy_door
from ._arrays.checks import check_floats
from ._options import real, refuse_unknown

__all__ = ["Monotone", "Splitting", "SplittingAdjoint", "forward_backward", "peaceman_rachford"]

_Prox = Callable[[np.ndarray], np.ndarray]


class Splitting(ABC):
    """A map whose fixed point gives z = a(W z + x), from :func:`forward_backward` or :func:`peaceman_rachford`.

    It is called ``f(state, injection)``, so every method of :func:`fixed_point` drives it, with
    ``row_args=(injection,)``. Its state need not be z: :meth:`read` takes z from it, :meth:`start` makes one.
    It holds its own copy of W.

    Example:
        >>> import numpy as np, deqcore
        >>> W, x = np.array([[-3.0]]), np.array([[4.0]])                    # z = max(-3 z + 4, 0), so z = 1
        >>> for f in (deqcore.forward_backward(W), deqcore.peaceman_rachford(W)):
        ...     solution = deqcore.fixed_point(f, f.start(np.zeros((1, 1)), x), row_args=(x,), rtol=1e-12)
        ...     print(f, f.read(solution.value).round(9).tolist())
        <forward_backward: alpha=0.25, activation='relu', width=1, float64> [[1.0]]
        <peaceman_rachford: alpha=1, activation='relu', width=1, float64> [[1.0]]
    """

    _name = ""

    def __init__(self, W: np.ndarray, activation: _Activation, alpha: float) -> None:
        self._W, self._activation, self._alpha = W, activation, alpha

    @property
    def alpha(self) -> float:
        """The step."""
        return self._alpha

    @property
    def activation(self) -> str | tuple[str, ...]:
        """The activation's name, or one for each element."""
        return self._activation.given

    @property
    def width(self) -> int:
        """Elements of one row."""
        return len(self._W)

    @property
    def dtype(self) -> Any:
        """The dtype of W and of every state."""
        return self._W.dtype

    def __repr__(self) -> str:
        """The name, step, activation, width and dtype."""
        given = f"alpha={self.alpha:g}, activation={self._activation!r}, width={self.width}, {self.dtype}"
        return f"<{self._name}: {given}>"

    def __call__(self, state: np.ndarray, injection: np.ndarray) -> np.ndarray:
        """One iteration.

        Args:
            state: ``(rows, width)`` or ``(width,)``, of the dtype of W. Not checked for NaN: a solve may have diverged,
                and its rows say so.
            injection: x, one row for all, ``(width,)`` or ``(1, width)``, or one per row, of the shape of the state.

        Returns:
            A new array like the state.

        Raises:
            TypeError, ValueError: a wrong dtype or shape, an injection that is not finite.
        """
        _check_rows(state, "state", self._W)
        c = _row_data(injection, "injection", state)
        with np.errstate(over="ignore", invalid="ignore"):
            return self._step(state, c, self._prox)

    def read(self, state: np.ndarray) -> np.ndarray:
        """Take z from a state, as a new array like it.

        Raises:
            TypeError, ValueError: a wrong dtype or shape.
        """
        _check_rows(state, "state", self._W)
        return self._read(state, self._prox)

    def start(self, z: np.ndarray, injection: np.ndarray) -> np.ndarray:
        """Make the state for a guess z, as a new array like it: the fixed point, if z solves the layer's equation.

        Raises:
            TypeError, ValueError: a wrong dtype or shape, not finite.
        """
        _check_rows(z, "z", self._W, finite=True)
        return self._start(z, _row_data(injection, "injection", z))

    def slope(self, z: np.ndarray, injection: np.ndarray) -> np.ndarray:
        """a'(W z + injection), of the shape of z, for :attr:`adjoint`; 0 at the kink of relu.

        Raises:
            TypeError, ValueError: a wrong dtype or shape, not finite.
        """
        return _slope(self._W, self._activation, z, injection)

    @cached_property
    def adjoint(self) -> SplittingAdjoint:
        """The same splitting of the backward equation, with the same resolvent, transposed."""
        return SplittingAdjoint(self._transposed())

    @abstractmethod
    def _transposed(self) -> Splitting:
        """The splitting for W'."""

    @abstractmethod
    def _step(self, state: np.ndarray, c: np.ndarray, prox: _Prox) -> np.ndarray:
        """One iteration with another prox."""

    @abstractmethod
    def _read(self, state: np.ndarray, prox: _Prox) -> np.ndarray:
        """Take z with another prox."""

    @abstractmethod
    def _start(self, z: np.ndarray, c: np.ndarray) -> np.ndarray:
        """The state whose z is given."""

    def _forward(self, z: np.ndarray, c: np.ndarray) -> np.ndarray:
        """(1 - alpha) z + alpha (W z + c)."""
        forward: np.ndarray = (1 - self.alpha) * z + self.alpha * (z @ self._W.T + c)
        return forward

    def _prox(self, s: np.ndarray) -> np.ndarray:
        return self._activation.prox(s, self.alpha)


class _ForwardBackward(Splitting):
    """The state is z."""

    _name = "forward_backward"

    def _transposed(self) -> Splitting:
        return _ForwardBackward(self._W.T, self._activation, self.alpha)

    def _step(self, state: np.ndarray, c: np.ndarray, prox: _Prox) -> np.ndarray:
        return prox(self._forward(state, c))

    def _read(self, state: np.ndarray, prox: _Prox) -> np.ndarray:
        return state.copy()

    def _start(self, z: np.ndarray, c: np.ndarray) -> np.ndarray:
        return z.copy()


class _PeacemanRachford(Splitting):
    """The state is u, with z = prox(u)."""

    _name = "peaceman_rachford"

    def __init__(self, W: np.ndarray, activation: _Activation, alpha: float, V: np.ndarray) -> None:
        super().__init__(W, activation, alpha)
        self._V = V

    def _transposed(self) -> Splitting:
        return _PeacemanRachford(self._W.T, self._activation, self.alpha, self._V.T)

    def _step(self, state: np.ndarray, c: np.ndarray, prox: _Prox) -> np.ndarray:
        half = 2 * prox(state) - state  # the prox's reflection; below, the resolvent's
        image: np.ndarray = 2 * ((half + self.alpha * c) @ self._V.T) - half
        return image

    def _read(self, state: np.ndarray, prox: _Prox) -> np.ndarray:
        return prox(state)

    def _start(self, z: np.ndarray, c: np.ndarray) -> np.ndarray:
        # u - z is alpha times the subgradient at z, which in the solution is W z + x - z.
        return self._forward(z, c)


class SplittingAdjoint:
    """A map whose fixed point gives u with (I - J')u = g, J = diag(a') W: :attr:`Splitting.adjoint`.

    With w = a' * u the equation is w = a' * (W' w + g), that of a layer whose activation multiplies by a slope between
    0 and 1: the same splitting solves it, with prox(s) = a' s / (alpha + (1 - alpha) a'), which holds the elements of
    slope 0 at 0. It is called ``f(state, slope, g)``, with ``row_args=(slope, g)``; the state 0 is where to start.

    Source: Winston and Kolter 2020, theorem 3, with the denominator of the authors' code; here g is with the forward
    step, as x is, instead of with the prox.

    Example:
        >>> import numpy as np, deqcore
        >>> rng = np.random.default_rng(0)
        >>> layer = deqcore.maps.Monotone(*rng.standard_normal((2, 20, 20)), m=0.5)
        >>> x, g = rng.standard_normal((2, 4, 20))
        >>> f = layer.peaceman_rachford()
        >>> z = f.read(deqcore.fixed_point(f, np.zeros((4, 20)), row_args=(x,), rtol=1e-12).value)
        >>> data = f.slope(z, x), g
        >>> s = deqcore.fixed_point(f.adjoint, np.zeros((4, 20)), row_args=data, rtol=1e-12).value
        >>> u = f.adjoint.read(s, *data)
        >>> bool(np.allclose(u, deqcore.adjoint(layer.vjp, z, g, row_args=(x,)).value))
        True
    """

    def __init__(self, transposed: Splitting) -> None:
        """Take the splitting for W'."""
        self._of = transposed

    def __repr__(self) -> str:
        """The splitting it belongs to."""
        return f"<adjoint of {self._of!r}>"

    def __call__(self, state: np.ndarray, slope: np.ndarray, g: np.ndarray) -> np.ndarray:
        """One iteration.

        Args:
            state: ``(rows, width)`` or ``(width,)``, of the dtype of W.
            slope: a' between 0 and 1, from :meth:`Splitting.slope`: one row for all, or one per row.
            g: dL/dz, one row for all, or one per row.

        Returns:
            A new array like the state.

        Raises:
            TypeError, ValueError: a wrong dtype or shape, not finite, a slope out of range.
        """
        _check_rows(state, "state", self._of._W)
        prox, right = self._prox(slope, state), _row_data(g, "g", state)
        with np.errstate(over="ignore", invalid="ignore"):
            return self._of._step(state, right, prox)

    def read(self, state: np.ndarray, slope: np.ndarray, g: np.ndarray) -> np.ndarray:
        """Take u = W' w + g from a state, as a new array like it.

        Raises:
            TypeError, ValueError: as for a call of the map.
        """
        _check_rows(state, "state", self._of._W)
        prox, right = self._prox(slope, state), _row_data(g, "g", state)
        u: np.ndarray = self._of._read(state, prox) @ self._of._W.T + right
        return u

    def start(self, u: np.ndarray, slope: np.ndarray, g: np.ndarray) -> np.ndarray:
        """Make the state for a guess u, as a new array like it: the fixed point, if u solves the equation.

        Raises:
            TypeError, ValueError: as for a call of the map, and u not finite.
        """
        _check_rows(u, "u", self._of._W, finite=True)
        return self._of._start(_checked_slope(slope, u) * u, _row_data(g, "g", u))

    def _prox(self, slope: np.ndarray, state: np.ndarray) -> _Prox:
        alpha, d = self._of.alpha, _checked_slope(slope, state)
        factor = d / (alpha + (1 - alpha) * d)
        return lambda s: factor * s


def forward_backward(
    W: np.ndarray, activation: str | tuple[str, ...] = "relu", *, alpha: float | None = None, **unknown: NoReturn
) -> Splitting:
    """The map z -> prox((1 - alpha) z + alpha (W z + x)), whose fixed point is that of z = a(W z + x).

    With \\|I - W\\| = L and I - W >= m I > 0 it is a contraction for 0 < alpha < 2 m / L^2, by
    sqrt(1 - 2 alpha m + alpha^2 L^2). That is sufficient and cautious: at m = 0.1 and L = 2.4 some 1900 steps to 1e-8,
    with alpha 0.2 some 260. :func:`peaceman_rachford` needs some 40, each at the same cost.

    Anderson and Broyden need far fewer steps, without the guarantee: of 660 rows of random relu layers Anderson failed
    on 1 and Broyden on 36 with the cautious alpha, neither on any with alpha 0.2 or with :func:`peaceman_rachford`.

    From 0 the first step is only alpha times what it is with the layer itself, and with it the scale that
    :func:`fixed_point` compares residuals with: where alpha is small give it ``scale``, the size of z.

    Args:
        W: weights, ``(width, width)``, float32 or float64. Copied.
        activation: ``"identity"``, ``"relu"``, ``"tanh"``, ``"sigmoid"`` or ``"softplus"``, or a tuple with one of them
            for each element of a row. Each is the prox of a convex function; with alpha other than 1, that of alpha
            times the function is not a itself for the last three, and is found by Newton's method, at float64.
        alpha: the step, finite and above 0; None is m / L^2, with m and L computed from W.

    Returns:
        A :class:`Splitting`, whose state is z.

    Raises:
        TypeError: W is not a NumPy array of float32 or float64, an argument of the wrong kind, an unknown option.
        ValueError: W is not square, is empty or not finite; the activation is unknown, or none that is a prox; alpha is
            out of range, or None where I - W is not strongly monotone.

    Source: Winston and Kolter 2020, "Monotone operator equilibrium networks"; Passty 1979.

    Example:
        >>> import numpy as np, deqcore
        >>> W, x = np.array([[0.0, 2.0], [-2.0, 0.0]]), np.array([[1.0, 3.0]])       # Picard runs away
        >>> f = deqcore.forward_backward(W, "identity")
        >>> z = deqcore.fixed_point(f, np.zeros((1, 2)), row_args=(x,), method="anderson").value
        >>> round(f.alpha, 9), z.round(6).tolist()
        (0.2, [[1.4, 0.2]])
    """
    if unknown:
        refuse_unknown("forward_backward", unknown, _OPTIONS)
    weights = _matrix(W, "W", square=True)
    kind = _Activation(activation, len(weights))
    if alpha is None:
        F = np.eye(len(weights)) - weights
        m, L = float(np.linalg.eigvalsh((F + F.T) / 2)[0]), _norm(F)
        if not m > 0:
            raise ValueError(
                f"alpha: None given, and I - W is not strongly monotone: its least eigenvalue is {m:.3g}; "
                f"expected a finite number > 0"
            )
        alpha = m / L**2
    return _ForwardBackward(weights, kind, _positive(alpha, "alpha"))


def peaceman_rachford(
    W: np.ndarray, activation: str | tuple[str, ...] = "relu", *, alpha: float = 1.0, **unknown: NoReturn
) -> Splitting:
    """The map u -> R_W(R_a(u)), two reflections, with z = prox(u) the fixed point of z = a(W z + x).

    R_a(u) = 2 prox(u) - u and R_W(v) = 2 V (v + alpha x) - v, with V = ((1 + alpha) I - alpha W)^-1 computed once, at
    float64. It converges for every alpha > 0 where I - W >= m I > 0, at a rate of at most
    sqrt(1 - 4 alpha m / (1 + alpha L)^2) with L = \\|I - W\\|. That bound is least at alpha = 1 / L; measured on relu
    layers with L = 2.4 and m = 0.1, steps to 1e-8 are 62, 43, 56 and 209 for alpha 2, 1, 0.5 and 0.1. One step costs
    one product with a dense matrix, as one call of the layer itself does. Where W is strictly block lower triangular,
    an explicit network, alpha 1 gives its value in as many steps as there are blocks.

    z itself cannot be the state: a step also needs the subgradient (u - z) / alpha. Where z solves the equation, u is
    (1 - alpha) z + alpha (W z + x): with alpha 1, what goes into the activation.

    Args:
        W: weights, ``(width, width)``, float32 or float64. Copied.
        activation: as for :func:`forward_backward`.
        alpha: the step, finite and above 0.

    Returns:
        A :class:`Splitting`, whose state is u.

    Raises:
        TypeError: W is not a NumPy array of float32 or float64, an argument of the wrong kind, an unknown option.
        ValueError: W is not square, is empty or not finite; the activation is unknown, or none that is a prox; alpha is
            out of range; the resolvent does not exist, as it always does where I - W is monotone.

    Source: Winston and Kolter 2020, "Monotone operator equilibrium networks"; Peaceman and Rachford 1955; Lions and
    Mercier 1979.

    Example:
        >>> import numpy as np, deqcore
        >>> rng = np.random.default_rng(0)
        >>> A, B = 0.7 * rng.standard_normal((2, 100, 100)) / 10
        >>> W, x = 0.9 * np.eye(100) - A.T @ A + B - B.T, rng.standard_normal((4, 100))
        >>> f = deqcore.peaceman_rachford(W)
        >>> solution = deqcore.fixed_point(f, np.zeros((4, 100)), row_args=(x,), rtol=1e-10, method="picard")
        >>> z = f.read(solution.value)
        >>> bool(np.allclose(z, np.maximum(z @ W.T + x, 0))), bool(solution.steps.max() < 70)
        (True, True)
    """
    if unknown:
        refuse_unknown("peaceman_rachford", unknown, _OPTIONS)
    weights = _matrix(W, "W", square=True)
    kind, alpha = _Activation(activation, len(weights)), _positive(alpha, "alpha")
    return _PeacemanRachford(weights, kind, alpha, _resolvent(weights, alpha))


_OPTIONS = ("activation", "alpha")


class Monotone:
    """The monotone equilibrium map f(z, x) = a(W z + x) with W = (1 - m) I - A'A + B - B', applied to each row.

    I - W >= m I whatever A and B are, so z = f(z, x) has one solution for every x, (1 / m)-Lipschitz in x. Iterating f
    itself need not find it: solve with :meth:`peaceman_rachford`. In a solve the layer is a callable like any other;
    ``adjoint`` takes :meth:`vjp`, ``tangent`` takes :meth:`jvp`, with ``row_args=(injection,)``.

    A and B are copied: for new weights, make another. Products are NumPy's: a row's last bits may depend on how many
    rows there are.

    Args:
        A: ``(any, width)``, float32 or float64; as many rows as columns reach every monotone W.
        B: ``(width, width)``, of the dtype of A.
        m: how monotone, finite and above 0.
        activation: ``"identity"``, ``"relu"``, ``"tanh"``, ``"sigmoid"`` or ``"softplus"``, or a tuple with one of them
            for each element of a row.

    Raises:
        TypeError: A or B is not a NumPy array of float32 or float64, m is not a number, the activation no string.
        ValueError: a wrong shape, nothing in it, not finite; m is out of range; the activation is unknown, or none that
            is a prox; W overflows.

    Source: Winston and Kolter 2020, "Monotone operator equilibrium networks".

    Example:
        >>> import numpy as np, deqcore
        >>> rng = np.random.default_rng(0)
        >>> A, B = 0.1 * rng.standard_normal((2, 50, 50))
        >>> layer = deqcore.maps.Monotone(A, B, m=0.1)
        >>> x, f = rng.standard_normal((8, 50)), layer.peaceman_rachford()
        >>> z = f.read(deqcore.fixed_point(f, np.zeros((8, 50)), row_args=(x,), rtol=1e-12).value)
        >>> bool(np.allclose(z, layer(z, x)))
        True
        >>> u = deqcore.adjoint(layer.vjp, z, z, row_args=(x,)).value        # the loss is |z|^2 / 2
        >>> dA, dB, dx = layer.parameter_gradients(z, x, u)
        >>> dA.shape, dB.shape, dx.shape
        ((50, 50), (50, 50), (8, 50))
    """

    def __init__(self, A: np.ndarray, B: np.ndarray, m: float, activation: str | tuple[str, ...] = "relu") -> None:
        """Copy A and B, and build W at float64."""
        self._A, self._B = _matrix(A, "A"), _matrix(B, "B", square=True)
        if self._B.dtype != self._A.dtype:
            raise TypeError(f"B: {describe(B)} given; expected dtype {self._A.dtype}, that of A")
        width = self._A.shape[1]
        if len(self._B) != width:
            raise ValueError(f"B: {describe(B)} given; expected shape ({width}, {width}), as wide as A")
        self._m = _positive(m, "m")
        self._activation = _Activation(activation, width)
        with np.errstate(over="ignore", invalid="ignore"):
            S, T = self._A.astype(np.float64), self._B.astype(np.float64)
            W = ((1 - self._m) * np.eye(width) - S.T @ S + (T - T.T)).astype(self._A.dtype)
        if not np.isfinite(W).all():
            raise ValueError(f"A, B, m: W = (1 - m) I - A'A + B - B' is beyond the range of {W.dtype}")
        self._W = _frozen(W)

    @property
    def W(self) -> np.ndarray:
        """The weights (1 - m) I - A'A + B - B', ``(width, width)``, read-only."""
        return self._W

    @property
    def A(self) -> np.ndarray:
        """The symmetric part's factor, read-only."""
        return self._A

    @property
    def B(self) -> np.ndarray:
        """The skew part's parameter, read-only."""
        return self._B

    @property
    def m(self) -> float:
        """How monotone: I - W >= m I."""
        return self._m

    @cached_property
    def norm(self) -> float:
        """\\|W\\|_2: the error of f(z), not of z, is at most (norm / m) \\|f(z) - z\\|."""
        return _norm(self._W)

    @cached_property
    def lipschitz(self) -> float:
        """L = \\|I - W\\|_2, of the operator that is split."""
        return _norm(np.eye(self.width) - self._W)

    @property
    def width(self) -> int:
        """Elements of one row."""
        return len(self._W)

    @property
    def dtype(self) -> Any:
        """The dtype of A, B, W and of every state."""
        return self._W.dtype

    @property
    def activation(self) -> str | tuple[str, ...]:
        """The activation's name, or one for each element."""
        return self._activation.given

    def __repr__(self) -> str:
        """The size, m, activation and dtype."""
        return f"Monotone(width={self.width}, m={self.m:g}, activation={self._activation!r}, dtype={self.dtype})"

    def __call__(self, z: np.ndarray, injection: np.ndarray) -> np.ndarray:
        """Evaluate f(z) = a(W z + injection).

        Args:
            z: states, ``(rows, width)`` or ``(width,)``, of the map's dtype. Not checked for NaN, nor is v below: a
                solve may have diverged, and its rows say so.
            injection: one row for all, ``(width,)`` or ``(1, width)``, or one per row, of the shape of z.

        Returns:
            A new array like z.

        Raises:
            TypeError, ValueError: a wrong dtype or shape, an injection that is not finite.

        Example:
            >>> import numpy as np, deqcore
            >>> layer = deqcore.maps.Monotone(np.eye(2), np.array([[0.0, 2.0], [0.0, 0.0]]), m=1.0)
            >>> layer.W.tolist(), layer(np.array([1.0, 2.0]), np.array([0.5, 6.0])).tolist()
            ([[-1.0, 2.0], [-2.0, -1.0]], [3.5, 2.0])
        """
        _check_rows(z, "z", self._W)
        c = _row_data(injection, "injection", z)
        with np.errstate(over="ignore", invalid="ignore"):
            return self._activation.value(z @ self._W.T + c)

    def jvp(self, z: np.ndarray, v: np.ndarray, injection: np.ndarray) -> np.ndarray:
        """The product J(z) v = a'(W z + injection) * (W v), row by row.

        Args:
            z, injection: as for a call of the map.
            v: directions, of the shape and dtype of z.

        Returns:
            A new array like z.

        Raises:
            TypeError, ValueError: as for a call of the map.
        """
        slope = _slope(self._W, self._activation, z, injection)
        _check_like(v, "v", z)
        with np.errstate(over="ignore", invalid="ignore"):
            product: np.ndarray = slope * (v @ self._W.T)
        return product

    def vjp(self, z: np.ndarray, v: np.ndarray, injection: np.ndarray) -> np.ndarray:
        """The product J(z)' v = W' (a'(W z + injection) * v), row by row.

        Args:
            z, injection: as for a call of the map.
            v: cotangents, of the shape and dtype of z.

        Returns:
            A new array like z.

        Raises:
            TypeError, ValueError: as for a call of the map.
        """
        slope = _slope(self._W, self._activation, z, injection)
        _check_like(v, "v", z)
        with np.errstate(over="ignore", invalid="ignore"):
            product: np.ndarray = (slope * v) @ self._W
        return product

    def slope(self, z: np.ndarray, injection: np.ndarray) -> np.ndarray:
        """a'(W z + injection), of the shape of z; 0 at the kink of relu.

        Raises:
            TypeError, ValueError: a wrong dtype or shape, not finite.
        """
        return _slope(self._W, self._activation, z, injection)

    def parameter_gradients(
        self, z: np.ndarray, injection: np.ndarray, u: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The gradients of a loss with dL/df = u: with G = dL/dW, dL/dA = -A (G + G'), dL/dB = G - G'.

        After a solve, with u the adjoint's solution, they are the loss's gradients through the fixed point.

        Args:
            z, injection: as for a call of the map.
            u: cotangents of the map's value, of the shape and dtype of z.

        Returns:
            ``(dL/dA, dL/dB, dL/dinjection)``; the last has the shape of the injection: one row is summed over the
            batch.

        Raises:
            TypeError, ValueError: as for a call of the map, and z or u not finite.

        Example:
            >>> import numpy as np, deqcore
            >>> layer = deqcore.maps.Monotone(np.eye(2), np.zeros((2, 2)), m=1.0, activation="identity")
            >>> dA, dB, dx = layer.parameter_gradients(np.array([[1.0, 2.0]]), np.zeros(2), np.array([[3.0, 4.0]]))
            >>> dA.tolist(), dB.tolist(), dx.tolist()
            ([[-6.0, -10.0], [-10.0, -16.0]], [[0.0, 2.0], [-2.0, 0.0]], [3.0, 4.0])
        """
        slope = _slope(self._W, self._activation, z, injection)
        _check_like(u, "u", z)
        numpy_door.check_finite(numpy_door.contiguous(u), "u")
        dinner = (slope * u).reshape(-1, self.width)
        G = dinner.T @ z.reshape(-1, self.width)
        rows = len(dinner)
        summed = dinner if injection.size == rows * self.width else dinner.sum(axis=0)
        return -self._A @ (G + G.T), G - G.T, summed.reshape(injection.shape)

    def forward_backward(self, *, alpha: float | None = None, **unknown: NoReturn) -> Splitting:
        """:func:`deqcore.forward_backward` of this layer; alpha None is m / \\|I - W\\|^2.

        Raises:
            TypeError, ValueError: alpha is not a number above 0, an unknown option.
        """
        if unknown:
            refuse_unknown("forward_backward", unknown, ("alpha",))
        step = self.m / self.lipschitz**2 if alpha is None else alpha
        return _ForwardBackward(self._W, self._activation, _positive(step, "alpha"))

    def peaceman_rachford(self, *, alpha: float = 1.0, **unknown: NoReturn) -> Splitting:
        """:func:`deqcore.peaceman_rachford` of this layer, which converges for every alpha.

        Raises:
            TypeError, ValueError: alpha is not a number above 0, an unknown option.
        """
        if unknown:
            refuse_unknown("peaceman_rachford", unknown, ("alpha",))
        alpha = _positive(alpha, "alpha")
        return _PeacemanRachford(self._W, self._activation, alpha, _resolvent(self._W, alpha))


def _sigmoid(v: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-v)), without overflow and without cancellation."""
    value: np.ndarray = np.exp(-np.logaddexp(0, -v))
    return value


def _of_tanh(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.tanh(v), 4 * _sigmoid(2 * v) * _sigmoid(-2 * v)


def _of_sigmoid(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    value = _sigmoid(v)
    return value, value * _sigmoid(-v)


#: v -> a(v), a'(v). Slopes lie between 0 and 1, so each is the prox of a convex function.
_ACTIVATIONS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "identity": lambda v: (v.copy(), np.ones_like(v)),
    "relu": lambda v: (np.maximum(v, 0), (v > 0).astype(v.dtype)),
    "tanh": _of_tanh,
    "sigmoid": _of_sigmoid,
    "softplus": lambda v: (np.logaddexp(0, v), _sigmoid(v)),
}
_SAME_FOR_EVERY_ALPHA = ("identity", "relu")


def _prox(name: str, s: np.ndarray, alpha: float) -> np.ndarray:
    """a(v) where alpha v + (1 - alpha) a(v) = s: the prox of alpha times the function whose prox is a.

    With y = a(v) that function's subgradient at y is v - y, so s = y + alpha (v - y). The left side h increases with
    slopes between alpha and 1. From the point at which every h bends, Newton's steps stay on one side of the root: h
    is convex or concave from there on.
    """
    evaluate = _ACTIVATIONS[name]
    if alpha == 1 or name in _SAME_FOR_EVERY_ALPHA:
        return evaluate(s)[0]
    wide = s.astype(np.float64)
    v = np.zeros_like(wide)
    for _ in range(_NEWTON_STEPS):
        value, slope = evaluate(v)
        known, bent = alpha * v, (1 - alpha) * value
        rest = wide - known - bent
        # The prox does not expand, so what rounding leaves of s is all that it leaves of the value. False for NaN.
        if not (np.abs(rest) > _ROUNDING * (np.abs(wide) + np.abs(known) + np.abs(bent))).any():
            break
        v += rest / (alpha + (1 - alpha) * slope)
    return value.astype(s.dtype)


_ROUNDING = 4 * np.finfo(np.float64).eps
_NEWTON_STEPS = 100  # some 8 are taken; some ln(1 / alpha) more where alpha is tiny


class _Activation:
    """An activation for all elements, or one for each."""

    def __init__(self, given: Any, width: int) -> None:
        names = (given,) if isinstance(given, str) else given
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise TypeError(
                f"activation: {given!r} given; expected one of {', '.join(_ACTIVATIONS)}, or a tuple of {width} of them"
            )
        for name in names:
            if name not in _ACTIVATIONS:
                raise ValueError(
                    f"activation: {name!r} given; expected one of {', '.join(_ACTIVATIONS)}, those known as a prox"
                )
        if not isinstance(given, str) and len(names) != width:
            raise ValueError(f"activation: {len(names)} names given; expected {width}, one for each element of a row")
        self.given: str | tuple[str, ...] = given
        # Runs of equal names, as slices: blocks of layers are contiguous.
        starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
        self._runs = [(names[at], slice(at, end)) for at, end in zip(starts, [*starts[1:], width], strict=True)]

    def __repr__(self) -> str:
        return repr(self.given) if isinstance(self.given, str) else f"{len(self.given)} names"

    def value(self, v: np.ndarray) -> np.ndarray:
        return self._by_runs(v, lambda name, part: _ACTIVATIONS[name](part)[0])

    def slope(self, v: np.ndarray) -> np.ndarray:
        return self._by_runs(v, lambda name, part: _ACTIVATIONS[name](part)[1])

    def prox(self, s: np.ndarray, alpha: float) -> np.ndarray:
        return self._by_runs(s, lambda name, part: _prox(name, part, alpha))

    def _by_runs(self, v: np.ndarray, evaluate: Callable[[str, np.ndarray], np.ndarray]) -> np.ndarray:
        if len(self._runs) == 1:
            return evaluate(self._runs[0][0], v)
        answer = np.empty_like(v)
        for name, run in self._runs:
            answer[..., run] = evaluate(name, v[..., run])
        return answer


def _resolvent(W: np.ndarray, alpha: float) -> np.ndarray:
    """((1 + alpha) I - alpha W)^-1, at float64 within, of the dtype of W."""
    M = (1 + alpha) * np.eye(len(W)) - alpha * W.astype(np.float64)
    try:
        V = np.linalg.inv(M)
        condition = float(np.linalg.norm(M, 1) * np.linalg.norm(V, 1))
    except np.linalg.LinAlgError:
        condition = math.inf
    if not condition < 1 / np.finfo(np.float64).eps:
        raise ValueError(
            f"W, alpha: (1 + alpha) I - alpha W is singular with alpha = {alpha:g}; expected W with I - W monotone, or "
            f"another alpha"
        )
    return V.astype(W.dtype)


def _slope(W: np.ndarray, activation: _Activation, z: np.ndarray, injection: np.ndarray) -> np.ndarray:
    _check_rows(z, "z", W, finite=True)
    return activation.slope(z @ W.T + _row_data(injection, "injection", z))


def _norm(W: np.ndarray) -> float:
    return float(np.linalg.norm(W.astype(np.float64), 2))


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _matrix(W: Any, what: str, square: bool = False) -> np.ndarray:
    """A read-only copy of a checked matrix."""
    check_numpy(W, what)
    check_floats(W, what)
    if W.ndim != 2 or W.size == 0 or (square and W.shape[0] != W.shape[1]):
        expected = "a square matrix, (width, width)" if square else "a matrix, (any, width)"
        raise ValueError(f"{what}: {describe(W)} given; expected {expected}")
    copy = np.array(W, order="C", subok=False)
    numpy_door.check_finite(copy, what)
    return _frozen(copy)


def _positive(value: Any, what: str) -> float:
    number = real(value, what)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{what}: {number:g} given; expected a finite number > 0")
    return number


def _check_rows(array: Any, what: str, W: np.ndarray, finite: bool = False) -> None:
    """Refuse what is not one row or rows of the width and dtype of W."""
    check_numpy(array, what)
    check_floats(array, what, W.dtype)
    width = len(W)
    if array.ndim not in (1, 2) or array.shape[-1] != width or array.size == 0:
        raise ValueError(f"{what}: {describe(array)} given; expected shape (rows, {width}) or ({width},)")
    if finite:
        numpy_door.check_finite(numpy_door.contiguous(array), what)


def _row_data(array: Any, what: str, state: np.ndarray) -> np.ndarray:
    """One row for all, as (width,), or one per row; refuse anything else, and what is not finite."""
    check_numpy(array, what)
    check_floats(array, what, state.dtype)
    width = state.shape[-1]
    if array.shape not in (state.shape, (width,), (1, width)):
        raise ValueError(f"{what}: {describe(array)} given; expected shape {state.shape}, or one row of {width}")
    data: np.ndarray = numpy_door.contiguous(array)
    numpy_door.check_finite(data, what)
    return data.reshape(state.shape if data.size == state.size else width)


def _check_like(array: Any, what: str, z: np.ndarray) -> None:
    check_numpy(array, what)
    check_floats(array, what, z.dtype)
    if array.shape != z.shape:
        raise ValueError(f"{what}: {describe(array)} given; expected shape {z.shape}, that of z")


def _checked_slope(slope: Any, state: np.ndarray) -> np.ndarray:
    d = _row_data(slope, "slope", state)
    if d.min() < 0 or d.max() > 1:
        raise ValueError(f"slope: {d.min():g} to {d.max():g} given; expected numbers between 0 and 1")
    return d
