# SPDX-License-Identifier: Apache-2.0
"""CUDA without a GPU: the C++ tests and this folder's on an emulation of the run time (tests/support)."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from support.building import ROOT, configure_and_build, program, run

pytestmark = pytest.mark.skipif(os.environ.get("DEQCORE_EMULATED") == "1", reason="this is the emulation")
BUILD = ROOT / "build" / "emulated"


@pytest.fixture(scope="module")
def build() -> Path:
    configure_and_build(
        ROOT,
        BUILD,
        "-DDEQCORE_EMULATE_CUDA=ON",
        "-DDEQCORE_PYTHON=ON",
        "-DDEQCORE_TESTS=ON",
        "-DDEQCORE_INSTALL=OFF",
        "-DDEQCORE_WARNINGS_AS_ERRORS=ON",
        f"-DPython_EXECUTABLE={sys.executable}",
    )
    return BUILD


def test_kernels_and_solvers_pass_their_tests_on_emulated_cuda(build: Path):
    said = run(program("ctest"), "--test-dir", build, "--output-on-failure", "--no-tests=error", "-j", "2")
    summary = re.search(r"100% tests passed\b.* out of (\d+)", said)
    assert summary, said
    print(f"\nctest: {summary.group(0)}")


def test_the_device_door_works_on_emulated_cuda(build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "deqcore"
    package.mkdir()
    extension = next((build / "python" / "bindings").glob("_core*.so"))
    for source in [*(ROOT / "python" / "deqcore").iterdir(), extension]:
        if source.suffix == ".so" and source != extension:
            continue
        (package / source.name).symlink_to(source)
    places = [tmp_path, ROOT / "tests" / "support" / "standin", ROOT / "tests"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, places)))
    monkeypatch.setenv("DEQCORE_EMULATED", "1")
    said = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", ROOT / "tests" / "device")
    summary = said.strip().splitlines()[-1]
    assert re.search(r"\d+ passed", summary), said
    print(f"\ndevice door: {summary}")
