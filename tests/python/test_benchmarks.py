# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run, on tiny sizes, and their counts can be held against a baseline. So they cannot rot."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys

import pytest

from support.building import ROOT, cpp_tests

BENCHMARKS = ROOT / "benchmarks"
IN_PYTHON = (
    "native", "step", "skewed", "evaluations", "history16", "homotopy", "streaming", "ode", "homoode",
)  # fmt: skip
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
        "roots",
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


COMPARED = ("solves", "harder", "training", "callable", "skewed", "memory", "busy", "scaling")


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


def test_products_and_solves_from_cpp_are_compared(tmp_path):
    out = tmp_path / "quick.jsonl"
    library = cpp_tests("deqcore_compare") / "benchmarks" / "compare" / "libdeqcore_compare.so"
    done = run("compare/run.py", "--quick", "--library", library, "--out", out, "products", "from_cpp")
    assert done.returncode == 0, done.stdout + done.stderr
    cases = cases_of(out)
    check(cases)
    assert {case["group"] for case in cases} == {"products", "from_cpp"}
    assert all(case["good"] for case in cases)
    assert "deqcore packed" in {case["method"] for case in cases}


def test_the_page_of_comparisons_is_that_of_the_committed_results():
    held = run("compare/report.py", "--check")
    assert held.returncode == 0, held.stdout + held.stderr


def test_a_report_is_made_of_what_was_run(compared):
    done = run("compare/report.py", compared[0])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "## training" in done.stdout
    assert "| memory | plan() to the byte | met, 5 of 5 |" in done.stdout


def test_a_group_replaces_its_own_lines(compared, tmp_path):
    before = cases_of(compared[0])
    out = tmp_path / "again.jsonl"
    out.write_bytes(compared[0].read_bytes())
    assert run("compare/run.py", "--quick", "--out", out, "memory").returncode == 0
    after = cases_of(out)
    assert [case["group"] for case in after] == [case["group"] for case in before]
    kept, held = ([case for case in cases if case["group"] != "memory"] for cases in (after, before))
    assert kept == held


def test_settings_that_were_found_are_not_searched_for_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    contest = importlib.import_module("compare.contest")
    monkeypatch.setattr(contest, "SETTINGS", contest.Settings(tmp_path / "settings.json", {"peer": "1"}))
    asked = []

    def contestant(setting, needs):
        def solve(tolerance):
            asked.append((setting, tolerance))
            return tolerance <= needs

        return contest.Contestant("peer", setting, solve)

    def entered():
        asked.clear()
        judge = lambda answer: contest.Verdict(bool(answer), {}, 0.0)  # noqa: E731
        return contest.entered("case", [contestant("good", 2e-6), contestant("never", 0.0)], judge, quick=True)

    ((role, entry),) = entered()
    assert (role, entry.contestant.setting, entry.tolerance) == ("best", "good", 2e-6)
    assert {setting for setting, _ in asked} == {"good", "never"}
    contest.SETTINGS.save()
    for version, searched in (("1", False), ("2", True)):
        monkeypatch.setattr(contest, "SETTINGS", contest.Settings(tmp_path / "settings.json", {"peer": version}))
        contest.SETTINGS.load()
        entered()
        assert (asked == [("good", 2e-6)]) != searched


def test_the_cpp_cases_run(tmp_path):
    out = tmp_path / "quick.jsonl"
    binary = cpp_tests("deqcore_benchmarks") / "benchmarks" / "cpp" / "deqcore_benchmarks"
    done = run("run.py", "--quick", "--binary", binary, "--out", out, *IN_CPP)
    assert done.returncode == 0, done.stdout + done.stderr
    check(cases_of(out))


def test_a_folder_to_build_them_in_is_made(monkeypatch):
    """Compiling them is left to the C++ tests, whose build the tests above use."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    folder = importlib.import_module("harness.build").build("help", quick=True)
    assert folder == ROOT / "build" / "benchmarks-quick" / "benchmarks"
    assert (folder.parent / "CMakeCache.txt").exists()


def test_an_unknown_group_is_refused():
    done = run("run.py", "--quick", "flux")
    assert done.returncode == 2
    assert "expected some of kernels" in done.stderr


def test_committed_baselines_are_whole():
    for path in (BENCHMARKS / "baselines").glob("*.jsonl"):
        header, *cases = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        assert header["machine"]["slug"] == path.stem
        assert cases
