# SPDX-License-Identifier: Apache-2.0
"""Words for what came, in error messages."""

from __future__ import annotations

from typing import Any

import numpy as np


def describe(given: Any) -> str:
    """What came, for an error message."""
    if isinstance(given, np.ndarray):
        masked = "masked " if isinstance(given, np.ma.MaskedArray) else ""
        return f"{masked}array of shape {given.shape} and dtype {given.dtype}"
    kind = type(given)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.split('.')[0]}.{kind.__name__}"
    if _on_device(given) and hasattr(given, "dtype"):
        return f"{name} of shape {tuple(given.shape)} and dtype {given.dtype} on a CUDA device"
    if _on_device(given):
        return f"{name} on a CUDA device"
    return name


def _on_device(given: Any) -> bool:
    try:
        return hasattr(given, "__cuda_array_interface__")
    except RuntimeError:  # torch, of a tensor that requires a gradient
        return True
