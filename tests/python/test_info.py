# SPDX-License-Identifier: Apache-2.0
"""The command line apart from the demo: info, version, help."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import deqcore
from deqcore import _core
from deqcore.__main__ import main


def said(*arguments, **environment):
    """What the command prints, as name -> value."""
    text = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    return dict(re.split(r" {2,}", line, maxsplit=1) for line in text.splitlines())


def test_info(monkeypatch):
    for name in ("DEQCORE_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    lines = said("-m", "deqcore", "info", DEQCORE_NUM_THREADS="3", OPENBLAS_CORETYPE="Haswell")
    assert lines["deqcore"] == deqcore.__version__
    assert lines["built with"] == _core.built_with
    assert lines["backends"].startswith("cpu")
    assert "cuda" in lines["backends"]
    assert lines["threads"] == lines["DEQCORE_NUM_THREADS"] == "3"
    assert lines["instruction set"] == _core.simd_level()
    assert lines["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert lines["numpy"] == np.__version__
    assert {"cupy", "torch", "scikit-learn", "matplotlib", "rich", "scipy"} <= lines.keys()
    assert lines["OPENBLAS_CORETYPE"] == "Haswell"
    assert "OMP_NUM_THREADS" not in lines


def test_info_needs_numpy_alone():
    """Optional packages are looked up, not imported."""
    program = """
import sys
from importlib.machinery import PathFinder
others = ("cupy", "torch", "sklearn", "matplotlib", "rich", "scipy")
class Blocker:
    def find_spec(name, path=None, target=None):
        assert name.split(".")[0] not in others, name
sys.meta_path.insert(0, Blocker)
from deqcore.__main__ import main
main(["info"])
"""
    assert said("-c", program)["numpy"] == np.__version__


def test_version(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"deqcore {deqcore.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--help"], ["info", "demo", "--version"]), (["demo", "--help"], ["--seed", "--epochs", "--width", "--threads"])],
)
def test_help(arguments, words, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in words)


@pytest.mark.parametrize("arguments", [[], ["dmeo"], ["info", "more"]])
def test_wrong_command(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: python -m deqcore")
