# SPDX-License-Identifier: Apache-2.0
"""Constructions of single papers, built on the solvers. Each is a module: ``from deqcore.systems import homoode``.

homoode    a field with a condition, integrated from a start that all samples share
"""

from . import homoode

__all__ = ["homoode"]
