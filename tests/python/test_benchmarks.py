# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run, on tiny sizes, and their counts can be held against a baseline. So they cannot rot."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
IN_PYTHON = ("native", "step", "skewed", "evaluations", "streaming", "ode", "homoode")
IN_CPP = ("kernels", "dialogue", "dense")


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, "-W", "error", str(BENCHMARKS / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def cases_of(path):
    header, *cases = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert header["machine"]["slug"]
    assert "unset: OPENBLAS_CORETYPE, OPENBLAS_L2_SIZE" in header["machine"]["environment"]
    return cases


def check(cases):
    assert cases
    for case in cases:
        assert case["counts"], case
        if "seconds" in case:
            assert case["seconds"]["repeats"] == 1, case
    labels = [tuple(case[k] for k in ("problem", "method", "type", "rows", "width", "threads")) for case in cases]
    assert len(set(labels)) == len(labels)


@pytest.fixture(scope="module")
def python_lines(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmarks") / "quick.jsonl"
    done = run("run.py", "--quick", "--out", out, *IN_PYTHON)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_python_cases_run(python_lines):
    cases = cases_of(python_lines)
    check(cases)
    assert {case["problem"].split(",")[0] for case in cases} >= {
        "dense tanh from Python",
        "one step of the Python dialogue beyond the map",
        "skewed batch",
        "evaluations to 1e-8",
        "frames",
        "one stiff row",
    }


def test_counts_repeat_exactly_and_a_difference_is_an_error(python_lines, tmp_path):
    again = tmp_path / "again.jsonl"
    assert run("run.py", "--quick", "--out", again, *IN_PYTHON).returncode == 0
    held = run("report.py", again, "--against", python_lines)
    assert held.returncode == 0, held.stdout + held.stderr
    assert " 0 counts differ" in held.stdout
    lines = again.read_text(encoding="utf-8").splitlines()
    changed = json.loads(lines[1])
    changed["counts"]["nfe"] += 1
    lines[1] = json.dumps(changed)
    again.write_text("\n".join(lines), encoding="utf-8")
    held = run("report.py", again, "--against", python_lines)
    assert held.returncode == 1
    assert " 1 counts differ" in held.stdout


COMPARED = ("solves", "harder", "training", "callable", "skewed", "busy", "scaling")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "quick.jsonl"
    done = run("compare/run.py", "--quick", "--out", out, *COMPARED)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


def test_the_comparison_runs_with_whatever_is_installed(compared):
    cases = cases_of(compared[0])
    check(cases)
    assert {case["group"] for case in cases} == set(COMPARED)
    for case in cases:
        if case["library"].startswith("deqcore"):
            assert case.get("good", True), case
    wide = [case for case in cases if case["problem"] == "wide rows, anderson" and "planned" in case["counts"]]
    assert [case["counts"]["scratch bytes"] for case in wide] == [case["counts"]["planned"] for case in wide]


@pytest.mark.parametrize(
    ("library", "package", "group"),
    [("SciPy", "scipy", "solves"), ("torchdeq", "torchdeq", "training"), ("jaxopt", "jaxopt", "training"),
     ("optimistix", "optimistix", "training")],
)  # fmt: skip
def test_a_peer_takes_part_or_is_said_to_be_absent(compared, library, package, group):
    out, printed = compared
    if importlib.util.find_spec(package) is None:
        assert f"{package} is absent; pip install" in printed
        pytest.skip(f"{package} is not installed")
    good = [case["good"] for case in cases_of(out) if (case["library"], case["group"]) == (library, group)]
    assert any(good)


def test_products_are_compared(tmp_path):
    out = tmp_path / "quick.jsonl"
    done = run("compare/run.py", "--quick", "--out", out, "products")
    assert done.returncode == 0, done.stdout + done.stderr
    cases = cases_of(out)
    check(cases)
    assert all(case["good"] for case in cases)
    assert "deqcore packed" in {case["method"] for case in cases}


def test_the_page_of_comparisons_is_that_of_the_committed_results():
    held = run("compare/report.py", "--check")
    assert held.returncode == 0, held.stdout + held.stderr


def test_a_report_is_made_of_what_was_run(compared):
    done = run("compare/report.py", compared[0])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "## training" in done.stdout


def built():
    """The C++ benchmarks, if a build folder has them newer than every source; else run.py builds them."""
    sources = [path for folder in ("cpp", "benchmarks") for path in (ROOT / folder).rglob("*.?pp")]
    newest = max(path.stat().st_mtime for path in sources)
    binaries = (ROOT / "build").glob("*/benchmarks/cpp/deqcore_benchmarks")
    return [path for path in binaries if path.stat().st_mtime > newest]


def test_the_cpp_cases_run(tmp_path):
    out = tmp_path / "quick.jsonl"
    binary = [argument for path in built()[:1] for argument in ("--binary", path)]
    done = run("run.py", "--quick", "--out", out, *binary, *IN_CPP)
    assert done.returncode == 0, done.stdout + done.stderr
    check(cases_of(out))


def test_an_unknown_group_is_refused():
    done = run("run.py", "--quick", "flux")
    assert done.returncode == 2
    assert "expected some of kernels" in done.stderr


def test_committed_baselines_are_whole():
    for path in (BENCHMARKS / "baselines").glob("*.jsonl"):
        header, *cases = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        assert header["machine"]["slug"] == path.stem
        assert cases
