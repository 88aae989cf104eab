# SPDX-License-Identifier: Apache-2.0
"""Solvers for deep equilibrium models and other implicit layers, on NumPy arrays.

    fixed_point   find z with f(z) = z, one fixed point per row
    adjoint       differentiate through it: (I - J(z))' u = g
    tangent       the same forward: (I - J(z)) t = dz
    odeint        integrate dz/dt = f(t, z), each row with its own steps
    linear_solve  A x = b from products with A
    follow        fixed points where nothing else finds them, along a path
    maps.Dense    the map tanh(W z + x) and its relatives, solved wholly in C++
    maps.Monotone a layer with exactly one fixed point, solved by operator splitting

Every solve says of every row how it ended, and raises unless told otherwise.
"""

from . import maps, plot
from ._adjoint import adjoint, tangent
from ._audit import Audit, Finding, audit
from ._bounds import ErrorBound, error_bound
from ._continuation import Davidenko, davidenko, follow
from ._core import version as __version__
from ._fixed_point import fixed_point, scratch_bytes
from ._gradient_check import GradientCheck, check_gradient
from ._linear import linear_solve
from ._methods import (
    GMRES,
    SHINE,
    Anderson,
    AndersonTypeI,
    BiCGSTAB,
    Broyden,
    Direct,
    Homotopy,
    JacobianFree,
    Method,
    Neumann,
    Newton,
    NewtonKrylov,
    Phantom,
    Picard,
    SteadyState,
    Tracker,
)
from ._ode_gradient import OdeGradients, odeint_adjoint
from ._ode_methods import RK4, BogackiShampine, DormandPrince, Euler, Midpoint, OdeMethod
from ._odeint import OdeSolution, odeint
from ._options import num_threads, set_num_threads
from ._path import Path, PathEnd, PathPoints
from ._plan import Plan, plan
from ._regularisers import JacobianPenalty, jacobian_penalty, spectral_cap, spectral_radius
from ._root import root
from ._shine import shine_start
from ._solution import Progress, Solution, Status, Tolerances
from ._splitting import Splitting, SplittingAdjoint, forward_backward, peaceman_rachford
from ._warm import History, Warm
from .errors import ConvergenceError, ConvergenceWarning, DeviceError

__all__ = [
    "GMRES",
    "RK4",
    "SHINE",
    "Anderson",
    "AndersonTypeI",
    "Audit",
    "BiCGSTAB",
    "BogackiShampine",
    "Broyden",
    "ConvergenceError",
    "ConvergenceWarning",
    "Davidenko",
    "DeviceError",
    "Direct",
    "DormandPrince",
    "ErrorBound",
    "Euler",
    "Finding",
    "GradientCheck",
    "History",
    "Homotopy",
    "JacobianFree",
    "JacobianPenalty",
    "Method",
    "Midpoint",
    "Neumann",
    "Newton",
    "NewtonKrylov",
    "OdeGradients",
    "OdeMethod",
    "OdeSolution",
    "Path",
    "PathEnd",
    "PathPoints",
    "Phantom",
    "Picard",
    "Plan",
    "Progress",
    "Solution",
    "Splitting",
    "SplittingAdjoint",
    "Status",
    "SteadyState",
    "Tolerances",
    "Tracker",
    "Warm",
    "__version__",
    "adjoint",
    "audit",
    "check_gradient",
    "davidenko",
    "error_bound",
    "fixed_point",
    "follow",
    "forward_backward",
    "jacobian_penalty",
    "linear_solve",
    "maps",
    "num_threads",
    "odeint",
    "odeint_adjoint",
    "peaceman_rachford",
    "plan",
    "plot",
    "root",
    "scratch_bytes",
    "set_num_threads",
    "shine_start",
    "spectral_cap",
    "spectral_radius",
    "tangent",
]
