# SPDX-License-Identifier: Apache-2.0
"""Predicted bytes against measured ones, and histories that keep within a budget."""

from __future__ import annotations

import numpy as np
import pytest

from deqcore import RK4, Anderson, AndersonTypeI, Broyden, DormandPrince, Picard, fixed_point
from deqcore._plan import Plan, plan

METHODS = [
    None,
    "picard",
    "anderson",
    "anderson_type_i",
    "broyden",
    Anderson(history=1),
    Anderson(history=32),
    Anderson(history=9, storage="bfloat16"),
    AndersonTypeI(history=7),
    Broyden(full="compress"),
]


def held(solution):
    report = (solution.status, solution.steps, solution.residual, solution.scale, solution.rejected, solution.singular)
    return sum(array.nbytes for array in (solution.value, *report))


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (8, 100)], ids=str)
def test_predicted_bytes_are_those_of_the_solve(method, shape, dtype):
    planned = plan(*shape, dtype, method=method)
    solution = fixed_point(np.cos, np.ones(shape, dtype), method=planned.method)
    assert planned.scratch_bytes == solution.scratch_bytes
    assert planned.result_bytes == held(solution)
    assert planned.bytes == planned.scratch_bytes + planned.result_bytes
    assert not planned.lowered


def test_a_ladder_takes_its_largest_rung(dtype):
    planned = plan(4, 9, dtype, method=["picard", Anderson(history=5), "broyden"])
    assert planned.method == (Picard(), Anderson(history=5), Broyden())
    sizes = [plan(4, 9, dtype, method=rung).scratch_bytes for rung in planned.method]
    assert planned.scratch_bytes == max(sizes)
    solution = fixed_point(np.cos, np.ones((4, 9), dtype), method=list(planned.method))
    assert solution.scratch_bytes == sizes[0]  # the first rung solved them all


@pytest.mark.parametrize(
    "method",
    [
        "anderson",
        Anderson(history=32, beta=0.7),
        Anderson(history=20, storage="bfloat16"),
        "anderson_type_i",
        "broyden",
        Broyden(full="compress"),
    ],
    ids=str,
)
def test_the_history_is_the_longest_that_fits(method, dtype):
    whole = plan(8, 50, dtype, method=method)
    assert plan(8, 50, dtype, method=method, memory_budget=whole.bytes) == whole
    for budget in range(whole.bytes - 1, whole.bytes // 2, -whole.bytes // 7):
        lowered = plan(8, 50, dtype, method=method, memory_budget=budget)
        assert lowered.lowered
        assert lowered.bytes <= budget
        assert lowered.method.history < whole.method.history
        longer = type(lowered.method)(**(vars(lowered.method) | {"history": lowered.method.history + 1}))
        assert plan(8, 50, dtype, method=longer).bytes > budget
        assert vars(lowered.method) | {"history": 0} == vars(whole.method) | {"history": 0}
        assert (
            fixed_point(np.cos, np.ones((8, 50), dtype), method=lowered.method).scratch_bytes == lowered.scratch_bytes
        )


@pytest.mark.parametrize("method", ["picard", "anderson", Broyden(full="compress"), ["broyden", "anderson"]], ids=str)
def test_the_least_that_is_named_is_enough(method):
    with pytest.raises(
        MemoryError, match=r"^memory_budget: 99 bytes given; 8 rows of width 50 need at least \d+"
    ) as no:
        plan(8, 50, method=method, memory_budget=99)
    least = int(str(no.value).split("at least ")[1].split(" ")[0])
    assert ("method='picard' needs" in str(no.value)) == (method != "picard")
    first = method[0] if isinstance(method, list) else method
    assert plan(8, 50, method=first, memory_budget=least).bytes == least
    with pytest.raises(MemoryError):
        plan(8, 50, method=first, memory_budget=least - 1)


def test_a_history_in_16_bits_halves_the_history(dtype):
    """Half the bytes of the 2 m columns of float32, a quarter of float64's; nothing else of the solve changes."""
    rows, width, m = 5, 320, 7
    full = plan(rows, width, dtype, method=Anderson(history=m), keep="history")
    half = plan(rows, width, dtype, method=Anderson(history=m, storage="bfloat16"), keep="history")
    columns = 2 * m * rows * width
    assert full.scratch_bytes - half.scratch_bytes == columns * (np.dtype(dtype).itemsize - 2)
    assert full.handle_bytes - half.handle_bytes == columns * (np.dtype(dtype).itemsize - 2)
    assert half.result_bytes == full.result_bytes


def test_rungs_are_lowered_one_by_one():
    budget = plan(8, 50, method=Anderson(history=4)).bytes
    lowered = plan(8, 50, method=["picard", Anderson(history=9), Anderson(history=2)], memory_budget=budget)
    assert lowered.method == (Picard(), Anderson(history=4), Anderson(history=2))
    assert lowered.lowered
    assert isinstance(lowered, Plan)


@pytest.mark.parametrize(("name", "method"), [("rk4", RK4()), ("dopri5", DormandPrince())])
def test_methods_of_integrations_go_by_their_names(name, method):
    assert plan(4, 4, method=name) == plan(4, 4, method=method, times=2)
    assert plan(4, 4, method=name, times=3).result_bytes > plan(4, 4, method=name).result_bytes


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plan(0, 4), ValueError, "^rows: 0 given; expected"),
        (lambda: plan(4, 0), ValueError, "^width: 0 given; expected"),
        (lambda: plan(2.5, 4), TypeError, r"^rows: 2\.5 given; expected an integer"),
        (lambda: plan(4, 4, int), TypeError, "^dtype: .*expected float32 or float64"),
        (lambda: plan(4, 4, method="gmres"), ValueError, "^method: 'gmres' given; expected one of"),
        (lambda: plan(4, 4, method=[]), ValueError, "^method: an empty list given"),
        (lambda: plan(4, 4, method="rk5"), ValueError, "^method: 'rk5' given; expected one of .*'picard'.*'rk4'"),
        (lambda: plan(4, 4, method=RK4(4), jvp=True), ValueError, "^jvp: True given with a method of odeint"),
        (lambda: plan(4, 4, method="anderson", times=7), ValueError, "^times: 7 given; expected None"),
        (lambda: plan(4, 4, method="rk4", times=1), ValueError, "^times: 1 given"),
        (
            lambda: plan(4, 4, method="rk4", memory_budget=-1),
            ValueError,
            "^memory_budget: -1 given; expected at least 1",
        ),
        (lambda: plan(4, 4, memory_budget=0), ValueError, "^memory_budget: 0 given; expected at least 1"),
        (lambda: plan(4, 4, memory_budget=1e9), TypeError, "^memory_budget: 1000000000.0 given; expected an integer"),
        (lambda: plan(4, 4, budget=9), TypeError, "^plan\\(\\) has no option 'budget'; did you mean 'memory_budget'"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (8, 101)], ids=str)
@pytest.mark.parametrize("keep", ["state", "history"])
def test_the_handle_is_counted(method, shape, keep, dtype):
    if keep == "history" and (method in ("picard", "anderson_type_i") or isinstance(method, AndersonTypeI)):
        with pytest.raises(ValueError, match=r"^keep: 'history' given with (Picard|AndersonTypeI)"):
            plan(*shape, dtype, method=method, keep=keep)
        return
    planned = plan(*shape, dtype, method=method, keep=keep)
    warm = fixed_point(np.cos, np.ones(shape, dtype), method=planned.method, keep=keep).warm
    held = warm.value.nbytes + (0 if warm.history is None else warm.history.memory.nbytes)
    assert planned.handle_bytes == held
    assert planned.bytes == planned.scratch_bytes + planned.result_bytes + held
    assert plan(*shape, dtype, method=method, keep=keep, memory_budget=planned.bytes) == planned
    with pytest.raises(ValueError, match=r"^method: a ladder given with keep='history'"):
        plan(*shape, dtype, method=["anderson"], keep="history")
