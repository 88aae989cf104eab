# SPDX-License-Identifier: Apache-2.0
"""torchdeq: the DEQ object as its users make it, and its solvers called directly with another ridge and history.

Its Anderson's ridge ``lam`` is absolute, 1e-4 by default; its test is per row and relative (``stop_mode="rel"``).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from ..contest import Contestant
from ..problems import STEPS, Problem

NEEDS = ("torch", "torchdeq")
INSTALL = "pip install torch torchdeq"
TUNED = ((1e-8, 6, 2), (1e-11, 6, 2), (1e-11, 10, 2), (1e-11, 6, 1))  # lam, m, threads


def _map(torch: Any, problem: Problem, W: Any) -> Any:
    x = torch.from_numpy(problem.x)
    act = torch.tanh if problem.activation == "tanh" else torch.relu
    return lambda z: act(torch.addmm(x, z, W.T))


def solvers(problem: Problem, method: str) -> Iterator[Contestant]:
    import torch
    from torchdeq import get_deq
    from torchdeq.solver.anderson import anderson_solver
    from torchdeq.solver.fp_iter import fixed_point_iter

    f, z0 = _map(torch, problem, torch.from_numpy(problem.W)), torch.zeros(problem.x.shape)
    name = "anderson" if method == "anderson" else "fixed_point_iter"

    def by_deq(tolerance: float) -> Any:
        deq = get_deq(f_solver=name, f_tol=tolerance, f_stop_mode="rel", f_max_iter=STEPS).eval()
        with torch.no_grad():
            return deq(f, z0)[0][-1]

    def directly(tolerance: float, solver: Any, **options: Any) -> Any:
        with torch.no_grad():
            return solver(f, z0, max_iter=STEPS, tol=tolerance, stop_mode="rel", **options)[0]

    yield Contestant("torchdeq", "default", by_deq, default=True, per_row=True)
    if method != "anderson":
        for threads in dict.fromkeys((problem.threads, 1)):
            called = partial(directly, solver=fixed_point_iter)
            yield Contestant("torchdeq", f"solver called; threads {threads}", called, per_row=True, torch=threads)
        return
    for lam, m, threads in TUNED:
        tuned = partial(directly, solver=anderson_solver, lam=lam, m=m)
        yield Contestant("torchdeq", f"lam {lam:g}, m {m}; threads {threads}", tuned, per_row=True, torch=threads)


def trainers(problem: Problem) -> Iterator[Contestant]:
    import torch
    from torchdeq import get_deq
    from torchdeq.solver import register_solver
    from torchdeq.solver.anderson import anderson_solver

    W, z0 = torch.from_numpy(problem.W).requires_grad_(), torch.zeros(problem.x.shape)
    f = _map(torch, problem, W)

    def step(tolerance: float, forward: str, backward: str) -> tuple[Any, Any]:
        deq = get_deq(
            f_solver=forward, f_tol=tolerance, f_stop_mode="rel", f_max_iter=STEPS, ift=True,
            b_solver=backward, b_tol=tolerance, b_stop_mode="rel", b_max_iter=STEPS,
        )  # fmt: skip
        W.grad = None
        z = deq(f, z0)[0][-1]
        (z * z).sum().backward()
        return z, W.grad

    def value(answer: tuple[Any, Any]) -> tuple[Any, ...]:
        return tuple(part.detach().numpy() for part in answer)

    picard = "fixed_point_iter"
    settings = [("default", picard, picard, 2), ("plain; threads 1", picard, picard, 1)]
    for lam in (1e-8, 1e-11):
        tuned = f"anderson, lam {lam:g}"
        register_solver(tuned, partial(anderson_solver, lam=lam))
        settings.append((f"{tuned}; threads 2", tuned, tuned, 2))
    settings += [(f"{tuned}; threads 1", tuned, tuned, 1), (f"{tuned}; backward plain; threads 2", tuned, picard, 2)]
    for setting, forward, backward, threads in settings:
        yield Contestant(
            "torchdeq", setting, partial(step, forward=forward, backward=backward), default=setting == "default",
            per_row=True, value=value, torch=threads,
        )  # fmt: skip
