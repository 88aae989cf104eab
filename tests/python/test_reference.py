# SPDX-License-Identifier: Apache-2.0
"""Against answers of 40 digits that were made without NumPy and are committed (tests/reference)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import deqcore
from support.problems import dense_adjoint, dense_fixed_point, relative_error

CASES = json.loads((Path(__file__).parents[1] / "reference" / "dense.json").read_text())


@pytest.fixture(params=CASES, ids=[case["activation"] for case in CASES])
def case(request):
    """Arrays by name; the words of 40 digits become the nearest doubles."""
    return {k: v if k == "activation" else np.array(v, np.float64) for k, v in request.param.items()}


@pytest.mark.parametrize("method", ["anderson", "picard"])
def test_fixed_points_adjoints_and_gradients_to_the_last_digits(case, method):
    layer = deqcore.maps.Dense(case["W"], case["activation"])
    options = {"row_args": (case["injection"],), "method": method, "rtol": 2e-15, "max_steps": 3000}
    # at rtol 2e-15 a row may stall at the map's own rounding instead: what counts is the answer
    forward = deqcore.fixed_point(layer, np.zeros_like(case["z"]), on_failure="return", **options)
    backward = deqcore.adjoint(layer, forward.value, case["g"], on_failure="return", **options)
    dW, dc = layer.parameter_gradients(forward.value, case["injection"], backward.value)
    assert set(forward.status.tolist() + backward.status.tolist()) <= {0, deqcore.Status.stalled}
    assert relative_error(forward.value, case["z"]) < 2e-14
    assert relative_error(backward.value, case["u"]) < 2e-14
    assert relative_error(dW, case["dW"]) < 4e-14
    assert relative_error(dc, case["dinjection"]) < 4e-14


def test_the_residual_at_the_exact_fixed_point_is_rounding(case):
    layer = deqcore.maps.Dense(case["W"], case["activation"])
    solution = deqcore.fixed_point(layer, case["z"], row_args=(case["injection"],), rtol=2e-15)
    assert solution.steps.max() <= 2
    assert (solution.residual <= 4e-16 * math.sqrt(5) * solution.scale).all()


def test_the_references_of_these_tests_agree(case):
    """The dense Newton that other tests rely on."""
    z = dense_fixed_point(case["activation"], case["W"], case["injection"])
    assert relative_error(z, case["z"]) < 1e-14
    u = dense_adjoint(case["activation"], case["W"], z, case["injection"], case["g"])
    assert relative_error(u, case["u"]) < 1e-14
