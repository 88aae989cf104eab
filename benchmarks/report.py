# SPDX-License-Identifier: Apache-2.0
"""Print a file of benchmark lines as tables, and hold it against a baseline.

    python benchmarks/report.py FILE [--against BASELINE]

Counts must match the baseline exactly: a difference is listed and the exit status is 1. Times are held against it only
where both come from the same machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LABELS = ("problem", "method", "queue", "type", "rows", "width", "threads")
SLOWER = 1.25  # a median beyond this times the baseline's is listed, if their spreads do not meet either


def main() -> int:
    parser = argparse.ArgumentParser(description="Print benchmark lines as tables, and hold them against a baseline.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--against", type=Path, help="default: baselines/<machine>.jsonl of the file's machine")
    options = parser.parse_args()
    header, cases = read(options.file)
    print("\n".join(header_lines(header) + table(cases)))
    against = options.against or HERE / "baselines" / f"{header['machine']['slug']}.jsonl"
    if not against.exists():
        print(f"\nno baseline for {header['machine']['slug']}")
        return 0
    if against.resolve() == options.file.resolve():
        return 0
    wrong, lines = compare((header, cases), read(against))
    print("\n".join(["", f"against {against.name}:", *lines]))
    return 1 if wrong else 0


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The header and the cases of a file."""
    header, *cases = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return header, cases


def header_lines(header: dict[str, Any]) -> list[str]:
    return [f"{name + ':':<17} {value}" for name, value in header["machine"].items()]


def table(cases: list[dict[str, Any]]) -> list[str]:
    """Readable rows, under one heading per problem."""
    lines = []
    for problem, group in groupby(cases, key=lambda case: case["problem"]):
        lines += ["", problem]
        lines += [_row(case) for case in group]
    return lines


def _row(case: dict[str, Any]) -> str:
    shape = f"{case['rows']}x{case['width']}"
    text = f"  {case['method']:<22} {case['type']:<8} {shape:<11} t{case['threads']} "
    if seconds := case.get("seconds"):
        between = f"{_time(seconds['low'])}..{_time(seconds['high'])}"
        text += f" {_time(seconds['median']):>8} ({between}, {seconds['repeats']} {seconds['clock']})"
    if floor := case.get("floor"):
        text += f"  {case['over_floor']:.2f} x floor by {floor['by']} {_time(floor['seconds'])}"
    for name, value in case.get("parts", {}).items():
        shown = f"{value / 1000:.4g} kB" if name.endswith("bytes") else _rate(value) if "/s" in name else _time(value)
        text += f"; {name} {shown}"
    return text + "  [" + ", ".join(f"{name} {value}" for name, value in case["counts"].items()) + "]"


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if abs(seconds) * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _rate(per_second: float) -> str:
    return f"{per_second / 1e9:.3g} G"


def compare(ours: tuple[dict, list], baseline: tuple[dict, list]) -> tuple[bool, list[str]]:
    """-> (whether a count differs, lines to print)."""
    known = {_labels(case): case for case in baseline[1]}
    same_machine = ours[0]["machine"]["slug"] == baseline[0]["machine"]["slug"]
    wrong, slower, unknown, held = [], [], 0, 0
    for case in ours[1]:
        other = known.get(_labels(case))
        if other is None:
            unknown += 1
            continue
        held += 1
        name = " ".join(str(case[label]) for label in LABELS)
        wrong += [
            f"  COUNT {name}: {count} {case['counts'].get(count)}, baseline {other['counts'].get(count)}"
            for count in sorted(case["counts"].keys() | other["counts"].keys())
            if case["counts"].get(count) != other["counts"].get(count)
        ]
        if same_machine and "seconds" in case and "seconds" in other:
            now, then = case["seconds"], other["seconds"]
            if now["median"] > SLOWER * then["median"] and now["low"] > then["high"]:
                slower.append(f"  slower {name}: {_time(now['median'])}, baseline {_time(then['median'])}")
    summary = f"{held} cases held, {len(wrong)} counts differ, {unknown} cases not in the baseline"
    if same_machine:
        summary += f", {len(slower)} slower"
    return bool(wrong), [summary, *wrong, *slower]


def _labels(case: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(case[label] for label in LABELS)


if __name__ == "__main__":
    sys.exit(main())
