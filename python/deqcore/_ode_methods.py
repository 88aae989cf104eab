# SPDX-License-Identifier: Apache-2.0
"""The methods of :func:`deqcore.odeint`, as options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from . import _core
from ._methods import Method
from ._options import bounded, refuse_unknown

__all__ = [
    "ODE_BY_NAME",
    "RK4",
    "BogackiShampine",
    "DormandPrince",
    "Euler",
    "Midpoint",
    "OdeMethod",
    "is_ode_name",
    "resolve_ode_method",
]


class OdeMethod(Method):
    """Base of the explicit Runge-Kutta methods: :class:`Euler`, :class:`Midpoint`, :class:`RK4`,
    :class:`BogackiShampine`, :class:`DormandPrince`.

    Example:
        >>> import deqcore
        >>> isinstance(deqcore.RK4(), deqcore.OdeMethod)
        True
    """

    steps: int | None
    stages: ClassVar[int]  # evaluations per step
    pair: ClassVar[bool] = False  # whether it estimates its error
    _solves: ClassVar[tuple[str, ...]] = ("odeint",)

    def _take(self, steps: Any, unknown: dict[str, Any]) -> None:
        if unknown:
            refuse_unknown(type(self).__name__, unknown, ("steps",))
        object.__setattr__(self, "steps", None if steps is None and self.pair else bounded(steps, "steps"))

    def _weights(self, stage: int) -> list[float]:
        """a of a stage; for ``stages`` b, of the step."""
        weights: list[float] = _core.stage_weights(getattr(_core.OdeMethod, self._core_name), stage)
        return weights

    def _native(self) -> Any:
        options = _core.OdeOptions()
        options.method = getattr(_core.OdeMethod, self._core_name)
        options.steps = self.steps or 0
        return options


@dataclass(frozen=True, init=False)
class Euler(OdeMethod):
    """Euler's method, order 1: one evaluation per step.

    Args:
        steps: equal steps from one requested time to the next, at least 1.

    Raises:
        ValueError: steps is outside its range.
        TypeError: steps is not an integer, or an option is unknown.

    Example:
        >>> import numpy as np, deqcore
        >>> deqcore.odeint(lambda t, z: -z, np.ones((1, 1)), [0.0, 1.0], method=deqcore.Euler(2)).value[-1].tolist()
        [[0.25]]
    """

    steps: int
    name: ClassVar[str] = "euler"
    stages: ClassVar[int] = 1
    _core_name: ClassVar[str] = "euler"

    def __init__(self, steps: int = 1, **unknown: NoReturn) -> None:
        self._take(steps, unknown)


@dataclass(frozen=True, init=False)
class Midpoint(OdeMethod):
    """The explicit midpoint method, order 2: two evaluations per step.

    Args:
        steps: equal steps from one requested time to the next, at least 1.

    Raises:
        ValueError: steps is outside its range.
        TypeError: steps is not an integer, or an option is unknown.

    Example:
        >>> import numpy as np, deqcore
        >>> deqcore.odeint(lambda t, z: -z, np.ones((1, 1)), [0.0, 1.0], method="midpoint").value[-1].tolist()
        [[0.5]]
    """

    steps: int
    name: ClassVar[str] = "midpoint"
    stages: ClassVar[int] = 2
    _core_name: ClassVar[str] = "midpoint"

    def __init__(self, steps: int = 1, **unknown: NoReturn) -> None:
        self._take(steps, unknown)


@dataclass(frozen=True, init=False)
class RK4(OdeMethod):
    """The classical Runge-Kutta method, order 4: four evaluations per step.

    Args:
        steps: equal steps from one requested time to the next, at least 1.

    Raises:
        ValueError: steps is outside its range.
        TypeError: steps is not an integer, or an option is unknown.

    Example:
        >>> import numpy as np, deqcore
        >>> z = deqcore.odeint(lambda t, z: -z, np.ones((1, 1)), [0.0, 1.0], method=deqcore.RK4(steps=8))
        >>> z.value[-1].round(5).tolist(), z.nfe
        ([[0.36788]], 32)
    """

    steps: int
    name: ClassVar[str] = "rk4"
    stages: ClassVar[int] = 4
    _core_name: ClassVar[str] = "rk4"

    def __init__(self, steps: int = 1, **unknown: NoReturn) -> None:
        self._take(steps, unknown)


@dataclass(frozen=True, init=False)
class BogackiShampine(OdeMethod):
    """Bogacki and Shampine's pair of orders 3 and 2 (1989, Appl. Math. Lett. 2): three evaluations per step.

    Between the steps a cubic interpolant gives the values at the requested times.

    Args:
        steps: equal steps from one requested time to the next, at least 1; None chooses them by the error.

    Raises:
        ValueError: steps is outside its range.
        TypeError: steps is not an integer, or an option is unknown.

    Example:
        >>> import numpy as np, deqcore
        >>> z = deqcore.odeint(lambda t, z: -z, np.ones((1, 1)), [0.0, 1.0], method="bogacki_shampine")
        >>> bool(abs(z.value[-1, 0, 0] - np.exp(-1)) < 1e-3)
        True
    """

    steps: int | None
    name: ClassVar[str] = "bogacki_shampine"
    stages: ClassVar[int] = 3
    pair: ClassVar[bool] = True
    _core_name: ClassVar[str] = "bogacki_shampine"

    def __init__(self, steps: int | None = None, **unknown: NoReturn) -> None:
        self._take(steps, unknown)


@dataclass(frozen=True, init=False)
class DormandPrince(OdeMethod):
    """Dormand and Prince's pair of orders 5 and 4 (1980, J. Comput. Appl. Math. 6): six evaluations per step.

    Between the steps Shampine's interpolant of order 4 gives the values at the requested times.

    Args:
        steps: equal steps from one requested time to the next, at least 1; None chooses them by the error.

    Raises:
        ValueError: steps is outside its range.
        TypeError: steps is not an integer, or an option is unknown.

    Example:
        >>> import numpy as np, deqcore
        >>> z = deqcore.odeint(lambda t, z: -z, np.ones((1, 1)), [0.0, 1.0], method="dormand_prince", rtol=1e-6)
        >>> bool(abs(z.value[-1, 0, 0] - np.exp(-1)) < 1e-5)
        True
    """

    steps: int | None
    name: ClassVar[str] = "dormand_prince"
    stages: ClassVar[int] = 6
    pair: ClassVar[bool] = True
    _core_name: ClassVar[str] = "dormand_prince"

    def __init__(self, steps: int | None = None, **unknown: NoReturn) -> None:
        self._take(steps, unknown)


ODE_BY_NAME: dict[str, OdeMethod] = {
    method.name: method for method in (Euler(), Midpoint(), RK4(), BogackiShampine(), DormandPrince())
}
_ALIASES = {
    "dopri5": "dormand_prince",
    "bosh3": "bogacki_shampine",
    "RK45": "dormand_prince",
    "RK23": "bogacki_shampine",
}


def is_ode_name(method: Any) -> bool:
    """Whether it is the name of a method here, or its name elsewhere."""
    return isinstance(method, str) and (method in ODE_BY_NAME or method in _ALIASES)


def resolve_ode_method(method: Any) -> OdeMethod:
    """The method; ``None`` is DormandPrince(), a string is one by name, or by its name elsewhere."""
    if method is None:
        return ODE_BY_NAME["dormand_prince"]
    if isinstance(method, str):
        named = ODE_BY_NAME.get(_ALIASES.get(method, method))
        if named is None:
            names = ", ".join(map(repr, ODE_BY_NAME))
            raise ValueError(f"method: {method!r} given; expected one of {names}, or a method object")
        return named
    if not isinstance(method, OdeMethod):
        raise TypeError(
            f"method: {method!r} given; expected a method such as deqcore.DormandPrince(), its name, or None"
        )
    return method
