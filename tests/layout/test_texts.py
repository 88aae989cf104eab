# SPDX-License-Identifier: Apache-2.0
"""What the texts quote is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import deqcore

ROOT = Path(__file__).resolve().parents[2]


def text(name: str) -> str:
    return (ROOT / name).read_text()


def test_the_example_is_the_program_that_is_compiled():
    example = re.search(r"```cpp\n(.*?)```", text("cpp/README.md"), re.DOTALL)
    assert example
    assert example.group(1) == text("tests/install/consumer/main.cpp")


def test_one_version_everywhere():
    assert f'version = "{deqcore.__version__}"' in text("pyproject.toml")
    assert f"project(deqcore VERSION {deqcore.__version__} " in text("CMakeLists.txt")
    assert f"version: {deqcore.__version__}\n" in text("CITATION.cff")
    assert deqcore.__version__ in text("CHANGELOG.md")


def test_the_two_commands_differ_in_what_they_must():
    """Both are one chain of a shell; .ci/run reads the second one between the same marks."""
    chains = [
        re.search(rf"<!-- {name}: begin -->\n```sh\n(.*?)```\n<!-- {name}: end -->", text("README.md"), re.DOTALL)
        for name in ("demo", "tests")
    ]
    demo, tests = (chain.group(1) for chain in chains if chain)
    assert "'.[demo]'" in demo
    assert demo.endswith("-m deqcore demo\n")
    assert "'.[test]'" in tests
    assert tests.endswith("-m pytest -n 2\n")
    for chain in (demo, tests):
        assert all(line.endswith("\\") for line in chain.splitlines()[:-1])
    assert "<!-- tests: begin -->" in text(".ci/run")


def test_every_status_is_in_the_table():
    table = text("README.md")
    for status in deqcore.Status:
        assert f"`{status.name}`" in table
