# SPDX-License-Identifier: Apache-2.0
"""Run every benchmark and write one JSON line per case: python benchmarks/run.py [--quick] [--out FILE]."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import machine
from harness.build import build

HERE = Path(__file__).resolve().parent
GROUPS = (
    "kernels",
    "dialogue",
    "dense",
    "native",
    "step",
    "skewed",
    "evaluations",
    "history16",
    "backward",
    "gradients",
    "homotopy",
    "streaming",
    "training",
    "ode",
    "homoode",
)
CPP = GROUPS[:3]
ON_REQUEST = ("device", "catalogue")  # needs a GPU and CuPy; takes many minutes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "groups",
        nargs="*",
        metavar="GROUP",
        help=f"of {', '.join(GROUPS)}; all if none is named; and {', '.join(ON_REQUEST)}",
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one repeat: shows that it runs")
    parser.add_argument("--out", type=Path, help="file to write; default: baselines/<machine>.jsonl, with --quick none")
    parser.add_argument("--binary", type=Path, help="the C++ benchmarks; default: built in build/benchmarks")
    options = parser.parse_args()
    for group in options.groups:
        if group not in GROUPS + ON_REQUEST:
            parser.error(f"{group} given; expected some of {', '.join(GROUPS + ON_REQUEST)}")
    machine.prepare()
    wanted = options.groups or GROUPS
    out = options.out
    if out is None and not options.quick and not options.groups:
        out = HERE / "baselines" / f"{machine.slug()}.jsonl"

    import report  # after prepare(): these load NumPy

    header = {"machine": machine.described(machine.gpu_slug() if "device" in wanted else machine.slug())}
    print("\n".join(report.header_lines(header)), flush=True)
    lines = [header]
    for group in wanted:
        found = list(cpp_cases(group, options) if group in CPP else python_cases(group, options.quick))
        print("\n".join(report.table(found)), flush=True)
        lines += found
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        print(f"\nwritten: {out.name}, {len(lines) - 1} cases")
    return 0


def cpp_cases(group: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if options.binary is None:
        options.binary = build("deqcore_benchmarks", options.quick) / "cpp" / "deqcore_benchmarks"
    command = [str(options.binary), group, *(["--quick"] if options.quick else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise SystemExit(f"{group}: the C++ benchmarks ended with {process.returncode}")


def python_cases(group: str, quick: bool) -> Iterator[dict[str, Any]]:
    import importlib

    from harness.measure import Plan

    yield from importlib.import_module(f"python.{group}").cases(Plan(quick))


if __name__ == "__main__":
    sys.exit(main())
