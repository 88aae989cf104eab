# SPDX-License-Identifier: Apache-2.0
"""Anderson on a harder map: relu, norm 0.99, eight slow directions; each library's default and its best setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.measure import Plan

from . import problems
from .solves import measure


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    for rows, width in problems.QUICK if plan.quick else problems.SIZES:
        yield from measure(plan, "harder relu 0.99, anderson", problems.harder(rows, width), "anderson")
