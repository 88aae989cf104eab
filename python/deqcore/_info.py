# SPDX-License-Identifier: Apache-2.0
"""What is installed here and how it was built, for people and for bug reports."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import numpy as np

from . import _core

__all__ = ["info"]

#: Optional packages, and the distributions that may bring them.
_OPTIONAL = {
    "cupy": ("cupy", "cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x"),
    "torch": ("torch",),
    "scikit-learn": ("scikit-learn",),
    "matplotlib": ("matplotlib",),
    "rich": ("rich",),
    "scipy": ("scipy",),
}

#: What changes results or speed: the first two are read here, the others by the BLAS that NumPy brings.
_ENVIRONMENT = (
    "DEQCORE_NUM_THREADS",
    "DEQCORE_SIMD",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
)


def info() -> str:
    """Version, build, backends, threads, instruction set, Python and packages, one per line.

    Optional packages are looked up, not imported.
    """
    lines = {
        "deqcore": _core.version,
        "built with": _core.built_with,
        "backends": _backends(),
        "threads": str(_core.num_threads()),
        "instruction set": _core.simd_level(),
        "python": f"{platform.python_version()} ({platform.python_implementation()}), {platform.platform()}",
        "numpy": np.__version__,
    }
    lines |= {
        name: next(filter(None, map(_version, brought_by)), "not found") for name, brought_by in _OPTIONAL.items()
    }
    lines |= {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return "\n".join(f"{name:<{max(map(len, lines))}}  {value}" for name, value in lines.items())


def _backends() -> str:
    if not _core.has_cuda:
        return "cpu; cuda: not in this build (no nvcc was found, or DEQCORE_CUDA=OFF)"
    summary: str = getattr(_core, "cuda_summary")()  # noqa: B009, only some builds have it
    return f"cpu; cuda: {summary}"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
