# SPDX-License-Identifier: Apache-2.0
"""Solvers for deep equilibrium models and other implicit layers, on NumPy arrays.

    fixed_point   find z with f(z) = z, one fixed point per row
    adjoint       differentiate through it: u = J(z)' u + g
    maps.Dense    the map tanh(W z + x) and its relatives, solved wholly in C++

Every solve says of every row how it ended, and raises unless told otherwise.
"""

from . import maps
from ._adjoint import adjoint
from ._core import version as __version__
from ._fixed_point import fixed_point, scratch_bytes
from ._methods import Anderson, Method, Picard
from ._options import num_threads, set_num_threads
from ._solution import Progress, Solution, Status, Tolerances
from .errors import ConvergenceError, ConvergenceWarning, DeviceError

__all__ = [
    "Anderson",
    "ConvergenceError",
    "ConvergenceWarning",
    "DeviceError",
    "Method",
    "Picard",
    "Progress",
    "Solution",
    "Status",
    "Tolerances",
    "__version__",
    "adjoint",
    "fixed_point",
    "maps",
    "num_threads",
    "scratch_bytes",
    "set_num_threads",
]
