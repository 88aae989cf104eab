# SPDX-License-Identifier: Apache-2.0
"""The methods, as options."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, ClassVar, NoReturn

from . import _core
from ._arrays import describe
from ._options import flag, integer, real, refuse_unknown
from ._warm import Warm

__all__ = [
    "BY_NAME",
    "GMRES",
    "SHINE",
    "Anderson",
    "AndersonTypeI",
    "Approximate",
    "BiCGSTAB",
    "Broyden",
    "Direct",
    "Homotopy",
    "JacobianFree",
    "Method",
    "Neumann",
    "Newton",
    "NewtonKrylov",
    "NewtonMethod",
    "Phantom",
    "Picard",
    "SteadyState",
    "Tracker",
    "default_steps",
    "native_of",
    "resolve_method",
]


class Method:
    """Base of the methods. Each is a frozen set of options; its numbers are checked when it is made.

    Fixed-point methods: :class:`Picard`, :class:`Anderson`, :class:`AndersonTypeI`, :class:`Broyden`,
    :class:`SteadyState`. Newton's methods, which also find roots as such: :class:`NewtonKrylov`, :class:`Newton`.
    Continuation: :class:`Homotopy`. Linear methods: :class:`GMRES`, :class:`BiCGSTAB`, :class:`Direct`. Approximate
    gradients, by name: :class:`JacobianFree`, :class:`Neumann`, :class:`Phantom`, :class:`SHINE`.

    Example:
        >>> import deqcore
        >>> isinstance(deqcore.Anderson(), deqcore.Method), deqcore.Anderson() == deqcore.Anderson(history=6)
        (True, True)
    """

    name: ClassVar[str]
    _solves: ClassVar[tuple[str, ...]]  # the functions that take it
    _core_name: ClassVar[str] = ""  # of its options in the core, if not the class's

    def __init__(self, **options: Any) -> None:
        """Refuse: the base is not a method."""
        raise TypeError("Method: give one of the methods, such as deqcore.Anderson(history=6)")

    def _native(self) -> Any:
        options = getattr(_core, self._core_name or type(self).__name__)()
        for option in fields(self):  # type: ignore[arg-type]
            setattr(options, option.name, getattr(self, option.name))
        return options

    def _checked(self) -> None:
        """Let the core refuse numbers out of range."""
        if "linear_solve" in self._solves:
            _core.LinearSolve64.scratch_bytes(1, 1, self._native(), _core.Stop(), False)
        elif isinstance(self, NewtonMethod):
            _core.NewtonSolve64.scratch_bytes(1, 1, self._native(), _core.Stop(), False, False)
        else:
            _core.Adjoint64.scratch_bytes(1, 1, self._native(), _core.Stop())


@dataclass(frozen=True, init=False)
class Picard(Method):
    """Picard iteration, z <- z + beta (f(z) - z); one map evaluation per step, no memory.

    Args:
        beta: weight of the new value, in (0, 2); 1 is undamped, below 1 is Krasnoselskii-Mann.

    Raises:
        ValueError: beta is outside its range.
        TypeError: beta is not a number, or an option is unknown.

    Example:
        >>> import deqcore
        >>> deqcore.Picard(beta=0.5)
        Picard(beta=0.5)
    """

    beta: float
    name: ClassVar[str] = "picard"
    _solves: ClassVar[tuple[str, ...]] = ("fixed_point", "root", "adjoint", "tangent")

    def __init__(self, *, beta: float = 1.0, **unknown: NoReturn) -> None:
        if unknown:
            refuse_unknown("Picard", unknown, ("beta",))
        object.__setattr__(self, "beta", real(beta, "beta"))
        self._checked()


@dataclass(frozen=True, init=False)
class Anderson(Method):
    """Anderson acceleration, type II: the last residuals are combined to the smallest one, row by row.

    With g = f(z) - z and columns dF, dG of differences of the last images and residuals,
    gamma = argmin \\|g - dG gamma\\|^2 + ridge sum_j \\|dG_j\\|^2 gamma_j^2 and
    z_next = f - dF gamma - (1 - beta) (g - dG gamma) (Anderson 1965; Walker and Ni 2011, SIAM J. Numer. Anal. 49).

    Args:
        history: columns of differences, 1 to 32. Memory: 2 history + 4 states per row; in 16 bits history + 4 of
            float32, and history / 2 + 4 of float64.
        beta: weight of the new value, in (0, 2); 1 is undamped.
        ridge: regularisation, relative to each diagonal entry of the Gram matrix, at least 0.
        growth: a residual above this many times the row's best clears the row's window, so that the next step is
            plain; above 1, ``math.inf`` never clears.
        storage: what the columns are kept in: ``"full"`` is the state's own dtype, ``"bfloat16"`` 16 bits, the range of
            float32 with 8 significant bits. Residuals and the status are measured in full precision as ever. On tanh
            layers with random weights or outlying eigenvalues it takes as many evaluations, within 2 %; where a full
            window would end after a few steps, as on linear maps with few different eigenvalues, 2 to 20 times as many.
            Worth it where memory is short, and for wide float64 states, whose steps took a fifth less time; wide
            float32 steps took the same, and steps in cache took longer, by a quarter and more. The ridge
            is 2^-19 at least. A difference beyond 3.39e38 clears the row's window, which ``singular`` counts; those
            below 4.6e-41 are zeros.

    Raises:
        ValueError: a number is outside its range, or ``storage`` is neither.
        TypeError: a number is of the wrong kind, or an option is unknown.

    Example:
        >>> import deqcore
        >>> deqcore.Anderson(history=10).history
        10
    """

    history: int
    beta: float
    ridge: float
    growth: float
    storage: str
    name: ClassVar[str] = "anderson"
    _solves: ClassVar[tuple[str, ...]] = ("fixed_point", "root", "adjoint", "tangent")

    def __init__(
        self,
        *,
        history: int = 6,
        beta: float = 1.0,
        ridge: float = 1e-12,
        growth: float = 10.0,
        storage: str = "full",
        **unknown: NoReturn,
    ) -> None:
        if unknown:
            refuse_unknown("Anderson", unknown, ("history", "beta", "ridge", "growth", "storage"))
        if not isinstance(storage, str) or storage not in ("full", "bfloat16"):
            raise ValueError(f"storage: {storage!r} given; expected 'full' or 'bfloat16'")
        object.__setattr__(self, "history", integer(history, "history"))
        object.__setattr__(self, "beta", real(beta, "beta"))
        object.__setattr__(self, "ridge", real(ridge, "ridge"))
        object.__setattr__(self, "growth", real(growth, "growth"))
        if math.isnan(self.growth):
            raise ValueError("growth: nan given; expected a number above 1, or infinity")
        object.__setattr__(self, "storage", storage)
        self._checked()

    def _native(self) -> Any:
        options = _core.Anderson()
        for option in ("history", "beta", "ridge", "growth"):
            setattr(options, option, getattr(self, option))
        options.storage = getattr(_core.Storage, self.storage)
        return options


@dataclass(frozen=True, init=False)
class AndersonTypeI(Method):
    """Anderson acceleration, type I, with safeguards: a secant approximation of the inverse Jacobian, row by row.

    With r = f(z) - z, B near the inverse of dr/dz, s the last step, s_hat its part orthogonal to the steps before, y
    the change of r over it and gamma = (s_hat, B y) / \\|s_hat\\|^2,
    B <- B + (s - B y) (s_hat' B) / (gamma \\|s_hat\\|^2) and z_next = z - B r. Three safeguards make it converge
    wherever f is nonexpansive and has a fixed point: Powell's regularisation of the update, a new beginning when the
    steps become dependent, and averaged steps z_next = z + beta r where the residual does not fall (Zhang, O'Donoghue
    and Boyd 2020, SIAM J. Optim. 30). No step costs a second evaluation.

    Args:
        history: steps remembered, 1 to 32; when the memory is full a row begins anew. Memory: 2 history + 4 states and
            history^2 + 4 history numbers per row.
        beta: weight of the new value in an averaged step, in (0, 1]; 1 is plain.
        powell: least \\|gamma\\| of an update, below which the update is mixed with what is known, in (0, 1).
        independence: a step with \\|s_hat\\| below this share of \\|s\\| makes its row begin anew, in (0, 1).
        safeguard: a residual above safeguard \\|r_0\\| / (accelerated steps + 1)^(1 + decay) is followed by an averaged
            step, which ``rejected`` counts; above 0, ``math.inf`` never.
        decay: of that bound, above 0.

    Raises:
        ValueError: a number is outside its range.
        TypeError: a number is of the wrong kind, or an option is unknown.

    Example:
        >>> import numpy as np, deqcore
        >>> deqcore.fixed_point(lambda z: np.cos(z), np.ones((2, 3)), method=deqcore.AndersonTypeI(history=5)).success
        True
    """

    history: int
    beta: float
    powell: float
    independence: float
    safeguard: float
    decay: float
    name: ClassVar[str] = "anderson_type_i"
    _solves: ClassVar[tuple[str, ...]] = ("fixed_point", "root", "adjoint", "tangent")

    def __init__(
        self,
        *,
        history: int = 10,
        beta: float = 0.1,
        powell: float = 0.01,
        independence: float = 1e-3,
        safeguard: float = 1e6,
        decay: float = 1e-6,
        **unknown: NoReturn,
    ) -> None:
        if unknown:
            known = ("history", "beta", "powell", "independence", "safeguard", "decay")
            refuse_unknown("AndersonTypeI", unknown, known)
        object.__setattr__(self, "history", integer(history, "history"))
        object.__setattr__(self, "beta", real(beta, "beta"))
        object.__setattr__(self, "powell", real(powell, "powell"))
        object.__setattr__(self, "independence", real(independence, "independence"))
        object.__setattr__(self, "safeguard", real(safeguard, "safeguard"))
        object.__setattr__(self, "decay", real(decay, "decay"))
        self._checked()


@dataclass(frozen=True, init=False)
class Broyden(Method):
    """Broyden's good method with limited memory: a secant approximation of the inverse Jacobian, row by row.

    With r = f(z) - z, B near the inverse of dr/dz, s = -B r the step and y the change of r over it,
    B <- B + (s - B y) (s' B) / (s' B y), kept as -I plus pairs (Broyden 1965, Math. Comp. 19).

    Args:
        history: pairs, 1 to 500; 3 to 32 to compress. Memory: 2 history + 4 states per row.
        full: what happens when the memory is full: ``"restart"`` begins anew, ``"compress"`` keeps the best
            approximation of the sum by two pairs less, by singular values. (Overwriting the oldest pair would break the
            inverse: there is no such option.)
        growth: a residual above this many times the row's best makes the row forget, so that the next step is plain;
            above 1, ``math.inf`` never.

    Raises:
        ValueError: a number is outside its range, or ``full`` is neither.
        TypeError: a number is of the wrong kind, or an option is unknown.

    Example:
        >>> import deqcore
        >>> deqcore.Broyden(history=20).full
        'restart'
    """

    history: int
    full: str
    growth: float
    name: ClassVar[str] = "broyden"
    _solves: ClassVar[tuple[str, ...]] = ("fixed_point", "root", "adjoint", "tangent")

    def __init__(
        self, *, history: int = 10, full: str = "restart", growth: float = 1000.0, **unknown: NoReturn
    ) -> None:
        if unknown:
            refuse_unknown("Broyden", unknown, ("history", "full", "growth"))
        if not isinstance(full, str) or full not in ("restart", "compress"):
            raise ValueError(f"full: {full!r} given; expected 'restart' or 'compress'")
        object.__setattr__(self, "history", integer(history, "history"))
        object.__setattr__(self, "full", full)
        object.__setattr__(self, "growth", real(growth, "growth"))
        if math.isnan(self.growth):
            raise ValueError("growth: nan given; expected a number above 1, or infinity")
        self._checked()

    def _native(self) -> Any:
        options = _core.Broyden()
        options.history, options.growth = self.history, self.growth
        options.full = getattr(_core.Full, self.full)
        return options


@dataclass(frozen=True, init=False)
class SteadyState(Method):
    """The continuous equilibrium model: dz/dt = f(z) - z integrated to where it rests, row by row.

    An explicit pair with the error of a step held below ``accuracy`` times the step itself, so that the steps are as
    long as is stable: 3 evaluations each by the pair of Bogacki and Shampine, 6 by that of Dormand and Prince. A rest
    point is a fixed point of f, tested like any other, and implicit differentiation is valid there. It needs no
    contraction, only that the rest point attracts: J - I has its eigenvalues in the left half plane. Where others
    converge, it takes several times more evaluations than they do, and the more the stiffer f is. ``rejected`` counts
    steps given up: a step is shortened until its error is small and f is finite at all its stages, so a row ends as
    ``diverged`` where the flow itself runs away, and as ``step_underflow`` at most jumps of f: a pair whose error does
    not see one may step across it.

    Args:
        pair: ``"bogacki_shampine"`` or ``"dormand_prince"``. Memory: 7 or 10 states per row.
        accuracy: largest error of a step, as a share of it, in (0, 0.2]; beyond that steps are not stable.
        first_step: in the units of t, above 0; shortened where it is too long, for a few evaluations.

    Raises:
        ValueError: a number is outside its range, or ``pair`` is neither.
        TypeError: a number is of the wrong kind, or an option is unknown.

    Example:
        >>> import numpy as np, deqcore
        >>> steep = lambda z: -5 * z + 6                                  # no contraction: Picard runs away
        >>> z = deqcore.fixed_point(steep, np.zeros((1, 1)), method=deqcore.SteadyState())
        >>> z.success, z.value.round(6).tolist()
        (True, [[1.0]])
    """

    pair: str
    accuracy: float
    first_step: float
    name: ClassVar[str] = "steady_state"
    _solves: ClassVar[tuple[str, ...]] = ("fixed_point",)

    def __init__(
        self,
        *,
        pair: str = "bogacki_shampine",
        accuracy: float = 0.1,
        first_step: float = 1.0,
        **unknown: NoReturn,
    ) -> None:
        if unknown:
            refuse_unknown("SteadyState", unknown, ("pair", "accuracy", "first_step"))
        if not isinstance(pair, str) or pair not in ("bogacki_shampine", "dormand_prince"):
            raise ValueError(f"pair: {pair!r} given; expected 'bogacki_shampine' or 'dormand_prince'")
        object.__setattr__(self, "pair", pair)
        object.__setattr__(self, "accuracy", real(accuracy, "accuracy"))
        object.__setattr__(self, "first_step", real(first_step, "first_step"))
        _core.FixedPoint64.scratch_bytes(1, 1, self._native(), _core.Stop())

    def _native(self) -> Any:
        options = _core.SteadyState()
        options.accuracy, options.first_step = self.accuracy, self.first_step
        options.pair = getattr(_core.Pair, self.pair)
        return options


@dataclass(frozen=True, init=False)
class GMRES(Method):
    """Restarted GMRES: the smallest residual over a growing basis, one product per step (Saad and Schultz 1986).

    The basis is orthonormal, by Gram-Schmidt done a second time where the first took away too much. The residual that
    is reported is measured by a product of its own. With a preconditioner it is flexible, from the right (Saad 1993).

    Args:
        restart: vectors in the basis before it is begun anew, 1 to 500, never more than the width needs. Memory per
            row: restart + 4 states (twice that with a preconditioner) and restart (restart + 11) / 2 float64.

    Raises:
        ValueError: restart is outside its range.
        TypeError: restart is not an integer, or an option is unknown.

    Example:
        >>> import deqcore
        >>> deqcore.GMRES(restart=20)
        GMRES(restart=20)
    """

    restart: int
    name: ClassVar[str] = "gmres"
    _solves: ClassVar[tuple[str, ...]] = ("linear_solve", "adjoint", "tangent")

    def __init__(self, *, restart: int = 40, **unknown: NoReturn) -> None:
        if unknown:
            refuse_unknown("GMRES", unknown, ("restart",))
        object.__setattr__(self, "restart", integer(restart, "restart"))
        self._checked()


@dataclass(frozen=True, init=False)
class BiCGSTAB(Method):
    """BiCGSTAB: two products per step and few vectors, whatever the number of steps (van der Vorst 1992).

    Less robust than :class:`GMRES`: it breaks down on rows whose spectrum is close to the imaginary axis. A row that it
    cannot go on with ends as ``breakdown``. Memory: 7 states per row, 8 with a preconditioner.

    Raises:
        TypeError: an option is given; it has none.

    Example:
        >>> import deqcore
        >>> deqcore.BiCGSTAB()
        BiCGSTAB()
    """

    name: ClassVar[str] = "bicgstab"
    _solves: ClassVar[tuple[str, ...]] = ("linear_solve", "adjoint", "tangent")

    def __init__(self, **unknown: NoReturn) -> None:
        if unknown:
            refuse_unknown("BiCGSTAB", unknown, ())


@dataclass(frozen=True, init=False)
class Direct(Method):
    """LU factorisation per row, in float64, of the matrix assembled from one product per column: for narrow rows.

    Takes width + 1 products, one more for each refinement, and those on a starting point; ``max_steps`` must allow
    them. Memory: width^2 float64 per row.

    Args:
        max_width: wider rows are refused, 1 to 4096.

    Raises:
        ValueError: max_width is outside its range.
        TypeError: max_width is not an integer, or an option is unknown.

    Example:
        >>> import deqcore
        >>> deqcore.Direct()
        Direct(max_width=512)
    """

    max_width: int
    name: ClassVar[str] = "direct"
    _solves: ClassVar[tuple[str, ...]] = ("linear_solve", "adjoint", "tangent")

    def __init__(self, *, max_width: int = 512, **unknown: NoReturn) -> None:
        if unknown:
            refuse_unknown("Direct", unknown, ("max_width",))
        object.__setattr__(self, "max_width", integer(max_width, "max_width"))
        self._checked()


class Approximate(Method):
    """Base of the gradients that are approximate by name."""

    _solves: ClassVar[tuple[str, ...]] = ("adjoint",)


@dataclass(frozen=True, init=False)
class JacobianFree(Approximate):
    """The Jacobian-free gradient u = g: no product at all (Fung, Heaton, Li, McKenzie, Osher and Yin 2022).

    What it is not: a solution of (I - J)' u = g. It drops the inverse. For a contraction it is a descent direction
    under conditions on df/dtheta; on random tanh maps of width 400 its relative error is 0.34, 0.58 and 0.73 at gains
    0.5, 0.9 and 1.2 (:func:`check_gradient` measures it on yours). Rows end as ``approximate``.

    Raises:
        TypeError: an option is given; it has none.

    Example:
        >>> import numpy as np, deqcore
        >>> g = np.ones((1, 3))
        >>> solution = deqcore.adjoint(lambda z, v: 0.5 * v, np.zeros((1, 3)), g, method=deqcore.JacobianFree())
        >>> solution.value.tolist(), solution.nfe, deqcore.Status(solution.status[0]).name
        ([[1.0, 1.0, 1.0]], 0, 'approximate')
    """

    name: ClassVar[str] = "jacobian_free"

    def __init__(self, **unknown: NoReturn) -> None:
        if unknown:
            refuse_unknown("JacobianFree", unknown, ())

    def _native(self) -> Any:
        options = _core.Neumann()
        options.k, options.tau = 1, 1.0
        return options


@dataclass(frozen=True, init=False)
class Neumann(Approximate):
    """The first k terms of the damped Neumann series at z (Geng, Zhang, Bai, Wang and Lin 2021).

    u = tau sum_{i < k} (tau J' + (1 - tau) I)^i g: k - 1 products. k = 1 and tau = 1 is :class:`JacobianFree`.

    What it is not: a solution of (I - J)' u = g. There is no test: where J has an eigenvalue beyond the circle of
    radius 1 / tau around 1 - 1 / tau, more terms make it worse. Rows end as ``approximate``. The series to a
    tolerance, with a test, is :class:`Picard`.

    Args:
        k: terms, 1 to 10000.
        tau: damping, in (0, 2).

    Raises:
        ValueError: a number is outside its range.
        TypeError: a number is of the wrong kind, or an option is unknown.

    Example:
        >>> import numpy as np, deqcore
        >>> g = np.ones((1, 1))
        >>> deqcore.adjoint(lambda z, v: 0.5 * v, np.zeros((1, 1)), g, method=deqcore.Neumann(3)).value.tolist()
        [[1.75]]
    """

    k: int
    tau: float
    name: ClassVar[str] = "neumann"

    def __init__(self, k: int = 5, tau: float = 1.0, **unknown: NoReturn) -> None:
        if unknown:
            refuse_unknown(type(self).__name__, unknown, ("k", "tau"))
        object.__setattr__(self, "k", integer(k, "k"))
        object.__setattr__(self, "tau", real(tau, "tau"))
        self._checked()


@dataclass(frozen=True, init=False)
class Phantom(Neumann):
    """The phantom gradient: k damped steps of the map unrolled from z and differentiated (Geng et al. 2021).

    h_0 = z, h_(i+1) = (1 - tau) h_i + tau f(h_i), i < k, each with its own J(h_i): k - 1 evaluations of f and k - 1
    products. At an exact fixed point it is :class:`Neumann`; away from one its products are taken where f has moved to.

    What it is not: a solution of (I - J)' u = g; see :class:`Neumann`. Rows end as ``approximate``. A callable map is
    given as ``adjoint(..., f=f)``.

    Args:
        k: steps, 1 to 10000; the states of all of them are kept.
        tau: damping, in (0, 2).

    Raises:
        ValueError: a number is outside its range.
        TypeError: a number is of the wrong kind, or an option is unknown.

    Example:
        >>> import numpy as np, deqcore
        >>> z, g, f = np.zeros((1, 1)), np.ones((1, 1)), lambda z: 0.5 * z
        >>> deqcore.adjoint(lambda z, v: 0.5 * v, z, g, f=f, method=deqcore.Phantom(3)).value.tolist()
        [[1.75]]
    """

    name: ClassVar[str] = "phantom"
    _core_name: ClassVar[str] = "Neumann"


class NewtonMethod(Method):
    """Base of Newton's methods, which ask for products and find roots as such."""

    _solves: ClassVar[tuple[str, ...]] = ("fixed_point", "root")


@dataclass(frozen=True, init=False)
class NewtonKrylov(NewtonMethod):
    """Newton's method with steps by GMRES, each only as exact as the progress made deserves; backtracking.

    A step s solves (I - J) s = f(z) - z to eta times the residual, eta <- 0.9 (new residual / old)^2, safeguarded
    (Eisenstat and Walker 1996, SIAM J. Sci. Comput. 17, choice 2); then a fraction of it is taken that makes the
    residual fall (Dennis and Schnabel 1983). Products with J are ``jvp=``, those of a native map, or differences. A row
    whose residual falls along no step ends as ``breakdown``: it may be near a local minimum of the residual.

    Args:
        restart: vectors in GMRES's basis before it is begun anew, 1 to 500, never more than the width needs. Memory per
            row: restart + 8 states.
        forcing: eta, fixed, in (0, 1); None is the choice above.
        descent: whether the residual must fall; False takes whole steps as long as they are finite, and may leave a
            local minimum of the residual, or never end.

    Raises:
        ValueError: a number is outside its range.
        TypeError: a number is of the wrong kind, or an option is unknown.

    Example:
        >>> import numpy as np, deqcore
        >>> z = deqcore.fixed_point(np.cos, np.ones((1, 3)), method=deqcore.NewtonKrylov())
        >>> z.success, z.value.round(4).tolist()
        (True, [[0.7391, 0.7391, 0.7391]])
    """

    restart: int
    forcing: float | None
    descent: bool
    name: ClassVar[str] = "newton_krylov"

    def __init__(
        self, *, restart: int = 80, forcing: float | None = None, descent: bool = True, **unknown: NoReturn
    ) -> None:
        if unknown:
            refuse_unknown("NewtonKrylov", unknown, ("restart", "forcing", "descent"))
        object.__setattr__(self, "restart", integer(restart, "restart"))
        object.__setattr__(self, "forcing", None if forcing is None else real(forcing, "forcing"))
        object.__setattr__(self, "descent", flag(descent, "descent"))
        if self.forcing is not None and not 0 < self.forcing < 1:
            raise ValueError(f"forcing: {forcing} given; expected a number in (0, 1), or None")
        self._checked()

    def _native(self) -> Any:
        options = _core.NewtonKrylov()
        options.restart, options.forcing, options.descent = self.restart, self.forcing or 0.0, self.descent
        return options


@dataclass(frozen=True, init=False)
class Newton(NewtonMethod):
    """Newton's method with the Jacobian of each row factored, for narrow rows; a dogleg where a whole step fails.

    The Jacobian comes from one product per column, or one difference, at every accepted point. The step bends from the
    steepest descent of the squared residual to Newton's, as far as a trust radius allows (Powell 1970), in variables
    scaled by the lengths of the columns (More 1978). On piecewise linear maps it lands on the solution once it stands
    on the right piece.

    Args:
        max_width: wider rows are refused, 1 to 4096. Memory: width^2 float64 per row.
        descent: whether the residual must fall; False takes whole steps as long as they are finite, and may leave a
            local minimum of the residual, or never end.

    Raises:
        ValueError: max_width is outside its range.
        TypeError: max_width is not an integer, or an option is unknown.

    Example:
        >>> import numpy as np, deqcore
        >>> steep = lambda z: np.maximum(0.999 * z + 1.0, 0.0)
        >>> deqcore.fixed_point(steep, np.zeros((1, 1)), method=deqcore.Newton()).value.round(6).tolist()
        [[1000.0]]
    """

    max_width: int
    descent: bool
    name: ClassVar[str] = "newton"

    def __init__(self, *, max_width: int = 512, descent: bool = True, **unknown: NoReturn) -> None:
        if unknown:
            refuse_unknown("Newton", unknown, ("max_width", "descent"))
        object.__setattr__(self, "max_width", integer(max_width, "max_width"))
        object.__setattr__(self, "descent", flag(descent, "descent"))
        self._checked()


@dataclass(frozen=True, init=False)
class Tracker:
    """How a path H(z, lam) = 0 is followed from lam = 0 to 1: predictor, corrector, and the rules for the step h.

    ``"arclength"``, pseudo-arclength continuation (Keller 1977): h is a length along the path, the predictor its
    tangent, and Newton's corrections stay across it, so that a path may turn back in lam (a fold) and go on. The
    bordered matrix [[dH/dz, dH/dlam], [tangent]] is regular there although dH/dz is not. ``"natural"``: h is a step in
    lam, and a path that turns back ends as ``step_underflow``.

    A length along the path is in the units of z. So a solution much larger than the start's scale, or a z that travels
    far more than 1, takes linear systems in proportion, unless z is scaled or first_step and most_step are.

    A trial that is not back on the path after ``corrections`` of Newton's steps, or whose tangent turns by more than
    ``angle`` allows, is given up for half the step; after at most 2 corrections (natural: 3) h grows by half.

    Args:
        along: ``"arclength"`` or ``"natural"``.
        first_step: h at lam = 0; None is 0.1 for arclength and 0.05 for natural.
        most_step: the longest h, for arclength in the units of z; only where \\|z\\| is above its scale max(\\|z0\\|,
            \\|f(z0)\\|) longer in proportion, as a path to infinity needs. A large scale does not lengthen it.
        least_step: a shorter h ends the row as ``step_underflow``.
        tolerance: of \\|H\\| on the way, relative to \\|z\\|; None is 1e-9 for float64 and 2e-5 for float32. The end is
            held against ``rtol`` of the solve instead.
        corrections: Newton's steps back to the path, 1 to 100.
        angle: least cosine between the tangents of two points, in (0, 1).
        blow_up: a \\|z\\| above this many times its scale is a path to infinity.
        max_solves: linear systems per row.
        dense_width: rows up to this width are solved by LU of the Jacobian, from one product per column; wider ones by
            GMRES from products alone. 0 to 4096. Memory: (width + 1)^2 float64 per row.
        restart: vectors in GMRES's basis, 1 to 500. Memory: restart + 4 states per row.

    Raises:
        ValueError: a number is outside its range, or ``along`` is neither.
        TypeError: a number is of the wrong kind, or an option is unknown.

    Example:
        >>> import deqcore
        >>> deqcore.Tracker("natural", first_step=0.1).along
        'natural'
    """

    along: str
    first_step: float | None
    most_step: float
    least_step: float
    tolerance: float | None
    corrections: int
    angle: float
    blow_up: float
    max_solves: int
    dense_width: int
    restart: int

    def __init__(
        self,
        along: str = "arclength",
        *,
        first_step: float | None = None,
        most_step: float = 2.0,
        least_step: float = 1e-7,
        tolerance: float | None = None,
        corrections: int = 6,
        angle: float = 0.9,
        blow_up: float = 1e4,
        max_solves: int = 2000,
        dense_width: int = 64,
        restart: int = 80,
        **unknown: NoReturn,
    ) -> None:
        if unknown:
            refuse_unknown("Tracker", unknown, [field.name for field in fields(self)])
        if not isinstance(along, str) or along not in ("arclength", "natural"):
            raise ValueError(f"along: {along!r} given; expected 'arclength' or 'natural'")
        given = {"most_step": most_step, "least_step": least_step, "angle": angle, "blow_up": blow_up}
        for name, value in given.items():
            object.__setattr__(self, name, real(value, name))
        for name, optional in (("first_step", first_step), ("tolerance", tolerance)):
            object.__setattr__(self, name, None if optional is None else real(optional, name))
            if optional is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name}: {optional} given; expected a number above 0, or None")
        whole = {"corrections": corrections, "max_solves": max_solves, "dense_width": dense_width, "restart": restart}
        for name, value in whole.items():
            object.__setattr__(self, name, integer(value, name))
        object.__setattr__(self, "along", along)
        _core.FollowPath64.scratch_bytes(
            1, max(self.dense_width, 0) + 1, self._native("fixed_point"), _core.Stop(), *[True] * 3
        )

    def _native(self, kind: str) -> Any:
        options = _core.Homotopy()
        options.kind, options.tracker = getattr(_core.HomotopyKind, kind), getattr(_core.Tracker, self.along)
        options.first_step, options.tolerance = self.first_step or 0.0, self.tolerance or 0.0
        for name in ("most_step", "least_step", "corrections", "angle", "blow_up", "max_solves", "dense_width"):
            setattr(options, name, getattr(self, name))
        options.restart = self.restart
        return options


@dataclass(frozen=True, init=False)
class Homotopy(NewtonMethod):
    """Continuation: a path from an equation that is solved to z = f(z), for rows that nothing else solves.

    ``"fixed_point"``: H(z, lam) = z - lam f(z) - (1 - lam) z0. For a bounded f, and almost every z0, the path reaches
    lam = 1, though it may turn back in lam on the way (Chow, Mallet-Paret and Yorke 1978). ``"newton"``:
    H = r(z) - (1 - lam) r(z0) with r(z) = z - f(z), for which nothing of the kind holds. Or a homotopy of your own,
    with H(z0, 0) = 0 (or nearly) and H(z, 1) = 0 at fixed points of f: statuses come from f(z) - z all the same.

    As ``method=`` of :func:`fixed_point`, alone or as the last of a ladder, or as ``homotopy=`` of :func:`follow`,
    which also says how the path went. It costs several times as much as Newton's method where that works: see
    docs/continuation.md.

    Args:
        H: ``"fixed_point"``, ``"newton"``, or a callable ``H(z, lam, *args, *row_args)``; lam has an entry per row, in
            the dtype of z and a shape that broadcasts against it.
        tracker: a :class:`Tracker`, or ``"arclength"`` or ``"natural"``.
        jvp: of an own H: products (dH/dz) v, called ``jvp(z, lam, v, *args, *row_args)``; None is differences.
        rate: of an own H: dH/dlam, called ``rate(z, lam, *args, *row_args)``; None is differences.

    Raises:
        ValueError: H is no known name, or jvp or rate is given without a callable H.
        TypeError: H, tracker, jvp or rate is of the wrong kind, or an option is unknown.

    Example:
        >>> import numpy as np, deqcore
        >>> steep = lambda z: np.tanh(-4.0 * z + 1.0)
        >>> deqcore.fixed_point(steep, np.zeros((1, 1)), method=deqcore.Homotopy()).value.round(6).tolist()
        [[0.199458]]
    """

    H: Any
    tracker: Tracker
    jvp: Callable[..., Any] | None
    rate: Callable[..., Any] | None
    name: ClassVar[str] = "homotopy"
    _solves: ClassVar[tuple[str, ...]] = ("fixed_point", "follow")

    def __init__(
        self,
        H: Any = "fixed_point",
        *,
        tracker: Any = "arclength",
        jvp: Callable[..., Any] | None = None,
        rate: Callable[..., Any] | None = None,
        **unknown: NoReturn,
    ) -> None:
        if unknown:
            refuse_unknown("Homotopy", unknown, ("H", "tracker", "jvp", "rate"))
        if isinstance(H, str) and H not in ("fixed_point", "newton"):
            raise ValueError(f"H: {H!r} given; expected 'fixed_point', 'newton' or a callable")
        if not isinstance(H, str) and not callable(H):
            raise TypeError(f"H: {H!r} given; expected 'fixed_point', 'newton' or a callable")
        for what, given in (("jvp", jvp), ("rate", rate)):
            if given is not None and isinstance(H, str):
                raise ValueError(f"{what}: given with H {H!r}; expected None: only a homotopy of your own has one")
            if given is not None and not callable(given):
                raise TypeError(f"{what}: {given!r} given; expected a callable, or None for differences")
        if not isinstance(tracker, (str, Tracker)):
            raise TypeError(f"tracker: {tracker!r} given; expected a deqcore.Tracker, 'arclength' or 'natural'")
        object.__setattr__(self, "H", H)
        object.__setattr__(self, "tracker", Tracker(tracker) if isinstance(tracker, str) else tracker)
        object.__setattr__(self, "jvp", jvp)
        object.__setattr__(self, "rate", rate)

    def _native(self) -> Any:
        return self.tracker._native(self.H if isinstance(self.H, str) else "own")


@dataclass(frozen=True, init=False)
class SHINE(Approximate):
    """The inverse that the forward solve has learnt, at no product at all (Ramzi, Mannel, Bai, Starck et al. 2022).

    A forward :class:`Broyden` ends with B = -I + sum u_i v_i' near (J - I)^-1; the gradient is w = -B' g. A row whose
    \\|w\\| exceeds ``fallback`` \\|g\\|, or of which nothing is kept, falls back to w = g, the gradient of
    :class:`JacobianFree`; ``Solution.rejected`` is 1 there.

    What it is not: a solution of (I - J)' u = g. B was fitted to the steps of the forward solve, and g is not one of
    them: on random tanh maps its direction is hardly better than that of JacobianFree, see docs/gradients.md. Rows end
    as ``approximate``. :func:`shine_start` makes a start of an exact method of it.

    Args:
        handle: ``Solution.warm`` of a :func:`fixed_point` by :class:`Broyden` with ``keep="history"``; rows are matched
            by position, or by the ``ids`` given to :func:`adjoint`.
        fallback: the longest \\|w\\| / \\|g\\| that is trusted; above 0, ``math.inf`` trusts all.

    Raises:
        TypeError: the handle is not one, fallback is not a number, or an option is unknown.
        ValueError: the handle holds no history of Broyden, or fallback is out of range.

    Example:
        >>> import numpy as np, deqcore
        >>> A, g = np.array([[0.0, 0.5], [0.2, 0.0]]), np.array([[1.0, 2.0]])
        >>> z = deqcore.fixed_point(lambda z: z @ A + 1, np.zeros((1, 2)), method="broyden", keep="history")
        >>> solution = deqcore.adjoint(lambda z, v: v @ A.T, z.value, g, method=deqcore.SHINE(z.warm))
        >>> solution.nfe, solution.rejected.tolist(), deqcore.Status(solution.status[0]).name
        (0, [0], 'approximate')
    """

    handle: Warm
    fallback: float
    name: ClassVar[str] = "shine"

    def __init__(self, handle: Warm, fallback: float = 1.8, **unknown: NoReturn) -> None:
        if unknown:
            refuse_unknown("SHINE", unknown, ("handle", "fallback"))
        if not isinstance(handle, Warm):
            raise TypeError(f"handle: {describe(handle)} given; expected the .warm of a solution")
        if handle.history is None or not isinstance(handle.history.method, Broyden):
            raise ValueError(
                f"handle: {handle!r} given; expected one of fixed_point(..., method=Broyden(), keep='history')"
            )
        object.__setattr__(self, "handle", handle)
        object.__setattr__(self, "fallback", real(fallback, "fallback"))
        if not self.fallback > 0:
            raise ValueError(f"fallback: {self.fallback} given; expected a number above 0, or infinity")

    def _native(self) -> Any:
        return None  # nothing of it is a dialogue


BY_NAME: dict[str, Method] = {
    method.name: method
    for method in (
        *(Picard(), Anderson(), AndersonTypeI(), Broyden(), SteadyState(), NewtonKrylov(), Newton(), Homotopy()),
        *(GMRES(), BiCGSTAB(), Direct()),
        *(JacobianFree(), Neumann(), Phantom()),
    )
}
_DEFAULTS: dict[str, Method] = {
    "fixed_point": BY_NAME["anderson"],
    "root": BY_NAME["newton_krylov"],
    "adjoint": BY_NAME["gmres"],
    "tangent": BY_NAME["gmres"],
    "linear_solve": BY_NAME["gmres"],
    "follow": BY_NAME["homotopy"],
}


def resolve_method(method: Any, function: str) -> Method:
    """The method that ``function`` is to use. ``None`` is its default, a string is a method by name."""
    if method is None:
        return _DEFAULTS[function]
    known = [name for name, named in BY_NAME.items() if function in named._solves]
    if isinstance(method, str):
        if method not in known:
            names = ", ".join(map(repr, known))
            raise ValueError(f"method: {method!r} given; expected one of {names}, or a method object")
        return BY_NAME[method]
    if not isinstance(method, Method):
        raise TypeError(
            f"method: {method!r} given; expected a method such as deqcore.{type(_DEFAULTS[function]).__name__}(), its "
            f"name, or None"
        )
    if function not in method._solves:
        raise ValueError(f"method: {method!r} given; {function}() takes one of {', '.join(map(repr, known))}")
    return method


def default_steps(method: Method, width: int) -> int:
    """Evaluations and products per row where none are given: Newton's methods have 50 or 100 whole steps."""
    if isinstance(method, Newton):
        return 100 * (width + 1)
    if isinstance(method, Homotopy):  # as many linear systems as it may solve, or so
        tracker = method.tracker
        each = width if width <= tracker.dense_width else min(width + 1, tracker.restart)
        return min(tracker.max_solves * (each + 3), 2**31 - 1)
    return 50 * (min(width, method.restart) + 2) if isinstance(method, NewtonKrylov) else 200


@lru_cache(maxsize=64)
def native_of(method: Method) -> Any:
    """The options as the core takes them."""
    return method._native()
