# SPDX-License-Identifier: Apache-2.0
"""Continuation: paths to fixed points that nothing else finds, their ends, and the field that they obey."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

import deqcore

FLOATS = (np.float32, np.float64)


def problems(n, gain, rows=40, dtype=np.float64):
    """W, b and z0 of rows that have nothing in common."""
    rngs = [np.random.default_rng([n, round(10 * gain), seed]) for seed in range(rows)]
    W = np.stack([gain * rng.standard_normal((n, n)) / np.sqrt(n) for rng in rngs])
    b = np.stack([rng.standard_normal(n) for rng in rngs])
    return W.astype(dtype), b.astype(dtype), np.stack([0.1 * rng.standard_normal(n) for rng in rngs]).astype(dtype)


def f(z, W, b):
    return np.tanh((W @ z[:, :, None])[:, :, 0] + b)


def jvp(z, v, W, b):
    return (1 - f(z, W, b) ** 2) * (W @ v[:, :, None])[:, :, 0]


def jacobian(z, W, b):
    return (1 - f(z, W, b) ** 2)[:, :, None] * W


def H(z, lam, W, b, z0):
    return z - lam * f(z, W, b) - (1 - lam) * z0


own = deqcore.Homotopy(
    H, jvp=lambda z, lam, v, W, b, z0: v - lam * jvp(z, v, W, b), rate=lambda z, lam, W, b, z0: z0 - f(z, W, b)
)


def size(array):
    return np.linalg.norm(array, axis=1)


@pytest.fixture(scope="module")
def hard():
    return problems(50, 4.0)


def follow(hard, **options):
    W, b, z0 = hard
    options = {"jacobian": jacobian, "rtol": 1e-11, "on_failure": "return"} | options
    return deqcore.follow(f, z0, row_args=(W, b), **options)


# --- what it is for


@pytest.fixture(scope="module")
def followed(hard):
    return follow(hard, record=True, components=[0, 7])


def test_arclength_solves_what_iteration_and_newton_do_not(hard, followed):
    W, b, z0 = hard
    assert followed.success
    assert size(f(followed.value, W, b) - followed.value).max() < 1e-9
    assert np.median(followed.path.solves) <= 250
    assert followed.path.verified.all()
    assert (followed.path.lam == 1).all()
    assert (followed.path.folds >= 2).any()
    assert (followed.path.folds % 2 == 0).all()  # from lam = 0 to 1 a path turns back as often as it turns forth
    others = {"row_args": (W, b), "rtol": 1e-11, "on_failure": "return"}
    picard = deqcore.fixed_point(f, z0, method="picard", max_steps=1000, **others)
    assert (picard.status == 0).sum() <= 2
    newton = deqcore.fixed_point(f, z0, method=deqcore.Newton(descent=False), jvp=jvp, max_steps=2551, **others)
    assert (newton.status == 0).sum() <= 5


def test_the_natural_tracker_fails_where_paths_turn_back(hard, followed):
    natural = follow(hard, tracker="natural")
    failed = natural.status != 0
    assert 0.2 * len(failed) <= failed.sum() < len(failed)
    assert (natural.path.end[failed] == deqcore.PathEnd.step_underflow).all()
    assert (natural.status[failed] == deqcore.Status.breakdown).all()
    assert (natural.path.folds == 0).all()
    assert (followed.path.folds[failed] > 0).all()
    assert (natural.path.lam[failed] < 1).all()


@pytest.mark.parametrize("homotopy", ["fixed_point", "newton"])
@pytest.mark.parametrize("tracker", ["arclength", "natural"])
def test_a_contraction_has_no_folds(homotopy, tracker):
    solution = follow(problems(20, 0.4), homotopy=homotopy, tracker=tracker)
    assert solution.success
    assert (solution.path.folds == 0).all()
    assert solution.path.solves.max() <= 40


def test_trackers_by_products_find_the_same_ends(hard, followed):
    for options in (
        {"jacobian": None, "jvp": jvp},
        {"jacobian": None},
        {"jacobian": None, "jvp": jvp, "tracker": deqcore.Tracker(dense_width=0)},
        {"jacobian": None, "tracker": deqcore.Tracker(dense_width=0)},
    ):
        solution = follow(hard, **options)
        assert solution.success, options
        assert np.allclose(solution.value, followed.value, atol=1e-6)
        assert (solution.path.folds == followed.path.folds).all()
        assert (solution.products > 0) == ("jvp" in options)


def test_a_homotopy_of_ones_own(hard, followed):
    W, b, z0 = hard

    def confirmed(z, W, b, z0):
        return f(z, W, b)

    shared = {"row_args": (W, b, z0), "rtol": 1e-11, "on_failure": "return"}
    for given in (own, H, deqcore.Homotopy(H, tracker=deqcore.Tracker(dense_width=0))):
        solution = deqcore.follow(confirmed, z0, homotopy=given, **shared)
        assert solution.success
        assert np.allclose(solution.value, followed.value, atol=1e-6)
        assert np.array_equal(solution.residual, size(f(solution.value, W, b) - solution.value))
        assert solution.path.verified.all()
    alone = deqcore.follow(None, z0, homotopy=own, **shared)
    assert alone.success
    assert not alone.path.verified.any()
    assert np.allclose(alone.value, followed.value, atol=1e-6)
    by_method = deqcore.fixed_point(confirmed, z0, method=own, **shared)
    assert np.array_equal(by_method.value, deqcore.follow(confirmed, z0, homotopy=own, **shared).value)
    # the end of a path is no solution because H says so
    wrong = deqcore.follow(lambda z, W, b, z0: f(z, W, b) + 1e-3, z0, homotopy=own, **shared)
    assert (wrong.path.end == deqcore.PathEnd.not_verified).all()
    assert (wrong.status == deqcore.Status.breakdown).all()
    assert not wrong.path.verified.any()
    assert np.allclose(wrong.residual, 1e-3 * np.sqrt(50), rtol=1e-4)


def test_the_last_rung_of_a_ladder(hard):
    W, b, z0 = hard
    ladder = [deqcore.Picard(), deqcore.NewtonKrylov(), deqcore.Homotopy()]
    solution = deqcore.fixed_point(f, z0, row_args=(W, b), method=ladder, jvp=jvp, on_failure="return")
    assert (solution.status == 0).mean() > 0.9
    assert {"homotopy"} <= set(solution.method) <= {"picard", "newton_krylov", "homotopy"}
    solved = solution.status == 0
    assert np.allclose(solution.residual[solved], size(f(solution.value, W, b) - solution.value)[solved], atol=1e-14)
    alone = deqcore.fixed_point(f, z0, row_args=(W, b), method="homotopy", jvp=jvp)
    assert alone.success
    assert alone.path is not None
    assert (alone.path.folds >= 2).any()


# --- how rows end


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dense_width", [0, 64])
def test_linear_growth_blows_up(dtype, dense_width):
    solution = deqcore.follow(
        lambda z: np.maximum(2 * z + 1, 0),
        np.zeros((3, 4), dtype),
        tracker=deqcore.Tracker(dense_width=dense_width),
        on_failure="return",
    )
    assert (solution.path.end == deqcore.PathEnd.blow_up).all()
    assert (solution.status == deqcore.Status.diverged).all()
    assert np.allclose(solution.path.lam, 0.5, atol=1e-3)
    assert "runs to infinity" in solution.explain()


def test_budgets_end_rows(hard):
    few = follow(hard, tracker=deqcore.Tracker(max_solves=10))
    assert (few.path.end == deqcore.PathEnd.out_of_budget).all()
    assert (few.path.solves == 10).all()
    steps = follow(hard, max_steps=500, jacobian=None, jvp=jvp)
    assert (steps.path.end == deqcore.PathEnd.out_of_budget).all()
    assert steps.steps.max() <= 500
    assert (steps.status == deqcore.Status.out_of_steps).all()
    W, b, _ = hard
    assert np.allclose(steps.residual, size(f(steps.value, W, b) - steps.value), atol=1e-12)  # of the best point
    with pytest.raises(deqcore.ConvergenceError) as caught:
        follow(hard, max_steps=500, on_failure="raise")
    assert caught.value.solution.path.end.tolist() == [deqcore.PathEnd.out_of_budget] * 40
    with pytest.warns(deqcore.ConvergenceWarning):
        follow(hard, max_steps=500, on_failure="warn")


def test_a_row_that_is_not_finite_touches_no_neighbour():
    W, b, z0 = problems(8, 3.0, rows=6)
    healthy = follow((W, b, z0))
    assert healthy.success
    poisoned = b.copy()
    poisoned[2] = np.nan
    solution = follow((W, poisoned, z0))
    assert solution.status[2] == deqcore.Status.not_finite
    assert solution.path.end[2] == deqcore.PathEnd.not_finite
    assert math.isnan(solution.residual[2])
    others = np.arange(6) != 2
    assert np.array_equal(solution.value[others], healthy.value[others])
    assert np.array_equal(solution.path.solves[others], healthy.path.solves[others])
    assert np.isfinite(solution.value).all()

    calls = 0

    def later(z, W, b):
        nonlocal calls
        calls += 1
        image = f(z, W, b)
        if calls > 20:
            image[b[:, 0] == poisoned_first] = np.nan
        return image

    poisoned_first = b[2, 0]
    midway = deqcore.follow(later, z0, row_args=(W, b), jvp=jvp, rtol=1e-11, on_failure="return")
    assert midway.status[2] == deqcore.Status.not_finite
    assert np.isfinite(midway.value).all()
    assert np.allclose(midway.residual[2], size(f(midway.value, W, b) - midway.value)[2])


def test_an_exception_in_the_map_comes_out_unchanged():
    W, b, z0 = problems(8, 3.0, rows=4)

    class Own(Exception):
        pass

    for after in (1, 5, 30):
        left = after

        def failing(z, W, b):
            nonlocal left
            left -= 1
            if left < 0:
                raise Own("from the map")
            return f(z, W, b)

        with pytest.raises(Own, match="from the map"):
            deqcore.follow(failing, z0, row_args=(W, b))
        assert deqcore.follow(f, z0, row_args=(W, b)).success

    def stop(progress):
        if progress.steps >= 30:
            raise StopIteration

    stopped = deqcore.follow(f, z0, row_args=(W, b), callback=stop)
    assert (stopped.status == deqcore.Status.cancelled).any()
    assert (stopped.path.end[stopped.status != 0] == deqcore.PathEnd.stopped).all()
    assert np.allclose(stopped.residual, size(f(stopped.value, W, b) - stopped.value))


# --- rows are by themselves


@pytest.mark.parametrize("dense_width", [0, 64])
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_row_alone_equals_the_row_in_a_batch(dense_width, dtype):
    W, b, z0 = problems(12, 3.0, rows=6, dtype=dtype)
    options = {"jvp": jvp, "tracker": deqcore.Tracker(dense_width=dense_width), "on_failure": "return"}
    batch = deqcore.follow(f, z0, row_args=(W, b), **options)
    assert batch.success
    assert len(set(batch.path.solves)) > 1
    for row in range(6):
        one = slice(row, row + 1)
        alone = deqcore.follow(f, z0[one], row_args=(W[one], b[one]), **options)
        assert np.array_equal(alone.value[0], batch.value[row])
        assert (alone.residual[0], alone.steps[0]) == (batch.residual[row], batch.steps[row])
        for name in ("end", "folds", "solves", "accepted", "lam"):
            assert getattr(alone.path, name)[0] == getattr(batch.path, name)[row]
    for retire in (False, "halve"):
        other = deqcore.follow(f, z0, row_args=(W, b), retire=retire, **options)
        assert np.array_equal(other.value, batch.value)
        assert np.array_equal(other.path.solves, batch.path.solves)


@pytest.mark.parametrize("dtype", FLOATS)
def test_shapes_and_types(dtype):
    bend = lambda z: np.tanh(-4 * z + 1)  # noqa: E731
    root = 0.199458
    for shape in ((1, 1), (3, 1), (3,), (2, 3, 2)):
        solution = deqcore.follow(bend, np.zeros(shape, dtype))
        assert solution.value.shape == shape
        assert solution.value.dtype == dtype
        assert np.allclose(solution.value, root, atol=1e-4)
        own_homotopy = deqcore.follow(bend, np.zeros(shape, dtype), homotopy=lambda z, lam: z - lam * bend(z))
        assert np.allclose(own_homotopy.value, root, atol=1e-4)
    start = np.full((2, 1), root, dtype)
    for _ in range(5):  # Newton's method in this dtype
        start = start - (start - bend(start)) / (1 + 4 * (1 - bend(start) ** 2))
    there = deqcore.follow(bend, start.astype(dtype), rtol=1e-4)
    assert there.steps.tolist() == [1, 1]  # nothing to follow
    assert there.path.lam.tolist() == [1, 1]


def test_native_maps_and_maps_with_their_own_products():
    W, _, _ = problems(20, 3.0, rows=1)
    layer = deqcore.maps.Dense(W[0])
    rng = np.random.default_rng(5)
    x = rng.standard_normal((4, 20))
    start = np.zeros((4, 20))
    solution = deqcore.follow(layer, start, row_args=(x,), rtol=1e-11)
    assert solution.success
    assert size(layer(solution.value, x) - solution.value).max() < 1e-9
    assert solution.products > 0
    by_method = deqcore.fixed_point(layer, start, row_args=(x,), rtol=1e-11, method="homotopy")
    assert np.array_equal(by_method.value, solution.value)
    ladder = deqcore.fixed_point(layer, start, row_args=(x,), method=[deqcore.Picard(), "homotopy"])
    assert ladder.success


def test_rows_by_their_places():
    W, b, z0 = problems(8, 3.0, rows=5)

    def by_rows(z, rows):
        return f(z, W[rows], b[rows])

    given = deqcore.follow(f, z0, row_args=(W, b))
    placed = deqcore.follow(by_rows, z0, pass_rows=True)
    assert np.array_equal(given.value, placed.value)


# --- what is told


def test_the_record_holds_every_evaluation(followed):
    path = followed.path
    for row in (0, int(path.folds.argmax())):
        points = path.points(row)
        assert len(points.lam) == path.entries[row]
        assert points.z.shape == (len(points.lam), 2)
        assert points.lam[0] == 0
        assert points.stage[0] == 0
        assert points.stage[-1] == 2
        assert points.z[-1].tolist() == followed.value[row, [0, 7]].tolist()
        turned = np.isfinite(points.slope)
        assert points.accepted[turned].all()
        assert turned.sum() == path.accepted[row] + 1
        assert (np.abs(points.slope[turned]) <= 1 + 1e-12).all()
        slopes = points.slope[turned]
        assert (slopes[1:] * slopes[:-1] < 0).sum() == path.folds[row]
        assert points.rejected.sum() == followed.rejected[row]
        assert (points.residual[turned] < 1e-7).all()
        assert (points.step > 0).all()
        assert (points.corrections <= 12).all()
    short = deqcore.follow(lambda z: np.tanh(2 * z + 1), np.zeros((2, 1)), record=3).path
    assert len(short.points(1).lam) == 3
    assert short.entries[1] > 3


def test_counts_are_those_of_the_calls():
    W, b, z0 = problems(8, 3.0, rows=5)
    calls = {"f": 0, "jvp": 0, "rows": 0}

    def counted(z, W, b):
        calls["f"] += 1
        calls["rows"] += len(z)
        return f(z, W, b)

    def product(z, v, W, b):
        calls["jvp"] += 1
        calls["rows"] += len(z)
        return jvp(z, v, W, b)

    solution = deqcore.follow(counted, z0, row_args=(W, b), jvp=product, trace=True)
    assert (solution.nfe, solution.products, solution.rows_asked) == (calls["f"], calls["jvp"], calls["rows"])
    assert solution.steps.sum() <= calls["rows"]
    assert solution.trace.shape == (solution.steps.max(), 5)
    for row in range(5):
        mine = solution.trace[: solution.steps[row], row]
        assert np.isfinite(mine).all()
        assert solution.residual[row] in mine
        assert np.isnan(solution.trace[solution.steps[row] :, row]).all()
    kinds = {"dense": deqcore.Homotopy(), "krylov": deqcore.Homotopy(tracker=deqcore.Tracker(dense_width=0))}
    for method in kinds.values():
        solved = deqcore.fixed_point(f, z0, row_args=(W, b), jvp=jvp, method=method)
        assert solved.scratch_bytes == deqcore.scratch_bytes(5, 8, np.float64, method=method, jvp=True)
    assert deqcore.plan(5, 8, np.float64, method=deqcore.Homotopy()).scratch_bytes > 0


def test_words_about_the_path(followed):
    assert "40 converged" in followed.explain()
    assert f"the map was called {followed.nfe} times" in followed.explain()
    calls = []

    def counted(z, lam):
        calls.append(1)
        return z - lam * np.cos(z)

    for f, called in ((np.cos, "H and f were"), (None, "H was")):
        calls.clear()
        solution = deqcore.follow(f, np.zeros((2, 3)), homotopy=counted)
        assert solution.nfe == len(calls) + (f is not None)  # f once, at the ends
        assert f"{called} called {solution.nfe} times" in solution.explain()
    assert repr(followed.path).startswith("<Path of 40 rows")
    with pytest.raises(ValueError, match=r"record: nothing was recorded"):
        deqcore.follow(np.cos, np.ones((1, 1))).path.points(0)
    for row in (-1, 40):
        with pytest.raises(ValueError, match=r"row: .*expected 0 to 39"):
            followed.path.points(row)


# --- bad input


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"homotopy": "secant"}, ValueError, "homotopy"),
        ({"homotopy": 3}, TypeError, "homotopy"),
        ({"tracker": 3}, TypeError, "tracker"),
        ({"tracker": "secant"}, ValueError, "along"),
        ({"jvp": 3}, TypeError, "jvp"),
        ({"jacobian": 3}, TypeError, "jacobian"),
        ({"jacobian": np.cos, "jvp": np.cos}, ValueError, "jacobian"),
        ({"homotopy": lambda z, lam: z, "jvp": np.cos}, ValueError, "jvp"),
        ({"record": 0}, ValueError, "record"),
        ({"record": 1.5}, TypeError, "record"),
        ({"components": [0]}, ValueError, "components"),
        ({"record": True, "components": [3]}, ValueError, "components"),
        ({"record": True, "components": [0.5]}, TypeError, "components"),
        ({"max_steps": 0}, ValueError, "max_steps"),
        ({"rtol": 1e-30}, ValueError, "rtol"),
        ({"scale": -1.0}, ValueError, "scale"),
        ({"on_failure": "hide"}, ValueError, "on_failure"),
        ({"tol": 1e-3}, TypeError, "rtol"),
        ({"step": 1e-3}, TypeError, "step"),
        ({"callback": 3}, TypeError, "callback"),
    ],
)
def test_bad_options_are_refused(options, kind, words):
    with pytest.raises(kind, match=words):
        deqcore.follow(np.cos, np.zeros((2, 3)), **options)


def test_bad_maps_and_answers_are_refused():
    with pytest.raises(TypeError, match="f: None given"):
        deqcore.follow(None, np.zeros((2, 3)))
    with pytest.raises(TypeError, match="z0"):
        deqcore.follow(np.cos, [[1.0]])
    with pytest.raises(ValueError, match="z0"):
        deqcore.follow(np.cos, np.full((1, 1), np.nan))
    z0 = np.zeros((2, 3))
    with pytest.raises(ValueError, match="f returned"):
        deqcore.follow(lambda z: z[:, :2], z0)
    with pytest.raises(ValueError, match="jacobian returned"):
        deqcore.follow(np.cos, z0, jacobian=lambda z: np.zeros((2, 3)))
    with pytest.raises(ValueError, match="H returned"):
        deqcore.follow(np.cos, z0, homotopy=lambda z, lam: z[:, :2])
    with pytest.raises(ValueError, match="rate returned"):
        deqcore.follow(np.cos, z0, homotopy=deqcore.Homotopy(lambda z, lam: z - lam, rate=lambda z, lam: lam))
    with pytest.raises(ValueError, match="jvp"):
        deqcore.follow(deqcore.maps.Dense(np.eye(3)), z0, row_args=(z0,), jvp=np.cos)
    with pytest.raises(ValueError, match="takes one of"):
        deqcore.root(np.cos, z0, method=deqcore.Homotopy())


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"along": "sideways"}, ValueError, "along"),
        ({"first_step": 0}, ValueError, "first_step"),
        ({"most_step": -1}, ValueError, "most_step"),
        ({"least_step": 2}, ValueError, "least_step"),
        ({"tolerance": 2}, ValueError, "tolerance"),
        ({"corrections": 0}, ValueError, "corrections"),
        ({"corrections": 2.5}, TypeError, "corrections"),
        ({"angle": 1}, ValueError, "angle"),
        ({"blow_up": math.nan}, ValueError, "blow_up"),
        ({"max_solves": 0}, ValueError, "max_solves"),
        ({"dense_width": -1}, ValueError, "dense_width"),
        ({"dense_width": 5000}, ValueError, "dense_width"),
        ({"restart": 0}, ValueError, "restart"),
        ({"step": 1}, TypeError, "step"),
    ],
)
def test_bad_trackers_are_refused(options, kind, words):
    with pytest.raises(kind, match=words):
        deqcore.Tracker(**options)


def test_bad_homotopies_are_refused():
    with pytest.raises(ValueError, match="H: 'secant'"):
        deqcore.Homotopy("secant")
    with pytest.raises(TypeError, match="H: 3"):
        deqcore.Homotopy(3)
    with pytest.raises(ValueError, match="jvp"):
        deqcore.Homotopy("newton", jvp=np.cos)
    with pytest.raises(TypeError, match="rate"):
        deqcore.Homotopy(np.cos, rate=3)
    with pytest.raises(TypeError, match="tracker"):
        deqcore.Homotopy(tracker=3)
    with pytest.raises(TypeError, match="did you mean"):
        deqcore.Homotopy(trackr="natural")


# --- Davidenko's equation


@pytest.fixture(scope="module")
def smooth():
    return problems(30, 0.9, rows=3)


@pytest.mark.parametrize(
    ("integrator", "order", "counts"),
    [(deqcore.Euler, 1, (8, 16, 32, 64)), (deqcore.Midpoint, 2, (8, 16, 32, 64)), (deqcore.RK4, 4, (4, 8, 16, 32))],
)
@pytest.mark.parametrize("control", ["rows", "batch"])
def test_the_residual_falls_with_the_order_of_the_integrator(smooth, integrator, order, counts, control):
    W, b, z0 = smooth
    field = deqcore.davidenko(f, z0, row_args=(W, b), jvp=jvp, rtol=1e-12)
    shared = {"control": control, "pass_rows": control == "rows"}
    ends = [deqcore.odeint(field, z0, [0.0, 1.0], method=integrator(steps), **shared).value[-1] for steps in counts]
    residuals = [float(np.linalg.norm(f(z, W, b) - z)) for z in ends]
    share = {1: 0.1, 2: 0.15, 4: 0.25}[order]
    for longer, shorter in pairwise(residuals):
        assert (1 - share) * 2**order <= longer / shorter <= (1 + share) * 2**order, residuals
    assert field.linear_solves == field.nfe  # one of each per stage
    polished = field.polish(ends[0], rtol=1e-12)
    assert polished.success
    assert size(f(polished.value, W, b) - polished.value).max() < 1e-10


@pytest.mark.parametrize("method", ["dormand_prince", "bogacki_shampine"])
@pytest.mark.parametrize("homotopy", ["fixed_point", "newton"])
def test_steps_by_the_error_end_as_near_as_they_are_asked_to(smooth, method, homotopy):
    W, b, z0 = smooth
    field = deqcore.davidenko(f, z0, row_args=(W, b), jvp=jvp, rtol=1e-11, homotopy=homotopy)
    ends = []
    for rtol in (1e-4, 1e-7):
        solution = deqcore.odeint(field, z0, [0.0, 1.0], method=method, rtol=rtol, atol=rtol, pass_rows=True)
        assert solution.success
        ends.append(solution)
    wanted = field.polish(ends[1].value[-1], rtol=1e-12).value
    for solution, rtol in zip(ends, (1e-4, 1e-7), strict=True):
        assert np.abs(solution.value[-1] - wanted).max() < 100 * rtol
        for row in range(len(z0)):  # in company a row takes the steps that it takes alone
            one = slice(row, row + 1)
            alone = deqcore.davidenko(f, z0[one], row_args=(W[one], b[one]), jvp=jvp, rtol=1e-11, homotopy=homotopy)
            own = deqcore.odeint(alone, z0[one], [0.0, 1.0], method=method, rtol=rtol, atol=rtol)
            assert own.accepted[0] == solution.accepted[row]
            assert np.allclose(own.value[-1], solution.value[-1, one], atol=1e-9)


@pytest.mark.parametrize("homotopy", ["fixed_point", "newton"])
def test_tangents_agree_with_each_other_and_with_differences(smooth, homotopy):
    W, b, z0 = smooth
    shared = {"row_args": (W, b), "homotopy": homotopy, "rtol": 1e-12}
    dense = deqcore.davidenko(f, z0, jvp=jvp, method="direct", **shared)
    free = deqcore.davidenko(f, z0, jvp=jvp, **shared)
    differences = deqcore.davidenko(f, z0, **shared | {"rtol": None})
    rng = np.random.default_rng(3)
    z, lam = 0.3 * rng.standard_normal(z0.shape), np.array([0.1, 0.5, 0.9])
    assert np.abs(dense(lam, z) - free(lam, z)).max() < 1e-8
    assert np.abs(dense(lam, z) - differences(lam, z)).max() < 1e-5
    for row in range(3):
        one = slice(row, row + 1)
        assert np.allclose(free(lam[row], z[one], rows=[row]), free(lam, z)[one], atol=1e-10)

    def on_path(lam):  # z(lam) by Newton's method on H(., lam)
        at = np.full((3, 1), lam)

        def map_at(z):
            start = z0 if homotopy == "fixed_point" else None
            if start is not None:
                return at * f(z, W, b) + (1 - at) * start
            return f(z, W, b) - (1 - at) * (f(z0, W, b) - z0)

        return deqcore.fixed_point(map_at, z0, method="newton_krylov", rtol=1e-13, norm=2).value

    h = 1e-4
    slope = (on_path(0.5 + h) - on_path(0.5 - h)) / (2 * h)
    assert np.abs(slope - dense(0.5, on_path(0.5))).max() < 1e-5


def test_the_field_refuses_what_does_not_fit(smooth):
    W, b, z0 = smooth
    field = deqcore.davidenko(f, z0, row_args=(W, b))
    with pytest.raises(ValueError, match="z: "):
        field(0.5, z0[:2])
    with pytest.raises(ValueError, match="z: "):
        field(0.5, z0.astype(np.float32))
    with pytest.raises(ValueError, match="t: "):
        field(np.zeros(2), z0)
    with pytest.raises(ValueError, match="t: "):
        field(np.zeros((1, 3)), z0)
    with pytest.raises(TypeError, match="rows: "):
        field(0.5, z0[:2], rows=[0.0, 1.0])
    with pytest.raises(TypeError, match="f: "):
        deqcore.davidenko(None, z0)
    with pytest.raises(TypeError, match="jvp: "):
        deqcore.davidenko(np.cos, z0, jvp=3)
    with pytest.raises(ValueError, match="homotopy: "):
        deqcore.davidenko(np.cos, z0, homotopy="secant")
    with pytest.raises(TypeError, match="did you mean"):
        deqcore.davidenko(np.cos, z0, methods="gmres")
    with pytest.raises(ValueError, match="method"):
        deqcore.davidenko(np.cos, z0, method="anderson")
    for lam, kind in (
        (None, TypeError),
        (True, TypeError),
        ("a", TypeError),
        (np.nan, ValueError),
        (np.inf, ValueError),
    ):
        with pytest.raises(kind, match="t: "):
            field(lam, z0)
    with pytest.raises(ValueError, match="t: "):
        field(np.array([0.5, np.nan, 0.5]), z0)
    for rows in ([0, -1], [0, 3]):
        with pytest.raises(ValueError, match=r"rows: .* expected places from 0 to 2"):
            field(0.5, z0[:2], rows=rows)
    for name, given in (("jvp", jvp), ("row_args", (W, b)), ("args", ())):
        with pytest.raises(TypeError, match=rf"polish\(\) has no option '{name}'"):
            field.polish(z0, **{name: given})
    one = deqcore.davidenko(np.cos, np.zeros(3, np.float32))
    assert np.allclose(one(0.0, np.zeros(3, np.float32)), 1)
    assert one(0.5, np.zeros(3, np.float32)).dtype == np.float32


@pytest.mark.parametrize("tracker", ["arclength", "natural"])
@pytest.mark.parametrize("dense_width", [0, 64])
def test_a_trace_of_an_own_homotopy_holds_what_was_measured(monkeypatch, tracker, dense_width):
    def poisoned(shape, dtype):
        return np.full(shape, 77, dtype)

    monkeypatch.setattr(deqcore._arrays.numpy_door, "empty", poisoned)
    options = {"tracker": deqcore.Tracker(tracker, dense_width=dense_width), "trace": True, "on_failure": "return"}
    for max_steps in (*range(1, 25), 2000):
        solution = deqcore.follow(
            np.cos, np.zeros((2, 3)), homotopy=lambda z, lam: z - lam * np.cos(z), max_steps=max_steps, **options
        )
        assert solution.steps.max() <= max_steps
        assert solution.trace.shape == (solution.steps.max(), 2)
        assert not (solution.trace == 77).any()
        if max_steps > 1:
            assert np.array_equal(solution.trace[-1], solution.residual)
            assert (solution.scale > 0).all()
    assert solution.success


def test_a_path_that_never_arrives_is_compared_with_the_images_of_the_map():
    solution = deqcore.follow(
        np.cos, np.zeros((1, 3)), homotopy=lambda z, lam: z * z + 1 + 0 * lam, on_failure="return"
    )
    assert solution.scale[0] == pytest.approx(np.sqrt(3))
    assert "Largest residual / scale among them 1," in solution.message


@pytest.mark.parametrize("size", [1e-16, 1e8, 1e16])
def test_units_of_z_do_not_make_a_system_singular(size):
    constant = deqcore.follow(
        lambda z: np.full_like(z, size), np.zeros((1, 1)), jvp=lambda z, v: 0 * v, tracker="natural"
    )
    assert constant.value[0, 0] == pytest.approx(size)
    assert constant.singular[0] == 0
    units = np.array([1.0, 1.0, size])
    solution = deqcore.follow(
        lambda z: units * np.cos(z / units),
        np.zeros((1, 3)),
        jvp=lambda z, v: -np.sin(z / units) * v,
        tracker="natural",
    )
    assert solution.success
    assert solution.singular[0] == 0


def test_one_row_without_an_axis_of_rows_may_be_named():
    z0 = np.zeros(4)
    field = deqcore.davidenko(np.cos, z0)
    by_place = deqcore.odeint(field, z0, [0, 1.0], pass_rows=True).value
    assert np.array_equal(by_place, deqcore.odeint(deqcore.davidenko(np.cos, z0), z0, [0, 1.0]).value)
    assert np.array_equal(field(0.5, z0, rows=[0]), field(0.5, z0))


def test_arclength_is_measured_in_the_units_of_z():
    """What the docstrings say of a z that travels far."""

    def solves(s, tracker):
        solution = deqcore.follow(lambda z: s * np.cos(z / s), np.zeros((1, 1)), tracker=tracker)
        return int(solution.path.solves[0])

    assert solves(1000.0, "arclength") > 10 * solves(1.0, "arclength")
    assert solves(1000.0, "natural") == solves(1.0, "natural")
    assert solves(1000.0, deqcore.Tracker(first_step=100.0, most_step=2000.0)) <= solves(1.0, "arclength")
