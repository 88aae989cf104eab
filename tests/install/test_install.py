# SPDX-License-Identifier: Apache-2.0
"""Outside projects: one finds the installed package, one embeds the source."""

from __future__ import annotations

from pathlib import Path

from support.building import ROOT, configure_and_build, program, run

HERE = Path(__file__).resolve().parent
ANSWER = "converged 2.000000000\n"
UNOPTIMISED = "-DCMAKE_CXX_FLAGS_RELEASE=-O0"  # what is tried is how projects find and link the library, not its speed


def test_an_installed_package_is_found_and_used(tmp_path: Path):
    configure_and_build(ROOT, tmp_path / "build", "-DDEQCORE_TESTS=OFF", "-DDEQCORE_CUDA=OFF", UNOPTIMISED)
    run(program("cmake"), "--install", tmp_path / "build", "--prefix", tmp_path / "prefix")
    configure_and_build(HERE / "consumer", tmp_path / "consumer", f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}")
    assert run(tmp_path / "consumer" / "consumer") == ANSWER
    installed = {file.relative_to(tmp_path / "prefix").as_posix() for file in (tmp_path / "prefix").rglob("*.hpp")}
    assert "include/deqcore/deqcore.hpp" in installed
    assert not [file for file in installed if "/kernels/" in file], "kernels are private"


def test_the_source_can_be_embedded(tmp_path: Path):
    options = [f"-DDEQCORE_SOURCE={ROOT}", "-DDEQCORE_CUDA=OFF", UNOPTIMISED]
    configure_and_build(HERE / "embedder", tmp_path / "embedder", *options)
    assert run(tmp_path / "embedder" / "embedder") == ANSWER
