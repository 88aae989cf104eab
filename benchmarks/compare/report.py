# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations
from typing import Any


def console(line: dict[str, Any]) -> str:
    return f"  {line['method']:<50} {line['seconds']['median']*1e3:9.4f} ms  x{line.get('over_ours')} {line.get('error')} {line['counts']} {line.get('role')} {line.get('tolerance')} {line.get('parts','')}"
