# SPDX-License-Identifier: Apache-2.0
"""Maps ready to solve. ``Dense`` is native: solved wholly in C++, without the interpreter lock, over threads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NoReturn

import numpy as np

from . import _core
from ._arrays import check_numpy, describe
from ._dialogue import Setup, State, check_state, check_success, native_row_arg
from ._ode_field import Field
from ._options import keyword_options, refuse_unknown, threads_named
from ._prepared import prepare_adjoint, prepare_solve, prepare_step, remembered
from ._solution import Solution
from ._splitting import Monotone

__all__ = ["Dense", "Field", "Gradients", "Monotone", "activations"]

#: The names that :class:`Dense` takes as ``activation``.
activations: tuple[str, ...] = _core.activations

_CLASSES = {np.dtype(np.float32): _core.Dense32, np.dtype(np.float64): _core.Dense64}


@dataclass(frozen=True, eq=False, repr=False)
class Gradients:
    """What :meth:`Dense.value_and_gradients` returns.

    Attributes:
        forward: the fixed points; ``forward.value`` is z.
        backward: the backward solve; ``backward.value`` is u.
        dW: dL/dW, ``(width, width)``.
        dinjection: dL/dinjection, of the shape of the injection: one row is summed over the batch.

    Example:
        >>> import numpy as np, deqcore
        >>> layer = deqcore.maps.Dense(np.array([[0.5]]), activation="identity")      # z = 0.5 z + x, so z = 2 x
        >>> layer.value_and_gradients(np.zeros((1, 1)), np.ones((1, 1)), g=np.ones((1, 1))).dinjection.round(6).tolist()
        [[2.0]]
    """

    forward: Solution
    backward: Solution
    dW: np.ndarray
    dinjection: np.ndarray

    @classmethod
    def _of(cls, forward: Solution, backward: Solution, dW: np.ndarray, dinjection: np.ndarray) -> Gradients:
        """As ``Solution._of``."""
        gradients = cls.__new__(cls)
        vars(gradients).update(forward=forward, backward=backward, dW=dW, dinjection=dinjection)
        return gradients

    def __repr__(self) -> str:
        """How both solves ended."""
        return f"<Gradients {self.forward.message}; {self.backward.message}>"


class Dense:
    """The dense equilibrium map f(z, c) = a(W z + c), applied to each row.

    With d = a'(W z + c): J v = d * (W v), J' u = W' (d * u), and for u = dL/df the gradients are
    dL/dW = sum over rows of (d * u) z', dL/dc = d * u (Bai, Kolter and Koltun 2019).

    W is copied and packed at construction: changing the array afterwards changes nothing, :meth:`update` does. Every
    product sums in one order whatever the number of rows, so a row has the same bits alone and in a batch.

    Args:
        W: weights, ``(width, width)``, float32 or float64; the states must have the same dtype.
        activation: one of :data:`activations`.
        products: how a native solve by a fixed-point method, forward or backward, takes its products with W.
            ``"full"``, or, in float32, ``"bfloat16"``: most of them as corrections W r + B (x - r) to a full product
            with an earlier vector r of the row, B being W rounded to bfloat16. A residual that ends a row, or is
            reported, is always from a full product; those on the way, which a trace shows, may be rounded. Rows that
            did not converge are evaluated once more for theirs, which ``nfe`` counts. Wide maps gain: some 1.3 times at
            width 512 and more; narrow ones lose (docs/comparison.md), and maps with few different eigenvalues, which
            full products solve in a few steps, can take many times as many, or fail where those are close to 1. With
            ``callback=``, or where the CPU has no bfloat16 instruction, products are full. Everything else of the map
            (``value``, ``jvp``, ``vjp``, gradients to W, solves by linear or Newton's methods) is always in full.

    Raises:
        TypeError: W is not a NumPy array of float32 or float64, or the activation or ``products`` is not a string.
        ValueError: W is not square, is empty or not finite, the activation or ``products`` is unknown, or bfloat16
            products are asked for in float64.

    Example:
        >>> import numpy as np, deqcore
        >>> rng = np.random.default_rng(0)
        >>> W = rng.standard_normal((64, 64)) * 0.05
        >>> x = rng.standard_normal((8, 64))
        >>> layer = deqcore.maps.Dense(W, activation="tanh")
        >>> z = deqcore.fixed_point(layer, np.zeros((8, 64)), row_args=(x,)).value
        >>> bool(np.allclose(z, np.tanh(z @ W.T + x), atol=1e-6))
        True
        >>> u = deqcore.adjoint(layer, z, z, row_args=(x,)).value        # the loss is |z|^2 / 2
        >>> dW, dx = layer.parameter_gradients(z, x, u)
        >>> dW.shape, dx.shape
        ((64, 64), (8, 64))
    """

    def __init__(self, W: np.ndarray, activation: str = "tanh", *, products: str = "full") -> None:
        """Copy and pack W."""
        if not isinstance(activation, str):
            raise TypeError(f"activation: {activation!r} given; expected one of {', '.join(activations)}")
        if not isinstance(products, str):
            raise TypeError(f"products: {products!r} given; expected 'full' or 'bfloat16'")
        if products not in ("full", "bfloat16"):
            raise ValueError(f"products: {products!r} given; expected 'full' or 'bfloat16'")
        block = self._weights(W)
        if products == "bfloat16" and block.dtype != np.float32:
            raise ValueError(f"products: 'bfloat16' given with a W of {block.dtype}; they refine products in float32")
        self._width, self._dtype = len(block), block.dtype
        self._activation, self._products = activation, products
        self._native = _CLASSES[block.dtype](block, activation, products == "bfloat16")
        about = block.dtype, self._width
        self._prepare_solve = remembered(partial(prepare_solve, *about))
        self._prepare_adjoint = remembered(partial(prepare_adjoint, *about))
        self._prepare_step = remembered(partial(prepare_step, *about))
        # of the options that solves share: they tend to be the same
        self._solve_bytes = lru_cache(maxsize=32)(self._native.solve_bytes)
        self._adjoint_bytes = lru_cache(maxsize=32)(self._native.solve_adjoint_bytes)

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse: the solvers run a dense map in C++ and would never call what a subclass overrides."""
        raise TypeError("Dense: cannot be subclassed; write a callable that uses a Dense instead")

    @staticmethod
    def _weights(W: Any) -> np.ndarray:
        check_numpy(W, "W")
        if W.ndim != 2 or W.shape[0] != W.shape[1]:
            raise ValueError(f"W: {describe(W)} given; expected a square matrix, (width, width)")
        return check_state(W, "W").block

    @property
    def width(self) -> int:
        """Elements of one row."""
        return self._width

    @property
    def dtype(self) -> Any:
        """The dtype of W and of every state."""
        return self._dtype

    @property
    def activation(self) -> str:
        """The activation's name."""
        return self._activation

    @property
    def products(self) -> str:
        """How a native solve by a fixed-point method takes its products: ``"full"`` or ``"bfloat16"``."""
        return self._products

    @property
    def weights(self) -> np.ndarray:
        """A copy of W, ``(width, width)``."""
        W = np.empty((self.width, self.width), self.dtype)
        self._native.copy_weights(W)
        return W

    def __repr__(self) -> str:
        """The size, activation, dtype, and products if not full."""
        products = "" if self.products == "full" else f", products={self.products!r}"
        return f"Dense(width={self.width}, activation={self.activation!r}, dtype={self.dtype}{products})"

    def __reduce__(self) -> Any:
        """Refuse pickling: the weights are packed for this machine."""
        raise TypeError("Dense cannot be pickled: its weights are packed for this machine; pickle W and make it anew")

    def update(self, W: np.ndarray) -> None:
        """Take new weights, of the same shape and dtype; a solve that is running elsewhere goes on with the old ones.

        Raises:
            TypeError, ValueError: as for the constructor.
        """
        block = self._weights(W)
        if block.dtype != self.dtype:
            raise TypeError(f"W: {describe(W)} given; expected dtype {self.dtype}")
        self._native.update(block)

    def __call__(self, z: np.ndarray, injection: np.ndarray, *, threads: int | None = None) -> np.ndarray:
        """Evaluate f(z) = a(W z + injection).

        Args:
            z: states, ``(rows, width)`` or ``(width,)``, of the map's dtype.
            injection: one row for all, ``(width,)`` or ``(1, width)``, or one per row, ``(rows, width)``.
            threads: most threads; None is :func:`deqcore.num_threads`.

        Returns:
            A new array like z.

        Raises:
            TypeError, ValueError: a wrong dtype, a wrong shape, nothing in it, not finite.

        Example:
            >>> import numpy as np, deqcore
            >>> layer = deqcore.maps.Dense(np.array([[0.0, 2.0], [1.0, 0.0]]), activation="relu")
            >>> layer(np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([0.5, 0.0])).tolist()
            [[4.5, 1.0], [0.0, 3.0]]
        """
        state, c = self._inputs(z, injection)
        value = np.empty_like(state.block)
        self._native.value(state.block, c, value, threads_named(threads))
        return value.reshape(state.shape)

    def jvp(self, z: np.ndarray, v: np.ndarray, injection: np.ndarray, *, threads: int | None = None) -> np.ndarray:
        """The product J(z) v = a'(W z + injection) * (W v), row by row.

        Args:
            z, injection, threads: as for a call of the map.
            v: directions, of the shape and dtype of z.

        Returns:
            A new array like z.

        Raises:
            TypeError, ValueError: as for a call of the map.

        Example:
            >>> import numpy as np, deqcore
            >>> layer = deqcore.maps.Dense(np.array([[0.0, 2.0], [1.0, 0.0]]), activation="identity")
            >>> layer.jvp(np.zeros(2), np.array([1.0, 3.0]), np.zeros(2)).tolist()
            [6.0, 1.0]
        """
        state, c = self._inputs(z, injection)
        product = np.empty_like(state.block)
        self._native.jvp(state.block, c, check_state(v, "v", state).block, product, threads_named(threads))
        return product.reshape(state.shape)

    def vjp(self, z: np.ndarray, v: np.ndarray, injection: np.ndarray, *, threads: int | None = None) -> np.ndarray:
        """The product J(z)' v = W' (a'(W z + injection) * v), row by row.

        Args:
            z, injection, threads: as for a call of the map.
            v: cotangents, of the shape and dtype of z.

        Returns:
            A new array like z.

        Raises:
            TypeError, ValueError: as for a call of the map.

        Example:
            >>> import numpy as np, deqcore
            >>> layer = deqcore.maps.Dense(np.array([[0.0, 2.0], [1.0, 0.0]]), activation="identity")
            >>> layer.vjp(np.zeros(2), np.array([1.0, 3.0]), np.zeros(2)).tolist()
            [3.0, 2.0]
        """
        state, c = self._inputs(z, injection)
        product = np.empty_like(state.block)
        self._native.vjp(state.block, c, check_state(v, "v", state).block, product, threads_named(threads))
        return product.reshape(state.shape)

    def parameter_gradients(
        self, z: np.ndarray, injection: np.ndarray, u: np.ndarray, *, threads: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The gradients of a loss with dL/df = u: dL/dW = sum over rows of (d * u) z', dL/dinjection = d * u.

        After a solve, with u the adjoint's solution, they are the loss's gradients through the fixed point.

        Args:
            z, injection, threads: as for a call of the map.
            u: cotangents of the map's value, of the shape and dtype of z.

        Returns:
            ``(dL/dW, dL/dinjection)``; the second has the shape of the injection: one row is summed over the batch.

        Raises:
            TypeError, ValueError: as for a call of the map.

        Example:
            >>> import numpy as np, deqcore
            >>> layer = deqcore.maps.Dense(np.zeros((2, 2)), activation="identity")
            >>> dW, dx = layer.parameter_gradients(np.array([[1.0, 2.0]]), np.zeros(2), np.array([[3.0, 4.0]]))
            >>> dW.tolist(), dx.tolist()
            ([[3.0, 6.0], [4.0, 8.0]], [3.0, 4.0])
        """
        state, c = self._inputs(z, injection)
        dW, dc = np.empty((self.width, self.width), self.dtype), np.empty_like(c)
        cotangent = check_state(u, "u", state).block
        self._native.parameter_gradients(state.block, c, cotangent, dW, dc, threads_named(threads))
        return dW, dc.reshape(injection.shape)

    def value_and_gradients(
        self,
        z0: np.ndarray,
        injection: np.ndarray,
        *,
        g: np.ndarray | None = None,
        target: np.ndarray | None = None,
        method: Any = None,
        rtol: float | None = None,
        max_steps: int = 200,
        adjoint_method: Any = None,
        adjoint_rtol: float | None = None,
        adjoint_max_steps: int = 200,
        threads: int | None = None,
        on_failure: str = "raise",
        **unknown: NoReturn,
    ) -> Gradients:
        """Solve forward, solve backward and take the gradients of a loss, in one call without Python between.

        The loss is (g, z) for given ``g``, or \\|z - target\\|^2 / 2 for given ``target``, summed over the rows. Rows
        whose solves failed are in dW, too: look at the statuses if ``on_failure`` is not ``"raise"``.

        Args:
            z0: starting points, ``(rows, width)`` or ``(width,)``, of the map's dtype.
            injection: one row for all, or one per row.
            g, target: one of them, of the shape of z0.
            method, rtol, max_steps: of the forward solve, as for :func:`deqcore.fixed_point`.
            adjoint_method, adjoint_rtol, adjoint_max_steps: of the backward solve, as for :func:`deqcore.adjoint`; any
                method but :class:`deqcore.Phantom` and :class:`deqcore.SHINE`.
            threads, on_failure: as for :func:`deqcore.fixed_point`.

        Returns:
            :class:`Gradients`.

        Raises:
            ConvergenceError, TypeError, ValueError: as for :func:`deqcore.fixed_point`.

        Example:
            >>> import numpy as np, deqcore
            >>> rng = np.random.default_rng(0)
            >>> layer = deqcore.maps.Dense(rng.standard_normal((8, 8)) * 0.1)
            >>> x, target = rng.standard_normal((2, 5, 8))
            >>> step = layer.value_and_gradients(np.zeros((5, 8)), x, target=target)
            >>> step.forward.success, step.backward.success, step.dW.shape, step.dinjection.shape
            (True, True, (8, 8), (5, 8))
        """
        if unknown:
            refuse_unknown("value_and_gradients", unknown, _GRADIENT_OPTIONS)
        if (g is None) == (target is None):
            given = "neither" if g is None else "both"
            raise ValueError(f"g, target: {given} given; expected one of them")
        how = method, rtol, max_steps, adjoint_method, adjoint_rtol, adjoint_max_steps, threads, on_failure
        try:
            prepared = self._prepare_step(*how)
        except (TypeError, ValueError):  # wrong, or not to be remembered
            ended = None
        else:
            ended = self._native.differentiate_prepared(*prepared.native, z0, injection, g, target)
        if ended is None:
            state = check_state(z0, "z0")
            c = self._injection((), (injection,), False, state, "z0")
            right = check_state(target if g is None else g, "target" if g is None else "g", state).block
            prepared = prepare_step(self._dtype, self._width, *how)
            start, c, right = map(np.asarray, (state.block, c, right))  # of no subclass
            loss = (right, None) if target is None else (None, right)
            dW, dc, *solves = self._native.differentiate_prepared(*prepared.native, start, c, *loss)
            solves = [(value.reshape(state.shape), *account) for value, *account in solves]
            ended = dW, dc.reshape(injection.shape), *solves
        dW, dc, forward, backward = ended
        z = check_success(Solution._of_native(prepared.forward, forward), on_failure, 3)
        u = check_success(Solution._of_native(prepared.backward, backward), on_failure, 3)
        return Gradients._of(z, u, dW, dc)

    def _solve_prepared(self, z0: Any, row_args: Any, how: tuple[Any, ...]) -> Solution | None:
        """A solve of arrays that can be used as they are, with options that can be remembered; None of others."""
        if type(row_args) is not tuple or len(row_args) != 1:
            return None
        try:
            prepared = self._prepare_solve(*how)
        except (TypeError, ValueError):  # wrong, or not to be remembered
            return None
        ended = self._native.solve_prepared(prepared.native, z0, row_args[0])
        return None if ended is None else Solution._of_native(prepared, ended)

    def _solve_adjoint_prepared(self, z: Any, g: Any, row_args: Any, how: tuple[Any, ...]) -> Solution | None:
        """The same for a backward solve."""
        if type(row_args) is not tuple or len(row_args) != 1:
            return None
        try:
            prepared = self._prepare_adjoint(*how)
        except (TypeError, ValueError):
            return None
        ended = self._native.solve_adjoint_prepared(prepared.native, z, row_args[0], g)
        return None if ended is None else Solution._of_native(prepared, ended)

    def _value_of(self, z: np.ndarray, injection: np.ndarray, *, threads: int) -> np.ndarray:
        """A dialogue's answer: inputs that the solver has checked, and iterates that may have overflowed."""
        value = np.empty_like(z)
        blocks = (array.reshape(-1, self.width) for array in (z, injection, value))
        self._native.value(*blocks, threads)
        return value

    def _product_of(
        self, z: np.ndarray, v: np.ndarray, injection: np.ndarray, *, product: str, threads: int
    ) -> np.ndarray:
        """The same for a product: ``"jvp"`` or ``"vjp"``."""
        answer = np.empty_like(v)
        blocks = (array.reshape(-1, self.width) for array in (z, injection, v, answer))
        getattr(self._native, product)(*blocks, threads)
        return answer

    def _solve(
        self,
        setup: Setup,
        start: np.ndarray,
        injection: np.ndarray,
        scales: np.ndarray | None,
        history: tuple[Any, ...],
    ) -> tuple[Any, int]:
        """A whole forward solve -> (counts, bytes held). ``history``: to go on with, its places, to be kept; or ()."""
        method, stop, threads = setup.options.native, setup.options.stop, setup.threads
        counts = self._native.solve(
            start, injection, setup.result, setup.report.native, scales, method, stop, threads, *history
        )
        return counts, self._solve_bytes(threads, method, stop, setup.state.rows)

    def _integrate(
        self,
        state: State,
        injection: np.ndarray,
        times: np.ndarray,
        values: np.ndarray,
        report: Any,
        options: Any,
        threads: int,
    ) -> tuple[Any, int]:
        """A whole integration -> (counts, bytes held)."""
        counts = self._native.integrate(state.block, injection, times, values, report, options, threads)
        return counts, self._native.integrate_bytes(threads, options, state.rows)

    def _solve_linearised(
        self, setup: Setup, injection: np.ndarray, right: np.ndarray, start: np.ndarray | None
    ) -> tuple[Any, int]:
        """A whole backward or forward-mode solve -> (counts, bytes it held)."""
        how = setup.options.native, setup.options.stop
        solve = self._native.solve_adjoint if setup.name == "adjoint" else self._native.solve_tangent
        counts = solve(
            setup.state.block, injection, right, start, setup.result, setup.report.native, *how, setup.threads
        )
        return counts, self._adjoint_bytes(setup.threads, *how, setup.state.rows)

    def _per_row(self, injection: np.ndarray, state: State) -> np.ndarray:
        """The injection with a row for each row of the state, so that it can be gathered like any row argument."""
        return np.ascontiguousarray(np.broadcast_to(injection, state.block.shape)).reshape(state.shape)

    def _inputs(self, z: Any, injection: Any) -> tuple[State, np.ndarray]:
        state = check_state(z, "z")
        return state, self._injection((), (injection,), False, state)

    def _injection(
        self, args: tuple[Any, ...], row_args: Any, pass_rows: bool, state: State, what: str = "z"
    ) -> np.ndarray:
        """The one row argument of this map, as (1, width) or (rows, width); ``what`` names the state in errors."""
        return native_row_arg(
            (args, row_args, pass_rows), "injection", "map", state, what,
            dtype=self._dtype, width=self._width, shape=state.shape,
        )  # fmt: skip


_GRADIENT_OPTIONS = keyword_options(Dense.value_and_gradients)
