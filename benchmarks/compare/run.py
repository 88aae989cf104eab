# SPDX-License-Identifier: Apache-2.0
"""Compare deqcore with other libraries: python benchmarks/compare/run.py [GROUP ...] [--quick] [--out FILE].

Every other library is optional. One JSON line per case, as in benchmarks/run.py.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # in place of this folder, so that no module of it hides another

from compare import pools  # noqa: E402
from harness import machine  # noqa: E402

GROUPS = ("solves", "harder", "training", "products", "callable", "skewed", "busy", "scaling")
THREADS = 2


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare deqcore with other libraries on the same maps.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one repeat: shows that it runs")
    parser.add_argument("--out", type=Path, help="file to write; default: baselines/compare/<machine>.jsonl if all run")
    parser.add_argument("--limit", type=Path, help="folder of a limit program to be timed beside")
    parser.add_argument("--library", type=Path, help="libdeqcore_compare.so; default: built in build/benchmarks")
    options = parser.parse_args()
    for group in options.groups:
        if group not in GROUPS:
            parser.error(f"{group} given; expected some of {', '.join(GROUPS)}")
    machine.prepare()
    warnings.simplefilter("ignore")  # other libraries' warnings are none of ours
    pools.prepare(THREADS)
    out = options.out
    if out is None and not options.quick and not options.groups:
        out = HERE.parent / "baselines" / "compare" / f"{machine.slug()}.jsonl"

    from compare import peers, products, report  # after prepare(): these load NumPy and what else is there

    products.LIBRARY = options.library
    header = {"machine": described(peers.find(options.limit))}
    print("\n".join(f"{name + ':':<17} {value}" for name, value in header["machine"].items()), flush=True)
    lines = [header]
    for group in options.groups or GROUPS:
        lines += run_group(group, options, report)
        if out is not None:  # after each group: a run that is stopped keeps what it has
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    if out is not None:
        print(f"\nwritten: {out.name}, {len(lines) - 1} cases")
    return 0


def run_group(group: str, options: argparse.Namespace, report: Any) -> list[dict[str, Any]]:
    from harness.measure import Plan

    start, load, lines, problem = time.perf_counter(), os.getloadavg()[0], [], None
    for line in importlib.import_module(f"compare.{group}").cases(Plan(options.quick)):
        line |= {"group": group}
        heading = (line["problem"], line["rows"], line["width"])
        if heading != problem:
            print("\n{}, {} x {}".format(*heading))
            problem = heading
        print(report.console(line), flush=True)
        lines.append(line)
    print(f"\n{group}: {time.perf_counter() - start:.0f} s; load before {load:.1f}, after {os.getloadavg()[0]:.1f}")
    return lines


def described(found: dict[str, str]) -> dict[str, Any]:
    return {
        **machine.described(machine.slug()),
        "threads": f"{THREADS} for every library unless a case says otherwise",
        **{f"with {name}": said for name, said in found.items() if name != "deqcore"},
    }


if __name__ == "__main__":
    sys.exit(main())
