# SPDX-License-Identifier: Apache-2.0
"""What training takes without a deep-learning framework: weights, their gradients, Adam along a cosine; and the digits.

Kingma and Ba 2015, "Adam"; Loshchilov and Hutter 2017, "SGDR", for the cosine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np

__all__ = [
    "Adam",
    "Arrays",
    "Digits",
    "Step",
    "cosine",
    "cross_entropy",
    "descend",
    "gaussian",
    "load_digits",
    "log_softmax",
    "split",
]

P = TypeVar("P", bound="Arrays")
E = TypeVar("E")


# ------------------------------------------------------------------------------------------------------------- weights


@dataclass(frozen=True)
class Arrays:
    """A dataclass of arrays: weights, or anything of their shapes, such as their gradients."""

    def __iter__(self) -> Iterator[np.ndarray]:
        return (getattr(self, field.name) for field in fields(self))

    @classmethod
    def each(cls: type[P], function: Callable[..., Any], *operands: P) -> P:
        """``function`` applied to the first arrays, then to the second ones, and so on."""
        return cls(*map(function, *operands))

    @property
    def count(self) -> int:
        """Elements in all."""
        return sum(array.size for array in self)


def gaussian(rng: np.random.Generator, rows: int, columns: int, dtype: Any = np.float32) -> np.ndarray:
    """A matrix of normal entries of variance 1 / columns."""
    matrix: np.ndarray = (rng.standard_normal((rows, columns)) / math.sqrt(columns)).astype(dtype)
    return matrix


# ---------------------------------------------------------------------------------------------------------------- loss


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """log(exp(s_i) / sum_j exp(s_j)) along the last axis; shifted, so that nothing overflows."""
    shifted = scores - scores.max(-1, keepdims=True)
    log_q: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return log_q


def cross_entropy(scores: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """-> (the mean of -log softmax(scores)[label] over the rows, its gradient to the scores)."""
    rows = np.arange(len(labels))
    log_q = log_softmax(scores)
    slope = np.exp(log_q)  # (q - e[label]) / rows
    slope[rows, labels] -= 1
    slope /= len(rows)
    return float(-log_q[rows, labels].mean()), slope


# ------------------------------------------------------------------------------------------------------------- descent


class Adam(Generic[P]):
    """Steps along the mean gradient over the root of the mean square, element by element.

    m <- 0.9 m + 0.1 g,  v <- 0.999 v + 0.001 g^2,  p <- p - rate m / (1 - 0.9^t) / (sqrt(v / (1 - 0.999^t)) + 1e-8).
    """

    def __init__(self, p: P) -> None:
        self.m = p.each(np.zeros_like, p)
        self.v = p.each(np.zeros_like, p)
        self.t = 0

    def update(self, p: P, gradients: P, rate: float) -> P:
        """The parameters after one step."""
        self.t += 1
        self.m = p.each(lambda m, g: 0.9 * m + 0.1 * g, self.m, gradients)
        self.v = p.each(lambda v, g: 0.999 * v + 0.001 * g * g, self.v, gradients)
        unbias_m, unbias_v = 1 - 0.9**self.t, 1 - 0.999**self.t

        def step(p: np.ndarray, m: np.ndarray, v: np.ndarray) -> np.ndarray:
            return p - rate * (m / unbias_m) / (np.sqrt(v / unbias_v) + 1e-8)

        return p.each(step, p, self.m, self.v)


def cosine(rate: float, done: float) -> float:
    """A rate that falls from ``rate`` to 0 while ``done`` rises from 0 to 1, and stays there."""
    return rate * (1 + math.cos(math.pi * min(done, 1.0))) / 2


@dataclass(frozen=True)
class Step(Generic[P, E]):
    """One update: what was evaluated, and the parameters after it."""

    p: P
    evaluation: E
    share: float  # of the samples, that this batch held
    begins_epoch: bool
    ends_epoch: bool


def descend(
    p: P,
    samples: int,
    evaluate: Callable[[P, np.ndarray], E],
    *,
    epochs: int,
    batch: int,
    rate: float,
    rng: np.random.Generator,
    adjust: Callable[[P, E, int], P] | None = None,
) -> Iterator[Step[P, E]]:
    """Adam with a rate that falls along a cosine, over batches in an order drawn anew for each epoch.

    ``evaluate(p, rows)`` gives something with ``gradients`` of the samples in these rows. ``adjust(p, evaluation,
    number)`` may change the parameters after each update; numbers count from 1.
    """
    adam: Adam[P] = Adam(p)
    batches = math.ceil(samples / batch)
    for _ in range(epochs):
        for i, rows in enumerate(np.array_split(rng.permutation(samples), batches), 1):
            evaluation: Any = evaluate(p, rows)
            p = adam.update(p, evaluation.gradients, cosine(rate, adam.t / (epochs * batches)))
            if adjust is not None:
                p = adjust(p, evaluation, adam.t)
            yield Step(p, evaluation, len(rows) / samples, i == 1, i == batches)


# ---------------------------------------------------------------------------------------------------------- the digits


@dataclass(frozen=True)
class Digits:
    """Images, one per row, pixels in [0, 1], and their labels."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Any) -> Digits:
        return Digits(self.images[rows], self.labels[rows])


def load_digits() -> Digits:
    """Scikit-learn's 1,797 handwritten digits, in an order that never changes; the first 1,400 are for training."""
    import sklearn.datasets

    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))  # neighbours in the file are by the same writer
    return Digits((images / 16).astype(np.float32), labels)[order]


def split(digits: Digits) -> tuple[Digits, Digits]:
    """-> (1,400 to train on, 397 to test with). The second are only ever counted: nothing is chosen by them."""
    return digits[:1400], digits[1400:]
