# SPDX-License-Identifier: Apache-2.0
"""What a benchmark ran on, and the environment it ran in. Imports nothing that reads that environment."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Presets that make OpenBLAS choose a kernel for another CPU: up to a factor of 2.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
# Pools that spin stop each other, and ours, as soon as threads outnumber cores.
PINNED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def prepare() -> None:
    """Start this process anew in a clean environment, unless it is in one. To be called before NumPy is imported."""
    if any(name in os.environ for name in UNSET) or any(os.environ.get(k) != v for k, v in PINNED.items()):
        kept = {name: value for name, value in os.environ.items() if name not in UNSET}
        os.execve(sys.executable, [sys.executable, *sys.argv], {**kept, **PINNED})


def environment() -> str:
    """Say what prepare() saw to, from what is so now."""
    unset = ", ".join(name for name in UNSET if name not in os.environ)
    pinned = ", ".join(f"{name}={os.environ.get(name, 'not set')}" for name in PINNED)
    return f"unset: {unset or 'none'}; pools: {pinned}"


def described(name: str) -> dict[str, Any]:
    """What a first line says of this machine, called ``name``. Imports NumPy: to be called after prepare()."""
    import numpy

    import deqcore
    from deqcore import _core

    return {
        "slug": name,
        **gpu(),
        "cores": cores(),
        "instruction set": _core.simd_level(),
        "built with": _core.built_with,
        "deqcore": deqcore.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "environment": environment(),
        "load before": round(os.getloadavg()[0], 1),
    }


def slug() -> str:
    """A short name from the CPU's model and the number of cores; nothing about the host."""
    info = _cpu()
    model = info.get("model name") or platform.processor() or platform.machine() or "unknown"
    model = re.sub(r"\(r\)|\(tm\)|\bcpu\b|\bprocessor\b|@.*", " ", model.lower())
    words = re.findall(r"[a-z0-9]+", model)
    zen = _zen(info)
    return "-".join([*words, *([zen] if zen else []), f"{cores()}core"])


def gpu_slug() -> str:
    """The same from the GPU's name."""
    name = gpu().get("gpu", "no gpu").partition(",")[0]
    return "-".join(re.findall(r"[a-z0-9]+", name.lower()))


def cores() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu() -> dict[str, str]:
    """The first GPU's name and driver, where there is one."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"gpu": said.splitlines()[0]} if said.strip() else {}


class Others:
    """How many cores others take: processes beside this one and its children, and the host of a virtual machine."""

    def __init__(self) -> None:
        self._last = self._now()

    def since(self) -> float | None:
        """The mean since the last call; None where the system does not tell, or for too short a time."""
        before, self._last = self._last, self._now()
        if before is None or self._last is None:
            return None
        seconds, busy, own = (now - then for now, then in zip(self._last, before, strict=True))
        return max(0.0, (busy - own) / seconds) if seconds > 0.2 else None

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        try:
            first = Path("/proc/stat").read_text(encoding="utf-8").partition("\n")[0].split()
        except OSError:
            return None
        user, nice, system, _, _, irq, soft, steal = map(int, first[1:9])
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        return time.monotonic(), (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK"), own


def _cpu() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _zen(info: dict[str, str]) -> str | None:
    """AMD's generation: virtual machines often hide the model's name."""
    if info.get("vendor_id") != "AuthenticAMD":
        return None
    family, model = int(info.get("cpu family", 0)), int(info.get("model", 0))
    if family == 23:
        return "zen2" if model >= 0x30 else "zen1"
    if family == 25:
        return "zen4" if 0x10 <= model < 0x20 or 0x60 <= model < 0x80 or model >= 0xA0 else "zen3"
    return "zen5" if family == 26 else None
