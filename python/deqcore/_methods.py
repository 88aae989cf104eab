# SPDX-License-Identifier: Apache-2.0
"""The methods, as options."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, ClassVar, NoReturn

from . import _core
from ._options import integer, real, refuse_unknown

__all__ = ["Anderson", "Method", "Picard", "resolve_method"]


class Method:
    """Base of the methods. Each is a frozen set of options; its numbers are checked when it is made.

    Example:
        >>> import deqcore
        >>> isinstance(deqcore.Anderson(), deqcore.Method), deqcore.Anderson() == deqcore.Anderson(history=6)
        (True, True)
    """

    name: ClassVar[str]

    def __init__(self, **options: Any) -> None:
        """Refuse: the base is not a method."""
        raise TypeError("Method: give one of the methods, such as deqcore.Anderson(history=6)")

    def _native(self) -> Any:
        raise NotImplementedError

    def _checked(self) -> None:
        stop = _core.Stop()
        _core.FixedPoint64.scratch_bytes(1, 1, self._native(), stop)


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

    def __init__(self, *, beta: float = 1.0, **unknown: NoReturn) -> None:
        if unknown:
            refuse_unknown("Picard", unknown, ("beta",))
        object.__setattr__(self, "beta", real(beta, "beta"))
        self._checked()

    def _native(self) -> Any:
        options = _core.Picard()
        options.beta = self.beta
        return options


@dataclass(frozen=True, init=False)
class Anderson(Method):
    """Anderson acceleration, type II: the last residuals are combined to the smallest one, row by row.

    With g = f(z) - z and columns dF, dG of differences of the last images and residuals,
    gamma = argmin \\|g - dG gamma\\|^2 + ridge sum_j \\|dG_j\\|^2 gamma_j^2 and
    z_next = f - dF gamma - (1 - beta) (g - dG gamma) (Anderson 1965; Walker and Ni 2011, SIAM J. Numer. Anal. 49).

    Args:
        history: columns of differences, 1 to 32. Memory: 2 history + 4 states per row.
        beta: weight of the new value, in (0, 2); 1 is undamped.
        ridge: regularisation, relative to each diagonal entry of the Gram matrix, at least 0.
        growth: a residual above this many times the row's best clears the row's window, so that the next step is
            plain; above 1, ``math.inf`` never clears.

    Raises:
        ValueError: a number is outside its range.
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
    name: ClassVar[str] = "anderson"

    def __init__(
        self,
        *,
        history: int = 6,
        beta: float = 1.0,
        ridge: float = 1e-12,
        growth: float = 10.0,
        **unknown: NoReturn,
    ) -> None:
        if unknown:
            refuse_unknown("Anderson", unknown, ("history", "beta", "ridge", "growth"))
        object.__setattr__(self, "history", integer(history, "history"))
        object.__setattr__(self, "beta", real(beta, "beta"))
        object.__setattr__(self, "ridge", real(ridge, "ridge"))
        object.__setattr__(self, "growth", real(growth, "growth"))
        if math.isnan(self.growth):
            raise ValueError("growth: nan given; expected a number above 1, or infinity")
        self._checked()

    def _native(self) -> Any:
        options = _core.Anderson()
        for option, value in asdict(self).items():
            setattr(options, option, value)
        return options


_BY_NAME: dict[str, type[Picard] | type[Anderson]] = {"picard": Picard, "anderson": Anderson}
_DEFAULT = Anderson()


def resolve_method(method: Any) -> tuple[str, Any]:
    """-> (name, options for the core). ``None`` is the default method, a string is a method by name."""
    if method is None:
        method = _DEFAULT
    elif isinstance(method, str):
        try:
            method = _BY_NAME[method]()
        except KeyError:
            known = ", ".join(repr(name) for name in _BY_NAME)
            raise ValueError(f"method: {method!r} given; expected one of {known}, or a method object") from None
    elif not isinstance(method, Method):
        raise TypeError(f"method: {method!r} given; expected a method such as deqcore.Anderson(), its name, or None")
    return method.name, _native_of(method)


@lru_cache(maxsize=64)
def _native_of(method: Method) -> Any:
    return method._native()
