# SPDX-License-Identifier: Apache-2.0
"""A dense field with a condition, integrated and differentiated wholly in C++."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _core
from ._arrays import check_numpy, describe
from ._dialogue import State, check_state, native_row_arg
from ._options import threads_named

__all__ = ["Field"]

_CLASSES = {np.dtype(np.float32): _core.Field32, np.dtype(np.float64): _core.Field64}


class Field:
    """The field F(z, u) = A2 a(A1 z + u) + b2 with the condition u, applied to each row: dz/dt = F(z, u).

    Given to :func:`deqcore.odeint` and :func:`deqcore.odeint_adjoint` as ``f``, with ``row_args=(u,)``, it is
    integrated and differentiated wholly in C++, tile by tile, without the interpreter lock. With d = a'(A1 z + u),
    y = a(A1 z + u) and D = d * (A2' c) for a cotangent c of F: c' dF/dz = A1' D, c' dF/du = D, and summed over the rows
    c' dF/dA1 = D z', c' dF/dA2 = c y', c' dF/db2 = c.

    The weights are copied and packed at construction; new weights make a new field.

    Args:
        A1: ``(hidden, width)``, float32 or float64; everything else has the same dtype.
        A2: ``(width, hidden)``.
        b2: ``(width,)``; None is zero.
        activation: one of :data:`deqcore.maps.activations`.

    Raises:
        TypeError: not NumPy arrays of one float dtype, or the activation is not a string.
        ValueError: shapes that do not fit, nothing in them, not finite, or an unknown activation.

    Source: Ding, Cui, Wang and Shi 2023, whose field adds the condition between two layers.

    Example:
        >>> import numpy as np, deqcore
        >>> rng = np.random.default_rng(0)
        >>> A1, A2 = rng.standard_normal((64, 32)) / 8, rng.standard_normal((32, 64)) / 8
        >>> u = rng.standard_normal((5, 64))
        >>> field, z0, times = deqcore.maps.Field(A1, A2), np.zeros((5, 32)), [0.0, 1.0]
        >>> z = deqcore.odeint(field, z0, times, row_args=(u,), method=deqcore.RK4(steps=4)).value
        >>> step = deqcore.odeint_adjoint(field, None, z, times, z[-1], row_args=(u,), method=deqcore.RK4(steps=4))
        >>> step.z0.shape, step.row_args[0].shape, [gradient.shape for gradient in step.parameters]
        ((5, 32), (5, 64), [(64, 32), (32, 64), (32,)])
    """

    def __init__(self, A1: np.ndarray, A2: np.ndarray, b2: np.ndarray | None = None, activation: str = "tanh") -> None:
        """Copy and pack the weights."""
        if not isinstance(activation, str):
            raise TypeError(f"activation: {activation!r} given; expected one of {', '.join(_core.activations)}")
        first, second = (self._matrix(matrix, name) for matrix, name in ((A1, "A1"), (A2, "A2")))
        if second.dtype != first.dtype:
            raise TypeError(f"A2: {describe(A2)} given; expected dtype {first.dtype}")
        if second.shape != first.shape[::-1]:
            raise ValueError(f"A2: {describe(A2)} given; expected shape {first.shape[::-1]}")
        self._hidden, self._width = first.shape
        self._dtype, self._activation = first.dtype, activation
        if b2 is None:
            bias = np.zeros(self._width, first.dtype)
        else:
            bias = check_state(b2, "b2").block
            if b2.shape != (self._width,) or b2.dtype != first.dtype:
                raise ValueError(f"b2: {describe(b2)} given; expected shape ({self._width},) and dtype {first.dtype}")
        self._native = _CLASSES[first.dtype](first, second, bias.reshape(-1), activation)

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse: the field is integrated in C++, which would never call what a subclass overrides."""
        raise TypeError("Field: cannot be subclassed; write a callable that uses a Field instead")

    @staticmethod
    def _matrix(matrix: Any, name: str) -> np.ndarray:
        check_numpy(matrix, name)
        if matrix.ndim != 2:
            raise ValueError(f"{name}: {describe(matrix)} given; expected a matrix")
        block: np.ndarray = check_state(matrix, name).block
        return block

    @property
    def width(self) -> int:
        """Elements of one row of z."""
        return int(self._width)

    @property
    def hidden(self) -> int:
        """Elements of one row of u."""
        return int(self._hidden)

    @property
    def dtype(self) -> Any:
        """The dtype of the weights and of every state."""
        return self._dtype

    @property
    def activation(self) -> str:
        """The activation's name."""
        return self._activation

    def __repr__(self) -> str:
        """The sizes, activation and dtype."""
        return f"Field(width={self.width}, hidden={self.hidden}, activation={self.activation!r}, dtype={self.dtype})"

    def __reduce__(self) -> Any:
        """Refuse pickling: the weights are packed for this machine."""
        raise TypeError(
            "Field cannot be pickled: its weights are packed for this machine; pickle them and make it anew"
        )

    def __call__(self, z: np.ndarray, u: np.ndarray, *, threads: int | None = None) -> np.ndarray:
        """Evaluate F(z, u) = A2 a(A1 z + u) + b2.

        Args:
            z: states, ``(rows, width)`` or ``(width,)``, of the field's dtype.
            u: the condition: one row for all, ``(hidden,)`` or ``(1, hidden)``, or one per row, ``(rows, hidden)``.
            threads: most threads; None is :func:`deqcore.num_threads`.

        Returns:
            A new array like z.

        Raises:
            TypeError, ValueError: a wrong dtype, a wrong shape, nothing in it, not finite.

        Example:
            >>> import numpy as np, deqcore
            >>> field = deqcore.maps.Field(np.array([[1.0], [2.0]]), np.array([[1.0, 1.0]]), activation="relu")
            >>> field(np.array([[1.0], [-1.0]]), np.array([0.0, 1.0])).tolist()
            [[4.0], [0.0]]
        """
        state = check_state(z, "z")
        condition = self._injection((), (u,), False, state, "z")
        value = np.empty_like(state.block)
        self._native.value(state.block, condition, value, threads_named(threads))
        return value.reshape(state.shape)

    def vjp(
        self, z: np.ndarray, a: np.ndarray, u: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The products of a cotangent with the field's derivatives.

        Args:
            z, u: as for a call of the field.
            a: the cotangent, of the shape and dtype of z.

        Returns:
            ``(a' dF/dz, a' dF/du, (a' dF/dA1, a' dF/dA2, a' dF/db2))``; the second has the shape of u, and is summed
            over the rows where u is one for all, as the last three are.

        Raises:
            TypeError, ValueError: as for a call of the field.

        Example:
            >>> import numpy as np, deqcore
            >>> field = deqcore.maps.Field(np.array([[2.0]]), np.array([[3.0]]), activation="identity")
            >>> dz, du, (dA1, dA2, db2) = field.vjp(np.array([[5.0]]), np.array([[1.0]]), np.array([[0.5]]))
            >>> dz.tolist(), du.tolist(), dA1.tolist(), dA2.tolist(), db2.tolist()
            ([[6.0]], [[3.0]], [[15.0]], [[10.5]], [1.0])
        """
        state = check_state(z, "z")
        condition = self._injection((), (u,), False, state, "z")
        dz, du, gradients = np.empty_like(state.block), np.empty_like(condition), self._gradients()
        self._native.vjp(state.block, condition, check_state(a, "a", state).block, dz, du, *gradients)
        return dz.reshape(state.shape), du.reshape(u.shape), gradients

    def _gradients(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Zeros shaped like A1, A2 and b2."""
        shapes = (self._hidden, self._width), (self._width, self._hidden), (self._width,)
        A1, A2, b2 = (np.zeros(shape, self._dtype) for shape in shapes)
        return A1, A2, b2

    def _integrate(
        self,
        state: State,
        condition: np.ndarray,
        times: np.ndarray,
        values: np.ndarray,
        report: Any,
        options: Any,
        threads: int,
    ) -> tuple[Any, int]:
        """A whole integration -> (counts, bytes held)."""
        counts = self._native.integrate(state.block, condition, times, values, report, options, threads)
        return counts, self._native.integrate_bytes(threads, options, state.rows)

    def _injection(
        self, args: tuple[Any, ...], row_args: Any, pass_rows: bool, state: State, what: str = "z"
    ) -> np.ndarray:
        """The one row argument of this field, as (1, hidden) or (rows, hidden); ``what`` names the state in errors."""
        return native_row_arg(
            (args, row_args, pass_rows), "u", "field", state, what,
            dtype=self._dtype, width=self._width, shape=(state.rows, self._hidden),
        )  # fmt: skip
