# SPDX-License-Identifier: Apache-2.0
"""The solver's own time per step of Anderson with six columns on a map that costs nothing, against its bytes.

Time is (long solve - short solve) / steps - the map's. A step of deqcore moves 2 history + 12 blocks of the batch's
size; the floor is those bytes at the rate of memory, the best of a read and a copy over as many bytes, on as many
threads. deqcore and torchdeq are handed answers that are ready; jaxopt's map must be traced, so it is a chaotic one,
subtracted.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import deqcore
from harness.measure import Plan, case, figures

from . import peers, pools
from .problems import THREADS

SHAPES = ((64, 512), (256, 4096), (8, 100_000))
QUICK = ((3, 20),)
HISTORY, ANSWERS = 6, 9
BLOCKS = 2 * HISTORY + 12
SHORT = 10  # steps: the window is full
SAMPLE_SECONDS, CASE_SECONDS = 0.08, 4.0

Solve = Callable[[int], Any]  # so many steps


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    for rows, width in QUICK if plan.quick else SHAPES:
        for threads in (1, THREADS):
            yield from measure(plan, rows, width, threads)


def measure(plan: Plan, rows: int, width: int, threads: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    answers = [rng.uniform(-1, 1, (rows, width)).astype(np.float32) for _ in range(ANSWERS)]
    bytes_moved = BLOCKS * rows * width * 4
    solvers: dict[str, tuple[Solve, Solve | None]] = {"deqcore NumPy callable": (ours(answers, threads), None)}
    if peers.there("torchdeq"):
        solvers["torchdeq"] = by_torchdeq(answers), None
    if peers.there("jaxopt") and threads == THREADS:  # its pool has one size
        solvers["jaxopt"] = by_jaxopt(answers[0])
    memory = memory_seconds(bytes_moved, threads)
    pools.set_threads(1, threads)
    steps = {}
    for name, (solve, bare) in solvers.items():
        for run in (solve, bare or solve):
            run(SHORT)  # it may compile
        each = seconds(solve, SHORT) / SHORT
        steps[name] = 10 if plan.quick else int(min(2000, max(10, SAMPLE_SECONDS / each)))
    taken: dict[str, list[float]] = {name: [] for name in solvers}
    floors = []
    started = time.perf_counter()
    for _ in range(min(9, plan.repeats)):
        if len(floors) >= 5 and time.perf_counter() - started > CASE_SECONDS:
            break
        for name, (solve, bare) in solvers.items():
            pools.wait_until_quiet()
            times = [seconds(solve, SHORT + steps[name]) - seconds(solve, SHORT)]
            if bare is not None:
                times.append(seconds(bare, SHORT) - seconds(bare, SHORT + steps[name]))
            taken[name].append(sum(times) / steps[name])
        floors.append(memory())
    floor = float(np.median(floors))
    for name in solvers:
        line = case(
            "solver's own time per step, Anderson, history 6", name, np.float32, rows, width, threads, clock="wall",
            counts={"bytes": bytes_moved}, samples=taken[name],
            floor=(floor, "its bytes at the rate of memory"), parts={"byte/s of memory": bytes_moved / floor},
        )  # fmt: skip
        over = float(np.median(taken[name]) / np.median(taken["deqcore NumPy callable"]))
        yield line | {"library": name.split()[0], "over_ours": figures(over)}


def seconds(run: Solve, steps: int) -> float:
    start = time.perf_counter()
    run(steps)
    return time.perf_counter() - start


def ours(answers: list[np.ndarray], threads: int) -> Solve:
    z0, method = np.zeros_like(answers[0]), deqcore.Anderson(history=HISTORY, growth=math.inf)

    def solve(steps: int) -> None:
        following = itertools.cycle(answers).__next__
        solution = deqcore.fixed_point(
            lambda z: following(), z0, method=method, max_steps=steps, threads=threads, on_failure="return"
        )
        if solution.nfe != steps:
            raise RuntimeError(f"the map was called {solution.nfe} times and not {steps}: {solution.message}")

    return solve


def by_torchdeq(answers: list[np.ndarray]) -> Solve:
    import torch
    from torchdeq.solver.anderson import anderson_solver

    ready, z0 = [torch.from_numpy(answer) for answer in answers], torch.zeros(answers[0].shape)

    def solve(steps: int) -> None:
        following = itertools.cycle(ready).__next__
        with torch.no_grad():
            anderson_solver(lambda z: following(), z0, max_iter=steps, tol=0.0, stop_mode="rel", m=HISTORY)

    return solve


def by_jaxopt(start: np.ndarray) -> tuple[Solve, Solve]:
    import jax
    import jax.numpy as jnp
    import jaxopt

    z0 = jnp.asarray(start)

    def f(z: Any) -> Any:
        inside = jnp.clip(z, -1, 1)
        return 1 - 1.9 * inside * inside

    @jax.jit
    def solve(z0: Any, steps: Any) -> Any:
        solver = jaxopt.AndersonAcceleration(f, history_size=HISTORY, tol=-1.0, maxiter=steps)
        state = solver.init_state(z0)
        return jax.lax.fori_loop(0, steps, lambda _, at: tuple(solver.update(*at)), (z0, state))[0]

    @jax.jit
    def bare(z0: Any, steps: Any) -> Any:
        return jax.lax.fori_loop(0, steps, lambda _, z: f(z), z0)

    return lambda steps: solve(z0, steps).block_until_ready(), lambda steps: bare(z0, steps).block_until_ready()


def memory_seconds(bytes_moved: int, threads: int) -> Callable[[], float]:
    """-> a function that times the best of a read and a copy of so many bytes, each thread with its own share."""
    shares = [np.zeros(bytes_moved // 4 // threads, np.float32) for _ in range(threads)]
    times = max(1, int(4e-3 / (bytes_moved / 10e9)))
    pool = ThreadPoolExecutor(threads)

    def read(block: np.ndarray) -> None:
        for _ in range(times):
            np.dot(block, block)

    def copy(block: np.ndarray) -> None:
        half = block.size // 2
        for _ in range(times):
            np.copyto(block[half : 2 * half], block[:half])

    def of(body: Callable[[np.ndarray], None]) -> float:
        start = time.perf_counter()
        list(pool.map(body, shares))
        return (time.perf_counter() - start) / times

    return lambda: min(of(read), of(copy))
