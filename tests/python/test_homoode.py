# SPDX-License-Identifier: Apache-2.0
"""HomoODE: gradients against differences and against each other, the shared start, training, what is refused."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields, replace

import numpy as np
import pytest

import deqcore
from deqcore import RK4, DormandPrince
from deqcore._training import load_digits, split
from deqcore.systems import homoode
from deqcore.systems.homoode import HomoODE, SharedStart, Weights, smooth_l1, train


def made(rng, inputs=5, classes=3, width=7, hidden=9, dtype=np.float64):
    """Weights without zeros."""
    weights = Weights.random(rng, inputs, classes, width=width, hidden=hidden)
    return weights.each(lambda array: (array + 0.3 * rng.standard_normal(array.shape)).astype(dtype), weights)


def samples(rng, weights, rows=6):
    x = rng.standard_normal((rows, weights.U.shape[1])).astype(weights.U.dtype)
    return x, rng.integers(0, len(weights.V), rows)


def field_by_numpy(w, z, u):
    return np.tanh(z @ w.A1.T + u) @ w.A2.T + w.b2


def loss_by_numpy(w, x, labels, steps, shift=0.0):
    """The loss, by its formula, by the classical Runge-Kutta method."""
    u, z, h = x @ w.U.T + w.c + shift, np.tile(w.z0, (len(x), 1)), 1 / steps
    for _ in range(steps):
        k1 = field_by_numpy(w, z, u)
        k2 = field_by_numpy(w, z + h / 2 * k1, u)
        k3 = field_by_numpy(w, z + h / 2 * k2, u)
        k4 = field_by_numpy(w, z + h * k3, u)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    scores = z @ w.V.T + w.d
    return float(np.mean(np.log(np.exp(scores).sum(1)) - scores[np.arange(len(x)), labels]))


# ----------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", [field.name for field in fields(Weights)])
def test_gradients_are_those_of_differences(rng, name):
    w = made(rng)
    x, labels = samples(rng, w)
    e = HomoODE(w).loss_and_gradients(x, labels, method=RK4(4), gradient="solver")
    assert e.loss == pytest.approx(loss_by_numpy(w, x, labels, 4), rel=1e-12)
    weights, h = getattr(w, name), 1e-6
    for _ in range(3):
        along = rng.standard_normal(weights.shape)
        below, above = (loss_by_numpy(replace(w, **{name: weights + step * along}), x, labels, 4) for step in (-h, h))
        assert (getattr(e.gradients, name) * along).sum() == pytest.approx(
            (above - below) / (2 * h), rel=1e-6, abs=1e-9
        )


def test_the_gradient_to_the_condition_is_that_of_differences(rng):
    w = made(rng)
    x, labels = samples(rng, w)
    e = HomoODE(w).loss_and_gradients(x, labels, gradient="solver")
    assert e.condition.shape == (6, 9)
    along, h = rng.standard_normal(e.condition.shape), 1e-6
    below, above = (loss_by_numpy(w, x, labels, 4, step * along) for step in (-h, h))
    assert (e.condition * along).sum() == pytest.approx((above - below) / (2 * h), rel=1e-6, abs=1e-9)


def apart(rng, gain, steps):
    """The largest relative difference between the adjoint and the gradient through the solver, 64 units."""
    w = Weights.random(rng, 64, 10, dtype=np.float64)
    w = replace(w, A1=gain * w.A1, A2=gain * w.A2)
    x, labels = rng.random((16, 64)), rng.integers(0, 10, 16)
    adjoint, solver = (
        HomoODE(w).loss_and_gradients(x, labels, method=RK4(steps), gradient=kind).gradients
        for kind in ("adjoint", "solver")
    )
    return max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(adjoint, solver, strict=True))


@pytest.mark.parametrize(("steps", "tolerance"), [(4, 1e-5), (16, 1e-7)])
def test_the_adjoint_meets_the_gradient_through_the_solver(rng, steps, tolerance):
    """With the gain that frameworks give dense layers at first: entries of variance 1 / (3 columns)."""
    assert apart(rng, 3**-0.5, steps) < tolerance


def test_the_adjoint_meets_it_in_the_order_of_the_method():
    """With larger weights the difference is larger, and falls as fast."""
    coarse, fine = (apart(np.random.default_rng(1), 1.0, steps) for steps in (8, 16))
    assert np.log2(coarse / fine) == pytest.approx(4, abs=0.3)


def test_the_frozen_gradient_is_another_one_and_only_by_its_name(rng):
    w = made(rng)
    x, labels = samples(rng, w)
    model = HomoODE(w)
    frozen = model.loss_and_gradients(x, labels, gradient="frozen")
    assert frozen.report.backward.gradient == "frozen"
    assert model.loss_and_gradients(x, labels).report.backward.gradient == "adjoint"
    exact = model.loss_and_gradients(x, labels, gradient="solver").gradients
    assert np.linalg.norm(frozen.gradients.U - exact.U) > 1e-2 * np.linalg.norm(exact.U)
    np.testing.assert_array_equal(frozen.gradients.V, exact.V)  # the head does not see it


def test_the_adjoint_by_the_error_is_as_good_as_its_tolerance(rng):
    w = made(rng)
    x, labels = samples(rng, w)
    exact = HomoODE(w).loss_and_gradients(x, labels, method=RK4(100), gradient="solver").gradients
    found = HomoODE(w).loss_and_gradients(x, labels, method=DormandPrince(), rtol=1e-8, atol=1e-8).gradients
    for mine, right in zip(found, exact, strict=True):
        assert np.linalg.norm(mine - right) <= 1e-6 * np.linalg.norm(right)


def test_float32_is_close_to_float64(rng):
    w = made(rng)
    x, labels = samples(rng, w)
    exact = HomoODE(w).loss_and_gradients(x, labels).gradients
    narrow = HomoODE(w.astype(np.float32)).loss_and_gradients(x.astype(np.float32), labels).gradients
    for mine, right in zip(narrow, exact, strict=True):
        assert mine.dtype == np.float32
        assert np.linalg.norm(mine - right) <= 1e-4 * np.linalg.norm(right)


# -------------------------------------------------------------------------------------------------------------- report


def test_the_report_counts_and_measures(rng):
    w = made(rng)
    x, labels = samples(rng, w)
    model = HomoODE(w)
    result = model(x, rtol=1e-6, atol=1e-6)
    report = result.report
    assert report.nfe_forward == 2 + 6 * (report.accepted + report.rejected)
    assert report.nfe_backward == 0
    assert report.backward is None
    np.testing.assert_allclose(report.distance, np.linalg.norm(result.ends - w.z0, axis=1))
    at_end = np.linalg.norm(field_by_numpy(w, result.ends, model.condition(x)), axis=1)
    np.testing.assert_allclose(report.field_at_end, at_end, rtol=1e-12)
    assert at_end.min() > 0.1  # the end is no point of rest
    e = model.loss_and_gradients(x, labels, method=RK4(3))
    assert (e.report.nfe_forward, e.report.nfe_backward, e.report.backward.products) == (12, 12, 12)
    assert (e.report.accepted, e.report.rejected) == (3, 0)
    assert (
        repr(e.report)
        == "<Report 12 evaluations forward, 12 evaluations and 12 products backward, 3 steps, 0 rejected>"
    )


def test_by_rows_each_has_its_own_steps(rng):
    w = made(rng)
    x, _ = samples(rng, w)
    options = {"control": "rows", "rtol": 1e-8, "atol": 1e-8}
    together = HomoODE(w)(x, **options)
    assert len(set(together.report.forward.evaluations.tolist())) > 1
    for row in range(len(x)):
        alone = HomoODE(w)(x[row : row + 1], **options)
        assert alone.report.forward.evaluations[0] == together.report.forward.evaluations[row]
        np.testing.assert_allclose(alone.ends[0], together.ends[row], rtol=1e-12)


def test_the_memory_of_the_adjoint_does_not_grow_with_the_steps(rng):
    w = Weights.random(rng, 64, 10)
    x, labels = samples(rng, w, rows=64)
    model = HomoODE(w)
    held, peaks = {}, {}
    for kind in ("adjoint", "solver"):
        for steps in (4, 64):
            tracemalloc.start()
            e = model.loss_and_gradients(x, labels, method=RK4(steps), gradient=kind, threads=1)
            peaks[kind, steps] = tracemalloc.get_traced_memory()[1] + e.report.backward.scratch_bytes
            tracemalloc.stop()
            held[kind, steps] = e.report.backward.scratch_bytes
    assert held["adjoint", 64] == held["adjoint", 4]
    assert held["solver", 64] > 4 * held["solver", 4]
    assert peaks["adjoint", 64] < 1.05 * peaks["adjoint", 4]


# ----------------------------------------------------------------------------------------------------------- the start


def test_smooth_l1_is_its_formula(rng):
    z0, ends = rng.standard_normal(5), 2 * rng.standard_normal((4, 5))
    loss, gradient = smooth_l1(z0, ends)
    e = abs(z0 - ends)
    assert loss == pytest.approx(np.where(e <= 1, e**2 / 2, e - 0.5).sum(1).mean(), rel=1e-14)
    for j in range(5):
        h = np.zeros(5)
        h[j] = 1e-6
        difference = (smooth_l1(z0 + h, ends)[0] - smooth_l1(z0 - h, ends)[0]) / 2e-6
        assert gradient[j] == pytest.approx(difference, abs=1e-8)


def test_the_start_moves_by_its_own_rule(rng):
    start = SharedStart(rate=0.4, every=3, until=0.5)
    z0, ends = np.zeros(4, np.float32), rng.standard_normal((7, 4)).astype(np.float32)
    assert start.moved(z0, ends, 4, 100) is z0  # between two steps
    assert start.moved(z0, ends, 51, 100) is z0  # past its time
    moved = start.moved(z0, ends, 12, 100)
    assert moved.dtype == np.float32
    rate = 0.4 * (1 + np.cos(np.pi * 12 / 50)) / 2
    np.testing.assert_allclose(moved, rate * np.clip(ends, -1, 1).mean(0), rtol=1e-6)


def test_one_update_of_all(rng):
    """Adam moves everything but the start, the start moves by itself, both from the same evaluation."""
    w = made(rng)
    x, labels = samples(rng, w)
    e = HomoODE(w).loss_and_gradients(x, labels)
    trained, epochs = train(
        HomoODE(w), x, labels, rng=rng, start=SharedStart(0.5, every=1, until=1.0), epochs=2, rate=0.01
    )
    assert len(epochs) == 2
    assert epochs[0].loss == pytest.approx(e.loss, rel=1e-12)
    once, _ = train(HomoODE(w), x, labels, rng=rng, start=SharedStart(0.5, every=2, until=1.0), epochs=1, rate=0.01)
    np.testing.assert_array_equal(once.weights.z0, w.z0)
    for name in ("U", "A1", "A2", "V"):
        g = getattr(e.gradients, name)
        np.testing.assert_allclose(
            getattr(once.weights, name), getattr(w, name) - 0.01 * g / (abs(g) + 1e-8), rtol=1e-9
        )
    half = w.z0 - 0.25 * np.clip(w.z0 - e.ends, -1, 1).mean(0)  # after update 1 of 2: half the rate
    np.testing.assert_allclose(trained.weights.z0, half, rtol=1e-12)


@pytest.mark.parametrize("start", [None, "loss"])
def test_a_start_that_stays_or_is_a_weight(rng, start):
    w = made(rng)
    x, labels = samples(rng, w)
    trained, _ = train(HomoODE(w), x, labels, rng=rng, start=start, epochs=2)
    assert (trained.weights.z0 == w.z0).all() == (start is None)


# ------------------------------------------------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def digits():
    return split(load_digits())


@pytest.mark.parametrize("gradient", ["adjoint", "solver"])
def test_training_learns_the_digits(digits, gradient):
    train_set, test_set = digits
    rng = np.random.default_rng(0)
    model = HomoODE(Weights.random(rng, 64, 10))
    assert model.weights.count <= 15000
    trained, epochs = train(model, train_set.images, train_set.labels, rng=rng, epochs=8, gradient=gradient)
    losses = [epoch.loss for epoch in epochs]
    assert losses[1] < losses[0]
    assert losses[-1] < 0.1 * losses[0]
    assert (epochs[0].nfe_forward, epochs[0].nfe_backward) == pytest.approx((16, 16))
    assert (trained(test_set.images).labels == test_set.labels).mean() > 0.95


def test_training_is_repeatable_and_does_not_depend_on_threads(digits):
    train_set = digits[0][:256]
    found = []
    for threads in (1, 1, 2):
        rng = np.random.default_rng(3)
        model = HomoODE(Weights.random(rng, 64, 10, width=16, hidden=24))
        found.append(train(model, train_set.images, train_set.labels, rng=rng, epochs=2, threads=threads)[0].weights)
    for first, again, threaded in zip(*found, strict=True):
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(first, threaded)


def test_the_model_given_stays_as_it_is(rng):
    w = made(rng)
    before = w.each(np.copy, w)
    x, labels = samples(rng, w)
    train(HomoODE(w), x, labels, rng=rng, epochs=3)
    for now, then in zip(w, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_training_by_steps_of_the_error(rng):
    w = made(rng)
    x, labels = samples(rng, w, rows=40)
    _, epochs = train(HomoODE(w), x, labels, rng=rng, epochs=5, rate=0.02, method="dopri5")
    assert epochs[-1].loss < epochs[0].loss


# ------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("A1", np.zeros((9, 8)), ValueError, "A2: array of shape (7, 9) and dtype float64"),
        ("U", np.zeros((8, 5)), ValueError, "U: array of shape (8, 5) and dtype float64 given; expected shape (9, 5)"),
        ("c", np.zeros(7), ValueError, "c: array of shape (7,) and dtype float64 given; expected shape (9,)"),
        ("V", np.zeros(7), ValueError, "V: array of shape (7,) and dtype float64 given; expected a matrix"),
        ("d", np.zeros(2), ValueError, "d: array of shape (2,) and dtype float64 given; expected shape (3,)"),
        ("z0", np.zeros((6, 7)), ValueError, "z0: array of shape (6, 7) and dtype float64 given; expected shape (7,)"),
        (
            "z0",
            np.zeros(7, np.float32),
            TypeError,
            "z0: array of shape (7,) and dtype float32 given; expected dtype float64",
        ),
        ("z0", [0.0] * 7, TypeError, "z0: list"),
        ("d", np.array([0, np.nan, 0]), ValueError, "d: "),
    ],
)
def test_weights_that_do_not_fit_are_refused(rng, name, value, error, said):
    with pytest.raises(error) as raised:
        HomoODE(replace(made(rng), **{name: value}))
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize(
    ("x", "labels", "error", "said"),
    [
        (
            np.zeros((6, 4)),
            None,
            ValueError,
            "x: array of shape (6, 4) and dtype float64 given; expected shape (rows, 5)",
        ),
        (np.zeros((0, 5)), None, ValueError, "x: "),
        (
            np.zeros((6, 5), np.float32),
            None,
            TypeError,
            "x: array of shape (6, 5) and dtype float32 given; expected dtype float64",
        ),
        (np.full((6, 5), np.inf), None, ValueError, "x: "),
        (None, np.zeros(6), TypeError, "labels: array of shape (6,) and dtype float64 given; expected integers"),
        (None, np.zeros(5, int), ValueError, "labels: array of shape (5,) and dtype int64 given; expected shape (6,)"),
        (None, np.array([0, 1, 2, 3, 0, 0]), ValueError, "labels: 0 to 3 given; expected at least 0 and below 3"),
        (None, np.array([0, 1, 2, -1, 0, 0]), ValueError, "labels: -1 to 2 given; expected at least 0 and below 3"),
        (None, [0, 1, 2, 0, 0, 0], TypeError, "labels: list"),
    ],
)
def test_samples_that_do_not_fit_are_refused(rng, x, labels, error, said):
    w = made(rng)
    good = samples(rng, w)
    with pytest.raises(error) as raised:
        HomoODE(w).loss_and_gradients(good[0] if x is None else x, good[1] if labels is None else labels)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"start": "shared"}, ValueError, "start: 'shared' given; expected a SharedStart, 'loss' or None"),
        ({"start": np.zeros(7)}, ValueError, "start: array("),
        ({"epochs": 0}, ValueError, "epochs: 0 given; expected at least 1"),
        ({"batch": 0}, ValueError, "batch: 0 given; expected at least 1"),
        ({"rate": -1.0}, ValueError, "rate: -1.0 given; expected a number > 0"),
        ({"rng": 0}, TypeError, "rng: int"),
        ({"gradient": "implicit"}, ValueError, "gradient: 'implicit' given"),
        ({"gradient": "solver", "method": "dopri5"}, ValueError, "method: "),
        ({"foo": 1}, TypeError, "train() has no option 'foo'; its options are rng, start, "),
        ({"tol": 1}, TypeError, "train() has no option 'tol'; did you mean 'rtol'?"),
        ({"on_failure": "return"}, TypeError, "train() has no option 'on_failure'"),
    ],
)
def test_options_of_training_are_checked(rng, options, error, said):
    w = made(rng)
    x, labels = samples(rng, w)
    with pytest.raises(error) as raised:
        train(HomoODE(w), x, labels, **({"rng": rng} | options))
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize("options", [{"rate": 0.0}, {"rate": 1.5}, {"every": 0}, {"until": 0.0}, {"until": 1.1}])
def test_a_shared_start_out_of_range_is_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: .* given; expected"):
        SharedStart(**options)


def test_unknown_options_of_a_pass_are_refused(rng):
    model, (x, labels) = HomoODE(made(rng)), samples(rng, made(rng))
    for options, said in (
        (
            {"foo": 1},
            r"HomoODE\(\) has no option 'foo'; its options are rtol, atol, control, method, first_step, max_s",
        ),
        ({"relax": True}, r"HomoODE\(\) has no option 'relax'"),
        ({"pass_rows": True}, r"HomoODE\(\) has no option 'pass_rows'"),
        ({"solver": "rk4"}, "did you mean 'method'"),
    ):
        with pytest.raises(TypeError, match=said):
            model(x, **options)
    with pytest.raises(TypeError, match=r"loss_and_gradients\(\) has no option 'foo'; its options are method, "):
        model.loss_and_gradients(x, labels, foo=1)


def test_other_refusals(rng):
    with pytest.raises(TypeError, match=r"weights: .* given; expected homoode\.Weights"):
        HomoODE(np.zeros(3))
    with pytest.raises(ValueError, match="hidden: 0 given; expected at least 1"):
        Weights.random(rng, 5, 3, hidden=0)
    with pytest.raises(ValueError, match="activation"):
        HomoODE(made(rng), activation="swish2")
    with pytest.raises(TypeError, match=r"model: .* given; expected a HomoODE"):
        train(made(rng), *samples(rng, made(rng)), rng=rng)


def test_an_integration_that_does_not_arrive_is_an_error(rng):
    w = made(rng)
    x, _ = samples(rng, w)
    with pytest.raises(deqcore.ConvergenceError):
        HomoODE(w)(x, rtol=1e-9, atol=1e-9, max_steps=1)
    result = HomoODE(w)(x, rtol=1e-9, atol=1e-9, max_steps=1, on_failure="return")
    assert np.isnan(result.scores).all()
    assert not result.report.forward.success
    assert (result.labels == -1).all()
    assert np.isnan(result.report.field_at_end).all()
    assert np.isnan(result.report.distance).all()


def test_rows_that_do_not_arrive_have_no_label_and_the_others_have_theirs(rng):
    w = made(rng)
    x, _ = samples(rng, w)
    x[0] *= 1e200  # its condition says nothing but signs: few steps
    shared = {"control": "rows", "rtol": 1e-9, "atol": 1e-9, "on_failure": "return"}
    needed = HomoODE(w)(x, **shared).report.forward
    tried = needed.accepted + needed.rejected
    assert tried.min() < tried.max()
    part = HomoODE(w)(x, max_steps=int(tried.max()) - 1, **shared)
    failed = part.report.forward.status < 0
    assert failed.any()
    assert not failed.all()
    assert (part.labels[failed] == -1).all()
    assert np.array_equal(part.labels[~failed], part.scores[~failed].argmax(1))
    assert np.array_equal(np.isnan(part.report.field_at_end), failed)


def test_it_says_what_it_is(rng):
    assert repr(HomoODE(made(rng))) == (
        "HomoODE(inputs=5, hidden=9, width=7, classes=3, activation='tanh', dtype=float64)"
    )
    assert homoode.__doc__
