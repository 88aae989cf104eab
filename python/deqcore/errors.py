# SPDX-License-Identifier: Apache-2.0
"""What the library raises, beside ``ValueError``, ``TypeError`` and ``MemoryError``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._odeint import OdeSolution
    from ._solution import Solution

__all__ = ["ConvergenceError", "ConvergenceWarning", "DeviceError"]


class ConvergenceError(ArithmeticError):
    """A solve ended with rows that have no solution; nothing is lost: ``solution`` holds every row's best point.

    Example:
        >>> import numpy as np, deqcore
        >>> try:
        ...     deqcore.fixed_point(lambda z: z + 1, np.zeros((1, 3)), method="anderson")
        ... except deqcore.ConvergenceError as error:
        ...     print(error.solution.steps, error.solution.success)
        [200] False
    """

    def __init__(self, message: str, solution: Solution | OdeSolution) -> None:
        """Keep the solution beside the message."""
        super().__init__(message)
        self.solution = solution

    def __reduce__(self) -> tuple[type[ConvergenceError], tuple[str, Solution | OdeSolution]]:
        """Pickle both."""
        return type(self), (str(self), self.solution)


class ConvergenceWarning(UserWarning):
    """The same, said as a warning: ``on_failure="warn"``. Shown once per cause and place under Python's default filter.

    Example:
        >>> import warnings, numpy as np, deqcore
        >>> with warnings.catch_warnings(record=True) as said:
        ...     warnings.simplefilter("always")
        ...     solution = deqcore.fixed_point(lambda z: z + 1, np.zeros((1, 3)), method="anderson", on_failure="warn")
        >>> print(said[0].message)
        fixed_point: rows ended as out_of_steps; see the solution's status and explain()
    """


class DeviceError(RuntimeError):
    """A CUDA device cannot be used (no driver, a driver too old) or failed at work, named with what it was doing.

    After a failure at work the device's context is lost to the process, as CUDA has it; nothing on the CPU is.

    Example:
        >>> import deqcore
        >>> issubclass(deqcore.DeviceError, RuntimeError)
        True
    """
