# SPDX-License-Identifier: Apache-2.0
"""The libraries that are compared, each optional: a module per library, which says what it needs.

``solvers(problem, method)`` and ``trainers(problem)`` yield contestants. Only deqcore must be there.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..contest import Contestant
from . import limit, ours, with_jaxopt, with_kinsol, with_optimistix, with_scipy, with_torchdeq

PEERS = {
    "deqcore": ours,
    "limit program": limit,
    "torchdeq": with_torchdeq,
    "jaxopt": with_jaxopt,
    "optimistix": with_optimistix,
    "SciPy": with_scipy,
    "KINSOL": with_kinsol,
}
_there: dict[str, Any] = {}


def find(limit_folder: Path | None) -> dict[str, str]:
    """Load every peer that is installed; -> its version, or what is absent and how it is installed."""
    said = {}
    about_limit = limit.load(limit_folder)
    for name, peer in PEERS.items():
        needs = getattr(peer, "NEEDS", ())
        absent = [package for package in needs if importlib.util.find_spec(package) is None]
        if absent or (hasattr(peer, "missing") and peer.missing()):
            said[name] = f"skipped: {', '.join(absent) or name} is absent; {peer.INSTALL}"
            continue
        for package in needs:
            importlib.import_module(package)
        _there[name] = peer
        said[name] = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in needs) or "found"
    if limit_folder is not None:
        said["limit program"] = about_limit
    return said


def there(name: str) -> bool:
    return name in _there


def contestants(kind: str, *arguments: Any) -> Iterator[Contestant]:
    """What every peer that is there offers of a kind, ours first."""
    for peer in _there.values():
        offer: Callable[..., Iterator[Contestant]] | None = getattr(peer, kind, None)
        if offer is not None:
            yield from offer(*arguments)
