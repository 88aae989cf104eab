# SPDX-License-Identifier: Apache-2.0
"""How good an implicit gradient is: the adjoint solve, exact or approximate, against a dense one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from ._adjoint import adjoint
from ._arrays import describe
from ._dialogue import State, check_state
from ._methods import Method, Phantom, resolve_method
from ._options import keyword_options, real, refuse_unknown
from ._products import asked, host_state
from ._solution import Status
from .maps import Dense

__all__ = ["GradientCheck", "check_gradient"]


@dataclass(frozen=True, eq=False, repr=False)
class GradientCheck:
    """How an adjoint solve compares with a dense one, from :func:`check_gradient`; arrays have one entry per row.

    Attributes:
        cosine: float64, of the angle between ``u`` and ``exact``: 1 is the same direction. NaN without a reference.
        relative_error: float64, \\|u - exact\\| / \\|exact\\|. NaN without a reference.
        condition: float64, the condition number of I - J in the 2-norm: errors of J and g grow by up to this factor in
            ``exact``. Infinite where I - J is singular, NaN where J is not finite.
        products: products with J' that the method used, as ``Solution.nfe`` counts them.
        status: int8, how the method ended; see :class:`Status`.
        u: what the method gave, of the shape and dtype of z.
        exact: float64, the dense solution, of the shape of z; NaN in rows where I - J is singular or not finite.

    Example:
        >>> import numpy as np, deqcore
        >>> A, g = np.array([[0.5, 0.2], [0.0, 0.3]]), np.ones((1, 2))
        >>> print(deqcore.check_gradient(lambda z, v: v @ A, np.zeros((1, 2)), g, method="picard", rtol=1e-3))
        picard against a dense solve: 1 row, 10 products with J'.
        Relative error: at most 0.00098 (row 0), median 0.00098. Cosine: at least 1 (row 0).
        Condition of I - J: at most 1.6.
    """

    cosine: np.ndarray
    relative_error: np.ndarray
    condition: np.ndarray
    products: int
    status: np.ndarray
    u: np.ndarray
    exact: np.ndarray
    _method: str = ""
    _against: str = "dense"

    def __repr__(self) -> str:
        """The first line of what :meth:`explain` says."""
        return f"<GradientCheck {self.explain().splitlines()[0]}>"

    def __str__(self) -> str:
        """What :meth:`explain` says."""
        return self.explain()

    def explain(self) -> str:
        """Say in plain words how the gradient compares, and which rows have no reference or did not converge.

        Example:
            >>> import numpy as np, deqcore
            >>> check = deqcore.check_gradient(lambda z, v: v.copy(), np.zeros((1, 2)), np.ones((1, 2)))
            >>> print(check.explain().splitlines()[1])
            I - J is singular in 1 row (row 0): there is no gradient to compare with.
        """
        rows = len(self.status)
        reference = "a dense solve" if self._against == "dense" else "a dense solve with J by differences"
        lines = [f"{self._method} against {reference}: {_rows(rows)}, {self.products} products with J'."]
        known = np.flatnonzero(np.isfinite(self.condition))
        if len(known):
            errors, cosines = self.relative_error[known], self.cosine[known]
            least, most = int(np.argmin(cosines)), int(np.argmax(errors))
            lines += [
                f"Relative error: at most {errors[most]:.2g} (row {known[most]}), median {np.median(errors):.2g}. "
                f"Cosine: at least {cosines[least]:.6g} (row {known[least]}).",
                f"Condition of I - J: at most {self.condition[known].max():.2g}.",
            ]
        for members, words in (
            (np.isinf(self.condition), "I - J is singular in"),
            (np.isnan(self.condition), "J is not finite in"),
        ):
            if members.any():
                lines.append(f"{words} {_named(np.flatnonzero(members))}: there is no gradient to compare with.")
        for code in np.unique(self.status[self.status != Status.converged]):
            lines.append(f"The method ended as {Status(code).name} in {_named(np.flatnonzero(self.status == code))}.")
        return "\n".join(lines)


def check_gradient(
    map_or_vjp: Callable[..., Any] | Dense,
    z: np.ndarray,
    g: np.ndarray,
    *,
    args: tuple[Any, ...] = (),
    row_args: tuple[Any, ...] = (),
    f: Callable[..., Any] | None = None,
    method: Method | str | None = None,
    rtol: float | None = None,
    max_steps: int = 200,
    against: str = "dense",
    step: float | None = None,
    **unknown: NoReturn,
) -> GradientCheck:
    """Compare the solution of :func:`adjoint`, by any method, with a dense float64 solve of (I - J(z))' u = g.

    J is assembled for all rows at once, ``rows * width^2`` float64 numbers: for checks, not for training. Against
    ``"dense"``, by width products with unit vectors, which judges the method and trusts the products. Against
    ``"differences"``, by 2 width values of f, which judges the products too; J is then known to some 1e-10 at float64
    and 1e-4 at float32, times \\|f\\|.

    A row counts as singular where the smallest singular value of I - J is within what J is known to: sqrt(width) times
    eps of the dtype against ``"dense"``, eps^(2/3) against ``"differences"``, relative to the larger of 1 and the
    largest one.

    Args:
        map_or_vjp: ``vjp(z, v, *args, *row_args)`` returning J(z)' v, of the shape and dtype of v; or a native map.
        z: where J is taken, usually fixed points; a NumPy array, float32 or float64, shape ``(rows, ...)``;
            ``(width,)`` is one row.
        g: the gradients, of the shape and dtype of z.
        args: passed to the map whole.
        row_args: arrays with one entry per row; ``(injection,)`` for a :class:`maps.Dense`.
        f: the map, ``f(z, *args, *row_args)``, for ``"differences"`` and for :class:`Phantom`; None is the native map.
        method, rtol, max_steps: as for :func:`adjoint`. No row's failure raises: see ``GradientCheck.status``.
        against: ``"dense"`` or ``"differences"``.
        step: half the distance of the two values of a central difference, relative to max(1, \\|z_i\\|) for each
            element; None is eps^(1/3) of the dtype. For ``"differences"`` only.

    Returns:
        A :class:`GradientCheck`. Where ``u`` and the reference are both 0, the cosine is 1 and the error 0.

    Raises:
        TypeError: an argument of the wrong kind or dtype, an unknown option, a map that does not return an array, no f.
        ValueError: an argument out of range or of the wrong shape, or not finite; an option that has no effect.
        Exception: whatever the map raises, unchanged.

    Source: the comparisons of approximate implicit gradients by Geng et al. 2021, "On Training Implicit Models", and
    Ramzi et al. 2022, "SHINE".

    Example:
        >>> import numpy as np, deqcore
        >>> rng = np.random.default_rng(0)
        >>> layer = deqcore.maps.Dense(0.1 * rng.standard_normal((16, 16)), activation="tanh")
        >>> x, g = rng.standard_normal((2, 4, 16))
        >>> z = deqcore.fixed_point(layer, np.zeros((4, 16)), row_args=(x,)).value
        >>> check = deqcore.check_gradient(layer, z, g, row_args=(x,), against="differences")
        >>> bool((check.relative_error < 1e-8).all()), bool((check.cosine > 1 - 1e-12).all())
        (True, True)
    """
    if unknown:
        refuse_unknown("check_gradient", unknown, _OPTIONS)
    if not callable(map_or_vjp):
        raise TypeError(f"map_or_vjp: {describe(map_or_vjp)} given; expected vjp(z, v, ...) or a map from deqcore.maps")
    state = host_state(z, "z")
    right = check_state(g, "g", like=state)
    vjp = asked(map_or_vjp, "vjp", state, args, row_args)
    if not isinstance(against, str) or against not in ("dense", "differences"):
        raise ValueError(f"against: {against!r} given; expected 'dense' or 'differences'")
    eps = float(np.finfo(state.dtype).eps)
    unrolls = isinstance(resolve_method(method, "adjoint"), Phantom)
    if against == "dense":
        for what, given in (("f", None if unrolls else f), ("step", step)):
            if given is not None:
                raise ValueError(f"{what}: given with against='dense'; expected None: only 'differences' uses it")
    else:
        values = asked(_map_named(f, map_or_vjp), "f", state, args, row_args)
        relative_step = eps ** (1 / 3) if step is None else real(step, "step")
        if not (math.isfinite(relative_step) and relative_step > 0):
            raise ValueError(f"step: {relative_step:g} given; expected a finite number > 0, or None")

    solution = adjoint(
        map_or_vjp,
        z,
        g,
        args=args,
        row_args=row_args,
        f=f if unrolls else None,
        method=method,
        rtol=rtol,
        max_steps=max_steps,
        on_failure="return",
    )
    if against == "dense":
        J, known_to = _by_products(vjp, state), eps
    else:
        J, known_to = _by_differences(values, state, relative_step), eps ** (2 / 3)
    exact, condition = _dense_solve(J, right.block.astype(np.float64), known_to)
    u = solution.value.reshape(state.block.shape).astype(np.float64)
    cosine, relative_error = _compared(u, exact)
    return GradientCheck(
        cosine,
        relative_error,
        condition,
        solution.nfe,
        solution.status,
        solution.value,
        exact.reshape(state.shape),
        str(solution.method[0]),
        against,
    )


_OPTIONS = keyword_options(check_gradient)


def _map_named(f: Any, map_or_vjp: Any) -> Any:
    """The map whose values are taken."""
    if f is None and isinstance(map_or_vjp, Dense):
        return map_or_vjp
    if not callable(f):
        raise TypeError(f"f: {describe(f)} given with against='differences'; expected the map f(z, ...)")
    return f


def _by_products(vjp: Callable[..., np.ndarray], state: State) -> np.ndarray:
    """J of every row at float64, (rows, width, width), from J' e_i, its row i."""
    J = np.empty((state.rows, state.width, state.width))
    unit = np.zeros_like(state.block)
    for i in range(state.width):
        unit[:, i] = 1
        J[:, i] = vjp(state.block, unit)
        unit[:, i] = 0
    return J


def _by_differences(f: Callable[..., np.ndarray], state: State, step: float) -> np.ndarray:
    """The same column by column, from values on both sides of z."""
    J = np.empty((state.rows, state.width, state.width))
    below, above = state.block.copy(), state.block.copy()
    for i in range(state.width):
        here = state.block[:, i].astype(np.float64)
        h = step * np.maximum(1, np.abs(here))
        below[:, i], above[:, i] = here - h, here + h
        apart = above[:, i].astype(np.float64) - below[:, i]  # as rounded
        difference = f(above).astype(np.float64) - f(below)
        J[:, :, i] = difference / apart[:, None]
        below[:, i] = above[:, i] = state.block[:, i]
    return J


def _dense_solve(J: np.ndarray, g: np.ndarray, known_to: float) -> tuple[np.ndarray, np.ndarray]:
    """-> u of (I - J)' u = g, the condition of I - J, row by row."""
    rows, width = g.shape
    exact, condition = np.full((rows, width), math.nan), np.full(rows, math.nan)
    for r in np.flatnonzero(np.isfinite(J).all(axis=(1, 2))):
        A = np.eye(width) - J[r]
        sizes = np.linalg.svd(A, compute_uv=False)
        singular = sizes[-1] <= math.sqrt(width) * known_to * max(1.0, sizes[0])
        condition[r] = math.inf if singular else sizes[0] / sizes[-1]
        if not singular:
            exact[r] = np.linalg.solve(A.T, g[r])
    return exact, condition


def _compared(u: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-> cosine, relative error, row by row."""
    lengths = np.linalg.norm(u, axis=1), np.linalg.norm(exact, axis=1)
    apart = np.linalg.norm(u - exact, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.einsum("rj,rj->r", u / lengths[0][:, None], exact / lengths[1][:, None])
        relative_error = apart / lengths[1]
    both_zero = (lengths[0] == 0) & (lengths[1] == 0)
    one_zero = (lengths[0] == 0) ^ (lengths[1] == 0)
    cosine = np.where(both_zero, 1, np.where(one_zero & ~np.isnan(lengths[1]), 0, np.clip(cosine, -1, 1)))
    return cosine, np.where(both_zero, 0, relative_error)


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def _named(members: np.ndarray) -> str:
    """How many rows, and the first few."""
    shown = ", ".join(map(str, members[:5])) + (", ..." if len(members) > 5 else "")
    return f"{_rows(len(members))} (row{'s' if len(members) > 1 else ''} {shown})"
