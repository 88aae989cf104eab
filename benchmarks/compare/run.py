# SPDX-License-Identifier: Apache-2.0
"""Compare deqcore with other libraries: python benchmarks/compare/run.py [GROUP ...] [--quick] [--out FILE].

Every other library is optional. One JSON line per case, as in benchmarks/run.py. A group that is run replaces its lines
in the file of this machine; what a search for settings found is kept beside it, in settings/.
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

GROUPS = (
    "solves",
    "from_cpp",
    "harder",
    "training",
    "products",
    "callable",
    "skewed",
    "memory",
    "busy",
    "scaling",
)
THREADS = 2


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare deqcore with other libraries on the same maps.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one repeat: shows that it runs")
    parser.add_argument("--out", type=Path, help="file to write; default: baselines/compare/<machine>.jsonl")
    parser.add_argument("--brief", action="store_true", help="few repeats: a first look; written to --out only")
    parser.add_argument("--search", action="store_true", help="search for settings again")
    parser.add_argument("--limit", type=Path, help="folder of a limit program to be timed beside")
    parser.add_argument("--library", type=Path, help="libdeqcore_compare.so; default: built in build/benchmarks")
    options = parser.parse_args()
    for group in options.groups:
        if group not in GROUPS:
            parser.error(f"{group} given; expected some of {', '.join(GROUPS)}")
    machine.prepare()
    warnings.simplefilter("ignore")  # other libraries' warnings are none of ours
    pools.prepare(THREADS)
    results, out = HERE.parent / "baselines" / "compare", options.out
    if out is None and not options.quick and not options.brief:
        out = results / f"{machine.slug()}.jsonl"

    from compare import contest, peers, products, report  # after prepare(): these load NumPy and what else is there

    products.LIBRARY = options.library
    found = peers.find(options.limit)
    contest.SETTINGS.versions = found
    if not options.quick:
        contest.SETTINGS.file = results / "settings" / f"{machine.slug()}.json"
        if not options.search:
            contest.SETTINGS.load()
    header = {"machine": described(found), "groups": {}}
    print("\n".join(f"{name + ':':<17} {value}" for name, value in header["machine"].items()), flush=True)
    before, lines = earlier(out) if out is not None else ({}, {})
    header["groups"] = before
    for group in options.groups or GROUPS:
        header["groups"][group], lines[group] = run_group(group, options, report)
        if out is not None:  # after each group: a run that is stopped keeps what it has
            out.parent.mkdir(parents=True, exist_ok=True)
            kept = [header, *(line for name in GROUPS for line in lines.get(name, []))]
            out.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        contest.SETTINGS.save()
    if out is not None:
        print(f"\nwritten: {out.name}, {sum(map(len, lines.values()))} cases")
    print("\n".join(["", *report.verdicts(header, [line for group in lines.values() for line in group])]))
    return 0


def earlier(out: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """-> what the file holds: how its groups were run, and their lines."""
    lines: dict[str, list[dict[str, Any]]] = {}
    if not out.exists():
        return {}, lines
    header, *cases = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    for line in cases:
        lines.setdefault(line["group"], []).append(line)
    return header.get("groups", {}), lines


def run_group(group: str, options: argparse.Namespace, report: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """-> how it was run, and its lines."""
    from harness.measure import Plan

    start, load, lines, problem = time.perf_counter(), os.getloadavg()[0], [], None
    others = machine.Others()
    taken_by_others = None
    for line in importlib.import_module(f"compare.{group}").cases(Plan(options.quick, options.brief)):
        measured = others.since()
        taken_by_others = measured if measured is not None else taken_by_others  # one case's lines come together
        line |= {"group": group}
        if taken_by_others is not None:
            line["others"] = round(taken_by_others, 2)
        heading = (line["problem"], line["rows"], line["width"])
        if heading != problem:
            busy = "" if taken_by_others is None else f" (others took {taken_by_others:.2f} cores)"
            print("\n{}, {} x {}{}".format(*heading, busy))
            problem = heading
        print(report.console(line), flush=True)
        lines.append(line)
    after, taken = os.getloadavg()[0], time.perf_counter() - start
    print(f"\n{group}: {taken:.0f} s; load before {load:.1f}, after {after:.1f}")
    return {"seconds": round(taken), "load before": round(load, 1), "load after": round(after, 1)}, lines


def described(found: dict[str, str]) -> dict[str, Any]:
    return {
        **machine.described(machine.slug()),
        "BLAS": pools.described(),
        "threads": f"{THREADS} for every library unless a case says otherwise",
        **{f"with {name}": said for name, said in found.items() if name != "deqcore"},
    }


if __name__ == "__main__":
    sys.exit(main())
