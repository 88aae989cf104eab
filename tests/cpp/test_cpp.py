# SPDX-License-Identifier: Apache-2.0
"""The C++ tests, built and run, so that one pytest run passes them all."""

from __future__ import annotations

import re

from support.building import cpp_tests, program, run


def test_all_cpp_tests_pass():
    build = cpp_tests()
    said = run(program("ctest"), "--test-dir", build, "--output-on-failure", "--no-tests=error", "-j", "2")
    summary = re.search(r"100% tests passed\b.* out of (\d+)", said)
    assert summary, said
    print(f"\nctest: {summary.group(0)}")
