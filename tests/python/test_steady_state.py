# SPDX-License-Identifier: Apache-2.0
"""The continuous equilibrium model as a method of fixed_point."""

from __future__ import annotations

import numpy as np
import pytest

import deqcore
from deqcore import SteadyState, fixed_point
from support.problems import weights

METHODS = [SteadyState(), SteadyState(pair="dormand_prince"), SteadyState(accuracy=0.2), SteadyState(first_step=100.0)]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_it_rests_where_other_methods_end(rng, dtype, method):
    layer = deqcore.maps.Dense(weights(rng, 31, 0.9).astype(dtype))
    x = rng.standard_normal((9, 31)).astype(dtype)
    z0 = np.zeros_like(x)
    rest = fixed_point(layer, z0, row_args=(x,), method=method, max_steps=600)
    other = fixed_point(layer, z0, row_args=(x,), rtol=1e-5)
    assert rest.success
    assert set(rest.method) == {"steady_state"}
    assert abs(rest.value - other.value).max() < 1e-3
    assert np.allclose(np.linalg.norm(layer(rest.value, x) - rest.value, axis=1), rest.residual, rtol=1e-2, atol=1e-6)
    called = fixed_point(lambda z, x: layer(z, x), z0, row_args=(x,), method=method, max_steps=600)
    assert np.array_equal(called.value, rest.value)
    alone = fixed_point(layer, z0[4:5], row_args=(x[4:5],), method=method, max_steps=600)
    assert np.array_equal(alone.value[0], rest.value[4])
    assert alone.steps[0] == rest.steps[4]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_it_needs_no_contraction(method):
    def steep(z):
        return -5 * z + 6 + 0.3 * np.sin(z)

    solution = fixed_point(steep, np.zeros((4, 8)), method=method, max_steps=600)
    assert abs(steep(solution.value) - solution.value).max() < 1e-6
    assert fixed_point(steep, np.zeros((4, 8)), method="picard", on_failure="return").success is False


def test_a_tight_tolerance_has_no_floor(rng):
    W, x = weights(rng, 20), rng.standard_normal((5, 20))
    solution = fixed_point(lambda z: np.tanh(z @ W.T + x), np.zeros_like(x), method="steady_state", rtol=1e-14)
    assert (solution.residual < 1e-13).all()


def test_the_gradient_at_rest_is_implicit(rng):
    layer, x = deqcore.maps.Dense(weights(rng, 12)), rng.standard_normal((3, 12))
    z = fixed_point(layer, np.zeros_like(x), row_args=(x,), method=SteadyState(), rtol=1e-12, max_steps=1000).value
    u = deqcore.adjoint(layer, z, z, row_args=(x,), rtol=1e-12).value
    dW, _ = layer.parameter_gradients(z, x, u)
    along, eps, W = rng.standard_normal((12, 12)), 1e-6, layer.weights

    def loss(W):
        other = deqcore.maps.Dense(W)
        return 0.5 * (fixed_point(other, np.zeros_like(x), row_args=(x,), rtol=1e-13).value ** 2).sum()

    slope = (loss(W + eps * along) - loss(W - eps * along)) / (2 * eps)
    assert (dW * along).sum() == pytest.approx(slope, rel=1e-6)


def test_a_map_without_a_fixed_point_is_never_called_converged():
    for f in (lambda z: z + 1, lambda z: 2 * z + 1):
        assert not fixed_point(f, np.zeros((2, 3)), method=SteadyState(), on_failure="return").success


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"accuracy": 0.0}, ValueError, "accuracy"),
        ({"accuracy": 0.3}, ValueError, "accuracy"),
        ({"accuracy": np.nan}, ValueError, "accuracy"),
        ({"accuracy": "a"}, TypeError, "accuracy"),
        ({"first_step": 0.0}, ValueError, "first_step"),
        ({"first_step": np.inf}, ValueError, "first_step"),
        ({"pair": "rk4"}, ValueError, "pair: 'rk4' given"),
        ({"accurate": 0.1}, TypeError, "did you mean 'accuracy'"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        SteadyState(**options)


def test_only_fixed_point_takes_it(rng):
    with pytest.raises(ValueError, match="steady_state"):
        deqcore.adjoint(lambda z, v: v, np.zeros((1, 1)), np.ones((1, 1)), method="steady_state")
    with pytest.raises(ValueError, match="SteadyState"):
        deqcore.root(lambda z: z, np.zeros((1, 1)), method=SteadyState())


PAIRS = ["bogacki_shampine", "dormand_prince"]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("first_step", [1e-4, 1.0, 1e6])
@pytest.mark.parametrize(
    ("f", "z0", "rest"),
    [
        (lambda z: -100 * z + 101, 0.0, 1.0),
        (lambda z: -1000 * z + 1001, 0.0, 1.0),
        (lambda z: z - z**3 + 1, 10.0, 1.0),
        (lambda z: z - 10 * np.sqrt(z) + 1, 1.0, 0.01),
        (lambda z: z - np.sinh(np.clip(z, -800, 800)), 20.0, 0.0),
    ],
    ids=["slope-100", "slope-1000", "cubic", "root", "sinh"],
)
def test_a_step_too_long_ends_no_row(pair, first_step, f, z0, rest):
    method = SteadyState(pair=pair, first_step=first_step)
    with np.errstate(all="ignore"):
        solution = fixed_point(f, np.full((2, 3), z0), method=method, max_steps=3000)
    assert np.allclose(solution.value, rest, atol=1e-5)
    assert (solution.rejected > 0).all() or first_step < 1


def test_rows_with_a_step_too_long_do_not_touch_the_others():
    slopes = np.array([[0.5], [-5.0], [-3000.0], [0.9]])
    shared = {"method": SteadyState(), "max_steps": 2000, "rtol": 1e-6}
    together = fixed_point(lambda z, s: s * z + 1 - s, np.zeros((4, 2)), row_args=(slopes,), **shared)
    for row in range(4):
        one = slice(row, row + 1)
        alone = fixed_point(lambda z, s: s * z + 1 - s, np.zeros((1, 2)), row_args=(slopes[one],), **shared)
        assert np.array_equal(alone.value[0], together.value[row])
        assert alone.steps[0] == together.steps[row]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("look_every", [1, 7])
def test_the_status_of_a_flow_that_ends_is_true(dtype, pair, look_every):
    def ended(f, **more):
        with np.errstate(all="ignore"):
            start = np.ones((1, 1), dtype)
            options = {"max_steps": 2000, "look_every": look_every, "on_failure": "return"}
            return fixed_point(f, start, method=SteadyState(pair=pair, **more), **options)

    status = deqcore.Status
    runs_away, lost = ended(lambda z: 2 * z + 1), ended(lambda z: np.where(z == 1, z + 1, np.nan).astype(dtype))
    nowhere, edge = ended(lambda z: z * np.nan), ended(lambda z: z - np.sqrt(z) - z.dtype.type(0.2))
    assert runs_away.status[0] == status.diverged
    assert "another z0" in runs_away.explain()
    assert "beta" not in runs_away.explain()
    assert lost.status[0] == nowhere.status[0] == status.not_finite
    assert nowhere.steps[0] == 1
    assert lost.value[0, 0] == 1
    assert lost.residual[0] == 1
    assert edge.status[0] == status.not_finite
    assert edge.residual[0] == pytest.approx(0.2, rel=1e-2)
    jump = ended(lambda z: z - np.where(z > 0.3, 2, -1).astype(dtype), accuracy=0.01)
    assert jump.status[0] == status.step_underflow
    assert jump.residual[0] == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("max_steps", range(1, 12))
def test_no_step_too_long_takes_more_evaluations_than_allowed(max_steps):
    solution = fixed_point(
        lambda z: -1e6 * z, np.ones((2, 1)), method=SteadyState(), max_steps=max_steps, on_failure="return"
    )
    assert (solution.steps == max_steps).all()
    assert solution.nfe == max_steps
    assert (solution.status == deqcore.Status.out_of_steps).all()
