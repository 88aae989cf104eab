# SPDX-License-Identifier: Apache-2.0
"""The example of docs/devices.md, run as it stands."""

from __future__ import annotations

import re

from support.building import ROOT


def test_the_example_runs(cp):
    text = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    names = {}
    exec(compile(example, "docs/devices.md", "exec"), names)
    assert names["solution"].success
    assert isinstance(names["solution"].value, cp.ndarray)
