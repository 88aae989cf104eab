# SPDX-License-Identifier: Apache-2.0
"""Doors: the adapter for each array library. Nothing is imported that is not already loaded, nothing is converted."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import numpy_door
from .describe import describe

__all__ = ["describe", "door_for", "numpy_door"]


def door_for(array: Any, what: str) -> Any:
    """Return the door of the library that ``array`` belongs to; ``what`` names the argument in errors."""
    if isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray):
        return numpy_door
    hint = ""
    if hasattr(array, "__cuda_array_interface__"):
        hint = " (this version of deqcore solves on the CPU only)"
    elif isinstance(array, np.ma.MaskedArray):
        hint = " without a mask (.filled() makes one)"
    elif isinstance(array, (list, tuple, int, float, np.generic)):
        hint = " (np.asarray makes one)"
    raise TypeError(f"{what}: {describe(array)} given; expected a NumPy array{hint}")
