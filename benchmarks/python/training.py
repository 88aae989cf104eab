# SPDX-License-Identifier: Apache-2.0
"""Train on 8 x 8 digits with exact and approximate gradients, with the norm of W held at 0.95 and without.

64 tanh units, Adam 3e-3 decaying along a cosine, batches of 64, forward by Picard to 1e-4. Without the cap the norm of
W grows beyond 1, forward solves take longer or end without a fixed point, and seeds scatter: the statuses count it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

import deqcore
from deqcore import _demo, _training
from harness.measure import Plan, case, figures

GRADIENTS: dict[str, dict[str, Any]] = {
    "exact": {"method": "gmres", "rtol": 1e-6},
    "jacobian-free": {"method": deqcore.JacobianFree()},
    "phantom k=5": {"method": deqcore.Phantom(5)},
}


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    data = _training.split(_training.load_digits())
    for problem, cap, epochs, seeds in (("|W| <= 0.95", 0.95, 25, 3), ("no cap", math.inf, 30, 4)):
        if plan.quick:
            epochs, seeds = 1, 1
        for name, options in GRADIENTS.items():
            runs = [train(*data, options, cap, epochs, seed) for seed in range(seeds)]
            accuracy = [run["accuracy"] for run in runs]
            yield case(
                f"training on digits, {problem}",
                name,
                np.float32,
                64,
                64,
                1,
                counts={
                    "mean accuracy": figures(float(np.mean(accuracy))),
                    "spread": figures(float(np.std(accuracy))),
                    **{key: [run[key] for run in runs] for key in runs[0]},
                },
            )


def train(
    train_set: _training.Digits, test_set: _training.Digits, options: dict[str, Any], cap: float, epochs: int, seed: int
) -> dict[str, Any]:
    """One run; what its last epoch took, and how many rows of all solves ended without a solution."""
    rng = np.random.default_rng(seed)
    p = _demo.capped(_demo.Parameters.random(rng, 64), cap)
    adam = _training.Adam(p)
    batches = math.ceil(len(train_set) / 64)
    unsolved = {"forward": 0, "backward": 0}
    solver = {"method": "picard", "max_steps": 200, "threads": 1, "on_failure": "return"}
    for _ in range(epochs):
        forward, backward = [], []
        for rows in np.array_split(rng.permutation(len(train_set)), batches):
            batch = train_set[rows]
            e = _demo.loss_and_gradients(
                p,
                batch.images,
                batch.labels,
                rtol=1e-4,
                forward_options=solver,
                backward_options={"threads": 1, "on_failure": "return", **options},
            )
            p = _demo.capped(
                adam.update(p, e.gradients, 3e-3 * (1 + math.cos(math.pi * adam.t / (epochs * batches))) / 2), cap
            )
            forward.append((e.forward.steps.mean(), e.forward.nfe))
            backward.append(e.backward.steps.mean())
            unsolved["forward"] += int((e.forward.status < 0).sum())
            unsolved["backward"] += int((e.backward.status < 0).sum())
    final = _demo.equilibrium(p, test_set.images, rtol=1e-4, **solver)
    recognised = _demo.logits(p, final.value).argmax(1) == test_set.labels
    return {
        "accuracy": figures(float(recognised.mean())),
        "norm of W": figures(float(np.linalg.norm(p.W, 2))),
        "evaluations": figures(float(np.mean(forward, 0)[0])),  # of a row
        "evaluations of the slowest row": figures(float(np.mean(forward, 0)[1])),
        "products": figures(float(np.mean(backward))),
        "unsolved forward": unsolved["forward"],
        "unsolved backward": unsolved["backward"],
    }
