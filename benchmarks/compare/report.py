# SPDX-License-Identifier: Apache-2.0
"""Tables and charts of a comparison.

    python benchmarks/compare/report.py [FILE]      print the tables
    ... --write                                     renew docs/comparison.md between its marks, and its charts
    ... --check                                     exit status 1 if docs/comparison.md is not what --write gives

FILE is by default the results of the machine that the page names. What is to be shown, with its threshold, is in SHOWS.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1]
RESULTS = BENCHMARKS / "baselines" / "compare"
DOCS = BENCHMARKS.parent / "docs"
PAGE = DOCS / "comparison.md"

Line = dict[str, Any]
OURS = "deqcore"
CALLABLE = "deqcore NumPy callable"
LIMIT = "limit program"
PEERS = ("torchdeq", "jaxopt", "optimistix", "SciPy", "KINSOL")
MISSED = "(missed)"
UNSTEADY, DISTURBED = 2.0, 0.1


def main() -> int:
    parser = argparse.ArgumentParser(description="Tables and charts of a comparison.")
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--write", action="store_true", help="renew docs/comparison.md and its charts")
    parser.add_argument("--check", action="store_true", help="say whether docs/comparison.md is up to date")
    options = parser.parse_args()
    file = options.file
    if file is None:
        named = re.search(r"^\* slug: (\S+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
        if named is None:
            parser.error("the page names no machine; name a file")
        file = RESULTS / f"{named[1]}.jsonl"
    header, *lines = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    sections = {name: "\n".join(make(header, lines)) for name, make in SECTIONS.items()}
    if options.write or options.check:
        page = PAGE.read_text(encoding="utf-8")
        renewed = filled(page, sections)
        if options.check:
            if renewed != page:
                print("docs/comparison.md is out of date: python benchmarks/compare/report.py --write")
            return int(renewed != page)
        PAGE.write_text(renewed, encoding="utf-8")
        charts(lines)
        return 0
    for name, text in sections.items():
        print(f"\n## {name}\n\n{text}")
    return 0


def filled(page: str, sections: dict[str, str]) -> str:
    """The page with each section between ``<!-- name: begin -->`` and ``<!-- name: end -->`` renewed."""
    for name, text in sections.items():
        of = re.escape(name)
        marks = re.compile(rf"(<!-- {of}: begin -->\n).*?(<!-- {of}: end -->)", re.DOTALL)
        page, count = marks.subn(lambda found, text=text: f"{found[1]}\n{text}\n\n{found[2]}", page)
        if count != 1:
            raise ValueError(f"docs/comparison.md: {count} places for {name}; expected one")
    return page


def console(line: Line) -> str:
    """One line of a run's output."""
    text = f"  {line['method']:<44}"
    if "seconds" in line:
        text += f" {duration(line['seconds']['median']):>8}"
        text += f" ({duration(line['seconds']['low'])}..{duration(line['seconds']['high'])})"
    if "over_ours" in line:
        text += f"  {line['over_ours']:.3g} x ours"
    if "floor" in line:
        text += f"  {line['over_floor']:.3g} x floor"
    if "error" in line:
        text += f"  error {line['error']:.1e}{'' if line['good'] else ' ' + MISSED}"
    for name, value in line.get("parts", {}).items():
        text += f"; {name} {value / 1e9:.3g} G" if "/s" in name else f"; {name} {duration(value)}"
    counts = ", ".join(f"{name} {value}" for name, value in line["counts"].items())
    return f"{text}  [{counts}]" + (f"  {line['role']}" if line.get("role", "as is") != "as is" else "")


def duration(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if abs(seconds) * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}"


def shapes_of(lines: Sequence[Line]) -> list[tuple[int, int, int]]:
    return list(dict.fromkeys((line["rows"], line["width"], line["threads"]) for line in lines))


def beside_peers(problem: str, factor: float | None = None) -> Callable[[Line, Sequence[Line]], list[str]]:
    """Milliseconds by size and library, default / best; the last columns are ratios, with the verdict of SHOWS."""

    def make(_: Line, lines: Sequence[Line]) -> list[str]:
        own = [line for line in lines if line["problem"] == problem]
        if not own:
            return ["Not measured."]
        libraries = [one for one in (OURS, LIMIT, CALLABLE, *PEERS) if any(line["library"] == one for line in own)]
        head = ["rows x width", *libraries, "fastest peer / deqcore", "deqcore / limit program"]
        rows = []
        for shape in shapes_of(own):
            here = [line for line in own if (line["rows"], line["width"], line["threads"]) == shape]
            cells = [cell([line for line in here if line["library"] == library]) for library in libraries]
            ours = fastest(here, (OURS,))
            peer, limit = fastest(here, PEERS), fastest(here, (LIMIT,))
            rows.append(
                [
                    f"{shape[0]} x {shape[1]}",
                    *cells,
                    f"{peer[0] / ours[0]:.2f} ({peer[1]})" if peer and ours else "-",
                    f"{ours[0] / limit[0]:.2f}{beside_limit(ours[0], limit[0])}" if limit and ours else "-",
                ]
            )
        return markdown(head, rows)

    def beside_limit(ours: float, limit: float) -> str:
        return "" if factor is None else f", {said(ours <= factor * limit + CALL)}"

    return make


def cell(lines: Sequence[Line]) -> str:
    """The default's time and the best setting's, a limit program's fastest; ``(missed)``: the answer is not good."""
    if any(line["library"] == LIMIT for line in lines):
        lines = [min(lines, key=lambda line: (not line["good"], line["seconds"]["median"]))]
    order = {"default": 0, "as is": 1, "default and best": 1, "best": 2}
    told = [
        milliseconds(line["seconds"]["median"]) + ("" if line["good"] else f" {MISSED}")
        for line in sorted(lines, key=lambda line: order[line["role"]])
    ]
    return " / ".join(told) or "-"


def fastest(lines: Sequence[Line], libraries: Sequence[str]) -> tuple[float, str] | None:
    good = [line for line in lines if line["library"] in libraries and line["good"]]
    return min(((line["seconds"]["median"], line["library"]) for line in good), default=None)


def settings(_: Line, lines: Sequence[Line]) -> list[str]:
    """Which setting was a library's fastest, and how often."""
    rows = []
    for problem in dict.fromkeys(line["problem"] for line in lines if "role" in line):
        for library in PEERS:
            best: dict[str, int] = {}
            for line in lines:
                if line["problem"] == problem and line["library"] == library and "best" in line.get("role", ""):
                    best[line["setting"]] = best.get(line["setting"], 0) + 1
            if best:
                ranked = sorted(best.items(), key=lambda one: -one[1])
                rows.append([problem, library, "; ".join(f"{setting} ({count})" for setting, count in ranked)])
    return markdown(["problem", "library", "fastest settings (sizes)"], rows) if rows else ["Not measured."]


def products(_: Line, lines: Sequence[Line]) -> list[str]:
    own = [line for line in lines if line.get("group") == "products"]
    if not own:
        return ["Not measured."]
    names = list(dict.fromkeys(line["method"] for line in own))
    rows = []
    for problem, threads in dict.fromkeys((line["problem"], line["threads"]) for line in own):
        times = {line["method"]: line["seconds"]["median"] for line in own
                 if (line["problem"], line["threads"]) == (problem, threads)}  # fmt: skip
        rows.append(
            [
                problem.removeprefix("product "),
                str(threads),
                *(f"{times[name] * 1e6:.3g}" if name in times else "-" for name in names),
                *over_best(times),
            ]
        )
    head = ["rows x outputs x inputs", "threads", *names, "deqcore / best other", "best other"]
    return markdown(head, rows)


def over_best(times: dict[str, float]) -> tuple[str, str]:
    """deqcore's product over the fastest other with the verdict, and who that is."""
    others = {name: seconds for name, seconds in times.items() if not name.startswith(OURS)}
    best = min(others, key=lambda name: others[name])
    ratio = times["deqcore packed"] / others[best]
    return f"{ratio:.2f}, {said(ratio <= PRODUCT)}", best


def from_cpp(_: Line, lines: Sequence[Line]) -> list[str]:
    own = [line for line in lines if line.get("group") == "from_cpp"]
    if not own:
        return ["Not measured."]
    rows = []
    for problem in dict.fromkeys(line["problem"] for line in own):
        times = {line["library"]: line["seconds"]["median"] for line in own if line["problem"] == problem}
        shape = next(f"{line['rows']} x {line['width']}" for line in own if line["problem"] == problem)
        row = [problem.rpartition(", ")[2], shape, f"{times[OURS] * 1e6:.3g}"]
        if LIMIT in times:
            ratio = times[OURS] / times[LIMIT]
            row += [f"{times[LIMIT] * 1e6:.3g}", f"{ratio:.2f}, {said(ratio <= CPP)}"]
        else:
            row += ["-", "-"]
        rows.append(row)
    return markdown(["method", "rows x width", OURS, LIMIT, "deqcore / limit program"], rows)


def memory(_: Line, lines: Sequence[Line]) -> list[str]:
    own = [line for line in lines if line.get("group") == "memory"]
    if not own:
        return ["Not measured."]
    rows = [
        [
            line["method"],
            f"{line['rows']} x {line['width']}",
            f"{line['counts']['planned']:,}",
            f"{line['counts']['held']:,}",
            said(line["counts"]["planned"] == line["counts"]["held"]),
            f"{line['traced_peak'] - line['counts']['planned']:+,}",
        ]
        for line in own
    ]
    return markdown(["method", "rows x width", "plan()", "held", "verdict", "traced peak beyond plan()"], rows)


def of_callable(_: Line, lines: Sequence[Line]) -> list[str]:
    own = [line for line in lines if line.get("group") == "callable"]
    if not own:
        return ["Not measured."]
    names = list(dict.fromkeys(line["method"] for line in own))
    rows = []
    for shape in shapes_of(own):
        here = {line["method"]: line for line in own if (line["rows"], line["width"], line["threads"]) == shape}
        floor = here[names[0]]["floor"]["seconds"]
        rows.append([
            f"{shape[0]} x {shape[1]}",
            str(shape[2]),
            duration(floor),
            *(f"{duration(here[name]['seconds']['median'])} ({here[name]['over_floor']:.2f})" if name in here else "-"
              for name in names),
        ])  # fmt: skip
    return markdown(["rows x width", "threads", "floor", *(f"{name} (over floor)" for name in names)], rows)


def listed(group: str, column: str, title: str, problem: str = "") -> Callable[[Line, Sequence[Line]], list[str]]:
    """A row per case of a group, with one ratio."""

    def make(_: Line, lines: Sequence[Line]) -> list[str]:
        own = [line for line in lines if line.get("group") == group and column in line]
        own = [line for line in own if line["problem"].startswith(problem)]
        if not own:
            return ["Not measured."]
        rows = [
            [
                line["problem"],
                line["method"],
                duration(line["seconds"]["median"]),
                f"{line[column]:.3g}",
                f"{line['counts']['converged']} of {line['counts']['of']}",
            ]
            for line in own
        ]
        return markdown(["case", "by", "time", title, "rows good"], rows)

    return make


def scaling(_: Line, lines: Sequence[Line]) -> list[str]:
    own = [line for line in lines if line.get("group") == "scaling" and "history" in line]
    if not own:
        return ["Not measured."]
    rows = [
        [
            line["problem"].removeprefix("scaling with "),
            f"{line['rows']} x {line['width']}",
            str(line["history"]),
            str(line["threads"]),
            duration(line["seconds"]["median"]),
            duration(line["parts"]["per row and step"]),
            f"{line['parts']['flop/s of the products'] / 1e9:.3g}",
            f"{line['over_law']:.2f}",
            f"{line['speedup']:.2f}",
            f"{line['counts']['scratch bytes']:,}",
        ]
        for line in own
    ]
    head = ["along", "rows x width", "history", "threads", "time", "per row and step", "Gflop/s", "over the law",
            "speed-up", "scratch bytes"]  # fmt: skip
    laws = []
    for threads in dict.fromkeys(line["threads"] for line in own):
        law = next(line["law"] for line in own if line["threads"] == threads)
        terms = (
            f"a = {1e-9 / law['a']:.3g} Gflop/s" if law["a"] else "a = 0",
            f"b = {1e-9 / law['b']:.3g} GB/s" if law["b"] else "b = 0",
            f"c = {law['c'] * 1e6:.3g} microseconds",
        )
        laws.append(f"* {threads} thread{'s' * (threads > 1)}: {', '.join(terms)}")
    return [
        *laws,
        "",
        *markdown(head, rows),
        "",
        "![Time and scratch against rows, width and history](comparison-scaling.png)",
    ]


def machine(header: Line, lines: Sequence[Line]) -> list[str]:
    groups = header.get("groups", {})
    timed = [line["seconds"] for line in lines if line.get("seconds", {}).get("repeats", 1) > 1]
    told = [line["others"] for line in lines if "others" in line]
    disturbed = sum(cores > DISTURBED for cores in told)
    unsteady = sum(of["high"] > UNSTEADY * of["median"] for of in timed)
    return [
        *(f"* {name}: {value}" for name, value in header["machine"].items()),
        f"* disturbed: {disturbed} of {len(told)} cases, while others took more than {DISTURBED} cores",
        f"* unsteady: {unsteady} of {len(timed)} cases, whose 90 % quantile is beyond {UNSTEADY:g} medians",
        *(f"* group {name}: {of['seconds']} s, load {of['load before']} before and {of['load after']} after"
          for name, of in groups.items()),
    ]  # fmt: skip


# What is to be shown: how many times another's time deqcore's may take. From Python a call's microseconds are added.
LIMIT_FACTOR, HARD_LIMIT_FACTOR, CALL, CPP = 1.2, 1.3, 5e-6, 1.3
PEER, READING_W, TORCHDEQ, TORCHDEQ_SMALL = 0.5, 1.0, 1 / 8, 1 / 100
PRODUCT = 1 / 0.95
NEEDED, STEP, BUSY = 1.3, 1.3, 3.0
SOLVES = ("solve tanh 0.9, anderson", "solve tanh 0.9, picard")
HARDER, TRAINING = "harder relu 0.99, anderson", "training step, relu 0.99"

Shape = tuple[int, int, int]  # rows, width, threads
Most = Callable[[Shape, float], float | None]  # shape, another's seconds -> ours at most; None: not asked there


def of_limit(factor: float) -> Most:
    return lambda _, seconds: factor * seconds + CALL


def of_peer(shape: Shape, seconds: float) -> float:
    """Nothing but reading W matters at 1 x 1024, which all do at the speed of the cache."""
    return (READING_W if shape[:2] == (1, 1024) else PEER) * seconds


def always(factor: float) -> Most:
    return lambda _, seconds: factor * seconds


def at_the_smallest(shape: Shape, seconds: float) -> float | None:
    return TORCHDEQ_SMALL * seconds if shape[:2] == (1, 64) else None


def said(met: bool) -> str:
    return "met" if met else "**missed**"


@dataclass(frozen=True)
class Shown:
    """One number held against a threshold; without one it is reported only."""

    where: str
    value: float
    met: bool | None


def of_solves(
    problems: Sequence[str], libraries: Sequence[str], most: Most
) -> Callable[[Sequence[Line]], Iterator[Shown]]:
    """Ours over the fastest of some libraries, by size; with several problems, whichever each solves faster."""

    def show(lines: Sequence[Line]) -> Iterator[Shown]:
        own = [line for line in lines if line["problem"] in problems]
        for shape in shapes_of(own):
            here = [line for line in own if (line["rows"], line["width"], line["threads"]) == shape]
            ours, other = fastest(here, (OURS,)), fastest(here, libraries)
            where = f"{shape[0]} x {shape[1]}"
            if ours is None:
                yield Shown(f"{where} no good answer", float("nan"), False)
            elif other is not None and (bound := most(shape, other[0])) is not None:
                yield Shown(where, ours[0] / other[0], ours[0] <= bound)

    return show


def of_products(lines: Sequence[Line]) -> Iterator[Shown]:
    own = [line for line in lines if line.get("group") == "products"]
    for problem, threads in dict.fromkeys((line["problem"], line["threads"]) for line in own):
        times = {line["method"]: line["seconds"]["median"] for line in own
                 if (line["problem"], line["threads"]) == (problem, threads)}  # fmt: skip
        others = [seconds for name, seconds in times.items() if not name.startswith(OURS)]
        if others:
            ratio = times["deqcore packed"] / min(others)
            yield Shown(f"{problem.removeprefix('product ')} on {threads}", ratio, ratio <= PRODUCT)


def of_cpp(lines: Sequence[Line]) -> Iterator[Shown]:
    own = [line for line in lines if line.get("group") == "from_cpp"]
    for problem in dict.fromkeys(line["problem"] for line in own):
        times = {line["library"]: line["seconds"]["median"] for line in own if line["problem"] == problem}
        if LIMIT in times:
            ratio = times[OURS] / times[LIMIT]
            yield Shown(problem.rpartition(", ")[2], ratio, ratio <= CPP)


def of_gradients(lines: Sequence[Line]) -> Iterator[Shown]:
    for line in lines:
        if line.get("group") == "training" and line["library"] == OURS:
            yield Shown(f"{line['rows']} x {line['width']} {line['setting']}", line["error"], line["good"])


def of_memory(lines: Sequence[Line]) -> Iterator[Shown]:
    for line in lines:
        if line.get("group") == "memory":
            planned, held = line["counts"]["planned"], line["counts"]["held"]
            yield Shown(f"{line['rows']} x {line['width']} {line['method']}", held / planned, held == planned)


def held(
    group: str, column: str, most: float | None = None, libraries: Sequence[str] = (OURS, CALLABLE)
) -> Callable[[Sequence[Line]], Iterator[Shown]]:
    """A ratio of deqcore's; reported only where it may be anything."""

    def show(lines: Sequence[Line]) -> Iterator[Shown]:
        for line in lines:
            if line.get("group") == group and line["library"] in libraries and column in line:
                where = f"{line['problem'].rpartition(', ')[2]} {line['rows']} x {line['width']} on {line['threads']}"
                yield Shown(where, line[column], None if most is None else line[column] <= most)

    return show


WITHIN_LIMIT = f"<= {LIMIT_FACTOR} x limit program + {CALL * 1e6:.0f} microseconds"
WITHIN_HARD_LIMIT = f"<= {HARD_LIMIT_FACTOR} x limit program + {CALL * 1e6:.0f} microseconds"
AHEAD = f"<= {PEER} x fastest peer (1 x 1024: {READING_W} x)"
SHOWS: tuple[tuple[str, str, Callable[[Sequence[Line]], Iterator[Shown]]], ...] = (
    ("packed product", f"<= {PRODUCT:.3g} x best other", of_products),
    ("Anderson, limit", WITHIN_LIMIT, of_solves(SOLVES[:1], (LIMIT,), of_limit(LIMIT_FACTOR))),
    ("Picard, limit", WITHIN_LIMIT, of_solves(SOLVES[1:], (LIMIT,), of_limit(LIMIT_FACTOR))),
    ("from C++, limit", f"<= {CPP} x limit program", of_cpp),
    ("Anderson, peers", AHEAD, of_solves(SOLVES[:1], PEERS, of_peer)),
    ("Anderson, torchdeq", "<= 0.01 x torchdeq's best, at 1 x 64", of_solves(SOLVES[:1], PEERS[:1], at_the_smallest)),
    ("any method, peers", "<= 1.0 x fastest peer of any method", of_solves(SOLVES, PEERS, always(1.0))),
    ("Picard, peers", "<= 1.0 x fastest peer's Picard", of_solves(SOLVES[1:], PEERS, always(1.0))),
    ("harder, limit", WITHIN_HARD_LIMIT, of_solves((HARDER,), (LIMIT,), of_limit(HARD_LIMIT_FACTOR))),
    ("harder, torchdeq", "<= 0.125 x torchdeq's best", of_solves((HARDER,), PEERS[:1], always(TORCHDEQ))),
    ("harder, peers", AHEAD, of_solves((HARDER,), PEERS, of_peer)),
    ("training, limit", WITHIN_HARD_LIMIT, of_solves((TRAINING,), (LIMIT,), of_limit(HARD_LIMIT_FACTOR))),
    ("training, torchdeq", "<= 0.125 x torchdeq's best", of_solves((TRAINING,), PEERS[:1], always(TORCHDEQ))),
    ("training, peers", AHEAD, of_solves((TRAINING,), PEERS, of_peer)),
    ("gradients", "within 1e-5 of float64's", of_gradients),
    ("memory", "plan() to the byte", of_memory),
    ("skewed batch", f"<= {NEEDED} x what its rows need", held("skewed", "over_floor", NEEDED)),
    ("own time per step", f"<= {STEP} x bytes / rate of memory", held("callable", "over_floor", STEP)),
    ("busy neighbour, native", f"<= {BUSY} x quiet", held("busy", "over_quiet", BUSY, (OURS,))),
    ("busy neighbour, products by NumPy", "over quiet; reported", held("busy", "over_quiet", None, (CALLABLE,))),
    ("scaling", "over the law; reported", held("scaling", "over_law")),
)


def verdicts(_: Line, lines: Sequence[Line]) -> list[str]:
    """What is to be shown: its threshold, how often it was met, the numbers, and where it was missed."""
    rows = []
    for name, threshold, show in SHOWS:
        shown = list(show(lines))
        if not shown:
            rows.append([name, threshold, "not measured", "-", "-"])
            continue
        judged = [one for one in shown if one.met is not None]
        missed = [f"{one.where}: {one.value:.3g}" for one in judged if not one.met]
        verdict = f"{said(not missed)}, {len(judged) - len(missed)} of {len(judged)}" if judged else "-"
        values = [one.value for one in shown]
        rows.append([name, threshold, verdict, f"{min(values):.3g} .. {max(values):.3g}", "; ".join(missed) or "-"])
    return markdown(["shown", "threshold", "verdict", "from .. to", "missed at"], rows)


SECTIONS: dict[str, Callable[[Line, Sequence[Line]], list[str]]] = {
    "machine": machine,
    "verdicts": verdicts,
    "from C++": from_cpp,
    "memory": memory,
    "anderson": beside_peers(SOLVES[0], LIMIT_FACTOR),
    "picard": beside_peers(SOLVES[1], LIMIT_FACTOR),
    "harder": beside_peers(HARDER, HARD_LIMIT_FACTOR),
    "training": beside_peers(TRAINING, HARD_LIMIT_FACTOR),
    "settings": settings,
    "products": products,
    "callable": of_callable,
    "skewed": listed("skewed", "over_ours", "over deqcore"),
    "skewed floor": listed("skewed", "over_floor", "over what its rows need"),
    "busy": listed("busy", "over_quiet", "over quiet"),
    "scaling": scaling,
    "many rows": beside_peers("many rows, tanh 0.9, anderson"),
    "wide rows": listed("scaling", "over_ours", "over deqcore", "wide rows"),
}


def charts(lines: Sequence[Line]) -> None:
    """docs/comparison.png: times over deqcore's by size; docs/comparison-scaling.png: time and bytes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = {
        "Anderson, tanh 0.9": SOLVES[0],
        "Picard, tanh 0.9": SOLVES[1],
        "Anderson, harder relu 0.99": HARDER,
        "training step, relu 0.99": TRAINING,
    }
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7), layout="constrained")
    colours = dict(zip((CALLABLE, *PEERS, LIMIT), pyplot.get_cmap("tab10").colors, strict=False))
    for axis, (title, problem) in zip(axes.flat, panels.items(), strict=True):
        own = [line for line in lines if line["problem"] == problem]
        sizes = shapes_of(own)
        axis.axhline(1, color="black", linewidth=1, label="deqcore, native")
        for library, colour in colours.items():
            points = []
            for at, shape in enumerate(sizes):
                here = [line for line in own if (line["rows"], line["width"], line["threads"]) == shape]
                found, ours = fastest(here, (library,)), fastest(here, (OURS,))
                if found and ours:
                    points.append((at, found[0] / ours[0]))
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", color=colour, label=library,
                          linestyle="--" if library == LIMIT else "-")  # fmt: skip
        axis.set_yscale("log")
        axis.set_xticks(range(len(sizes)), [f"{rows}x{width}" for rows, width, _ in sizes])
        axis.set_title(title)
        axis.set_ylabel("time over deqcore's")
        axis.grid(alpha=0.3, which="both")
    named = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(named.values()), list(named), fontsize=8, loc="outside lower center", ncols=len(named))
    figure.savefig(DOCS / "comparison.png", dpi=110)
    pyplot.close(figure)

    own = [line for line in lines if line.get("group") == "scaling" and "history" in line]
    if not own:
        return
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axis, along in zip(axes, ("rows", "width", "history"), strict=True):
        here = [line for line in own if line["problem"].startswith(f"scaling with {along}")]
        for threads in sorted({line["threads"] for line in here}):
            points = [(line[along], line["seconds"]["median"] * 1e3) for line in here if line["threads"] == threads]
            axis.plot(*zip(*points, strict=True), marker="o", label=f"{threads} thread{'s' * (threads > 1)}")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel(along)
        axis.set_ylabel("milliseconds")
        axis.grid(alpha=0.3, which="both")
        bytes_axis = axis.twinx()
        points = [(line[along], line["counts"]["scratch bytes"] / 1e6) for line in here if line["threads"] == 1]
        if points:
            bytes_axis.plot(*zip(*points, strict=True), color="grey", linestyle=":", label="scratch")
        bytes_axis.set_yscale("log")
        bytes_axis.set_ylabel("MB of scratch (dotted)")
    axes[0].legend(fontsize=8)
    figure.savefig(DOCS / "comparison-scaling.png", dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
