# SPDX-License-Identifier: Apache-2.0
"""HomoODE: a classifier whose hidden state is integrated under a condition, from one start for all samples.

For one sample x, with the widths n of the state and h of the condition:

    x (inputs,)                                      u = U x + c            (h,)   the condition, computed once
    U (h, inputs), c (h,)   feature                  z(0) = z0              (n,)   the start, the same for every x
    A1 (h, n), A2 (n, h), b2 (n,)   field            dz/dt = F(z, u) = A2 tanh(A1 z + u) + b2,   t from 0 to 1
    V (classes, n), d (classes,)    head             q = softmax(V z(1) + d),   L = -log q[label], the mean over a batch

    g = V' (q - e[label])                            dL/dz(1)
    da/dt = -(dF/dz)' a,  a(1) = g                   dL/dz0 = a(0), summed over the batch
    gu = integral of (dF/du)' a                      dL/dU = gu x',  dL/dc = gu;  A1, A2, b2 likewise

The start is not learnt by L. It moves towards the ends z(1), held fixed, so that the way there becomes short and takes
few evaluations:

    L0 = mean over the batch of sum_j s(z0_j - z_j(1)),   s(e) = e^2 / 2 where |e| <= 1, else |e| - 1/2

F stands for the whole field of a continuation, dz/dt = (I - lambda J)^-1 (f(z) - z0) dlambda/dt, but it is a network
of its own, and nothing is inverted. So z(1) is a fixed point of no map that is ever evaluated, and F does not vanish
there: gradients come from the integration, never from implicit differentiation at z(1). docs/choosing.md has the
alternatives.

Ding, Cui, Wang and Shi 2023, "Two Sides of The Same Coin: Bridging Deep Equilibrium Models and Neural ODEs via Homotopy
Continuation".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from .. import RK4, OdeGradients, OdeSolution, odeint, odeint_adjoint
from .._arrays import check_numpy, describe, numpy_door
from .._options import integer, keyword_options, real, refuse_unknown
from .._training import Arrays, cosine, cross_entropy, descend, gaussian
from ..maps import Field

__all__ = ["Epoch", "Evaluation", "HomoODE", "Report", "Result", "SharedStart", "Weights", "smooth_l1", "train"]

_TIMES = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Weights(Arrays):
    """The arrays of a :class:`HomoODE`; also anything of their shapes, such as their gradients.

    Attributes:
        U: ``(hidden, inputs)``, and c: ``(hidden,)``, of the condition U x + c.
        A1: ``(hidden, width)``, A2: ``(width, hidden)``, b2: ``(width,)``, of the field.
        V: ``(classes, width)``, d: ``(classes,)``, of the head.
        z0: ``(width,)``, the start.

    ``count`` is the number of their elements; iterating gives the arrays in this order.

    Example:
        >>> import numpy as np
        >>> from deqcore.systems.homoode import Weights
        >>> Weights.random(np.random.default_rng(0), inputs=64, classes=10).count
        13130
    """

    U: np.ndarray
    c: np.ndarray
    A1: np.ndarray
    A2: np.ndarray
    b2: np.ndarray
    V: np.ndarray
    d: np.ndarray
    z0: np.ndarray

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        inputs: int,
        classes: int,
        *,
        width: int = 64,
        hidden: int = 64,
        dtype: Any = np.float32,
    ) -> Weights:
        """Normal entries of variance 1 / columns; c, b2, d and the start are 0.

        Args:
            rng: draws them.
            inputs, classes, width, hidden: the sizes, at least 1.
            dtype: float32 or float64.

        Raises:
            TypeError, ValueError: a size is not an integer, or below 1.
        """
        sizes = {"inputs": inputs, "classes": classes, "width": width, "hidden": hidden}
        for name, size in sizes.items():
            if integer(size, name) < 1:
                raise ValueError(f"{name}: {size} given; expected at least 1")

        def zeros(size: int) -> np.ndarray:
            return np.zeros(size, dtype)

        return cls(
            U=gaussian(rng, hidden, inputs, dtype),
            c=zeros(hidden),
            A1=gaussian(rng, hidden, width, dtype),
            A2=gaussian(rng, width, hidden, dtype),
            b2=zeros(width),
            V=gaussian(rng, classes, width, dtype),
            d=zeros(classes),
            z0=zeros(width),
        )

    def astype(self, dtype: Any) -> Weights:
        """Copies in another dtype."""
        return self.each(lambda array: array.astype(dtype), self)


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """What a pass through the model took.

    Attributes:
        forward: the integration.
        backward: its gradient; None where none was asked for.
        distance: float64, \\|z(1) - z(0)\\| of each row: the length of its way as the crow flies.
        field_at_end: float64, \\|F(z(1), u)\\| of each row; NaN where the integration did not arrive. Not expected
            to be small: z(1) is where the time is up, not where the field is at rest. It takes an evaluation of its
            own, which ``nfe_forward`` does not count.

    Example:
        >>> import numpy as np
        >>> from deqcore.systems import homoode
        >>> rng = np.random.default_rng(0)
        >>> model = homoode.HomoODE(homoode.Weights.random(rng, inputs=8, classes=3))
        >>> x, labels = rng.standard_normal((5, 8)).astype(np.float32), np.array([0, 1, 2, 0, 1])
        >>> model.loss_and_gradients(x, labels).report
        <Report 16 evaluations forward, 16 evaluations and 16 products backward, 4 steps, 0 rejected>
    """

    forward: OdeSolution
    backward: OdeGradients | None
    distance: np.ndarray
    _rest: Callable[[], np.ndarray] = field(repr=False)

    @cached_property
    def field_at_end(self) -> np.ndarray:
        """\\|F(z(1), u)\\| of each row; NaN where the integration did not arrive."""
        return _lengths(self._rest())

    @property
    def nfe_forward(self) -> int:
        """Evaluations of F for a batch as one system, else for the row that needed most."""
        return self.forward.nfe

    @property
    def nfe_backward(self) -> int:
        """Evaluations of F on the way back; there are ``backward.products`` products beside them."""
        return 0 if self.backward is None else self.backward.evaluations

    @property
    def accepted(self) -> int:
        """Steps forward, of the row that needed most."""
        return int(self.forward.accepted.max())

    @property
    def rejected(self) -> int:
        """Steps forward that were given up, of the row that gave up most."""
        return int(self.forward.rejected.max())

    @property
    def scratch_bytes(self) -> int:
        """The most that was held beside the results, forward or backward."""
        return max(self.forward.scratch_bytes, self.backward.scratch_bytes if self.backward else 0)

    def __repr__(self) -> str:
        """The counts."""
        back = self.backward
        backward = f"{back.evaluations} evaluations and {back.products} products backward, " if back else ""
        steps = f"{self.accepted} steps, {self.rejected} rejected"
        return f"<Report {self.nfe_forward} evaluations forward, {backward}{steps}>"


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What a call of a :class:`HomoODE` returns.

    Attributes:
        scores: ``(rows, classes)``, before the softmax; NaN where an integration did not arrive.
        ends: z(1), ``(rows, width)``.
        report: what it took.

    Example:
        >>> import numpy as np
        >>> from deqcore.systems import homoode
        >>> model = homoode.HomoODE(homoode.Weights.random(np.random.default_rng(0), inputs=8, classes=3))
        >>> result = model(np.ones((5, 8), np.float32))
        >>> result.scores.shape, result.labels.shape, result.report.distance.shape
        ((5, 3), (5,), (5,))
    """

    scores: np.ndarray
    ends: np.ndarray
    report: Report

    @property
    def labels(self) -> np.ndarray:
        """The class with the highest score; -1 where the integration did not arrive."""
        return np.where(np.isnan(self.scores).any(1), -1, self.scores.argmax(1))

    def __repr__(self) -> str:
        """The report."""
        return f"<Result {len(self.scores)} rows: {self.report!r}>"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The loss of a batch, its gradients, and what they took: :meth:`HomoODE.loss_and_gradients`.

    Attributes:
        loss: the mean cross-entropy.
        gradients: of the shapes of the weights; that to z0 is summed over the batch, as it is shared.
        condition: dL/du, ``(rows, hidden)``, for a feature of your own in front of the model.
        correct: how many rows have their label's score highest.
        ends: z(1), ``(rows, width)``: what the start is drawn to.
        report: what it took.

    Example:
        >>> import numpy as np
        >>> from deqcore.systems import homoode
        >>> model = homoode.HomoODE(homoode.Weights.random(np.random.default_rng(0), inputs=8, classes=3))
        >>> e = model.loss_and_gradients(np.ones((5, 8), np.float32), np.zeros(5, int))
        >>> e.gradients.V.shape, e.gradients.z0.shape, e.condition.shape
        ((3, 64), (64,), (5, 64))
    """

    loss: float
    gradients: Weights
    condition: np.ndarray
    correct: int
    ends: np.ndarray
    report: Report


class HomoODE:
    """A classifier of rows: a condition, a field integrated from a shared start under it, a head.

    The integration and its gradient run wholly in C++ (:class:`deqcore.maps.Field`). A1, A2 and b2 are packed
    here, the other weights are not copied: do not write to them, new weights make a new model.

    Args:
        weights: the arrays, float32 or float64.
        activation: of the field, one of :data:`deqcore.maps.activations`.

    Raises:
        TypeError: not :class:`Weights`, or not NumPy arrays of one float dtype.
        ValueError: shapes that do not fit, or not finite.

    Example:
        >>> import numpy as np, deqcore
        >>> from deqcore.systems import homoode
        >>> rng = np.random.default_rng(0)
        >>> model = homoode.HomoODE(homoode.Weights.random(rng, inputs=8, classes=3, dtype=np.float64))
        >>> x, labels = rng.standard_normal((5, 8)), np.array([0, 1, 2, 0, 1])
        >>> result = model(x, rtol=1e-6, atol=1e-6)                  # by DormandPrince, the batch as one system
        >>> step = model.loss_and_gradients(x, labels, method=deqcore.RK4(steps=4), gradient="solver")
        >>> bool(np.allclose(step.ends, result.ends, atol=1e-3)), step.gradients.A1.shape
        (True, (64, 64))
    """

    def __init__(self, weights: Weights, activation: str = "tanh") -> None:
        """Check the shapes and pack the field."""
        if not isinstance(weights, Weights):
            raise TypeError(f"weights: {describe(weights)} given; expected homoode.Weights")
        self.weights = weights
        self.field = Field(weights.A1, weights.A2, weights.b2, activation)
        hidden, width = self.field.hidden, self.field.width
        for name, array in (("U", weights.U), ("V", weights.V)):
            check_numpy(array, name)
            if array.ndim != 2 or array.size == 0:
                raise ValueError(f"{name}: {describe(array)} given; expected a matrix")
        self.inputs, self.classes = weights.U.shape[1], len(weights.V)
        shapes = {"U": (hidden, self.inputs), "c": (hidden,), "z0": (width,)}
        shapes |= {"V": (self.classes, width), "d": (self.classes,)}
        for name, shape in shapes.items():
            self._check(getattr(weights, name), name, shape)

    @property
    def dtype(self) -> Any:
        """The dtype of the weights and of everything that is given to the model."""
        return self.field.dtype

    def __repr__(self) -> str:
        """The sizes."""
        return (
            f"HomoODE(inputs={self.inputs}, hidden={self.field.hidden}, width={self.field.width}, "
            f"classes={self.classes}, activation={self.field.activation!r}, dtype={self.dtype})"
        )

    def __call__(
        self, x: np.ndarray, *, rtol: float = 1e-3, atol: float = 1e-3, control: str = "batch", **options: Any
    ) -> Result:
        """Integrate each row of x and score it.

        Args:
            x: inputs, ``(rows, inputs)``, of the model's dtype.
            rtol, atol: of the error of a step; the paper's are 1e-3.
            control: ``"batch"``: the batch as one system, as in the paper; ``"rows"``: each row with its own steps.
            options: ``method`` (None is :class:`deqcore.DormandPrince`), ``first_step``, ``max_steps``, ``threads``,
                ``on_failure``: as for :func:`deqcore.odeint`.

        Returns:
            A :class:`Result`.

        Raises:
            ConvergenceError: an integration did not arrive and ``on_failure`` is ``"raise"``.
            TypeError, ValueError: an argument of the wrong kind, dtype, shape or range, or not finite.
        """
        for name in options:
            if name not in _OF_CALL:
                refuse_unknown("HomoODE", {name: options[name]}, _OF_CALL)
        x = self._inputs(x)
        return self._forward(self.condition(x), rtol=rtol, atol=atol, control=control, **options)

    def condition(self, x: np.ndarray) -> np.ndarray:
        """U x + c: what the field sees of each row at every evaluation, computed once.

        Args:
            x: inputs, ``(rows, inputs)``, of the model's dtype.

        Returns:
            ``(rows, hidden)``.

        Raises:
            TypeError, ValueError: x has another dtype or shape, or is not finite.
        """
        u: np.ndarray = self._inputs(x) @ self.weights.U.T + self.weights.c
        return u

    def loss_and_gradients(
        self,
        x: np.ndarray,
        labels: np.ndarray,
        *,
        method: Any = None,
        gradient: str = "adjoint",
        rtol: float = 1e-3,
        atol: float = 1e-3,
        max_steps: int = 10000,
        threads: int | None = None,
        **unknown: NoReturn,
    ) -> Evaluation:
        """The mean cross-entropy and its gradients to all weights, to the start and to the condition.

        Args:
            x: inputs, ``(rows, inputs)``, of the model's dtype.
            labels: integers below the number of classes, ``(rows,)``.
            method: of :func:`deqcore.odeint`; None is ``RK4(steps=4)``.
            gradient: ``"adjoint"``, exact for the differential equation, in memory that does not grow with the steps;
                ``"solver"``, exact for what was computed, for a method with a number of steps; ``"frozen"``, whose
                cotangent stays as it is at the end: no gradient, but cheap, and what the released code of the paper
                computes for its larger data sets.
            rtol, atol, max_steps: of methods that choose their steps.
            threads: most threads; None is :func:`deqcore.num_threads`.

        Returns:
            An :class:`Evaluation`.

        Raises:
            ConvergenceError: an integration did not arrive.
            TypeError, ValueError: an argument of the wrong kind, dtype, shape or range, or not finite.
        """
        if unknown:
            refuse_unknown("loss_and_gradients", unknown, _OF_LOSS)
        x, labels = self._inputs(x), self._labels(labels, len(x))
        method = RK4(steps=4) if method is None else method
        shared: dict[str, Any] = {"method": method, "rtol": rtol, "atol": atol, "max_steps": max_steps}
        shared |= {"threads": threads}
        w, u = self.weights, self.condition(x)
        result = self._forward(u, control="batch", **shared)
        loss, slope = cross_entropy(result.scores, labels)
        backward = odeint_adjoint(
            self.field,
            None,
            result.report.forward.value,
            _TIMES,
            slope @ w.V,
            row_args=(u,),
            gradient=gradient,
            **shared,
        )
        du, (A1, A2, b2) = backward.row_args[0], backward.parameters
        gradients = Weights(
            du.T @ x, du.sum(0), A1, A2, b2, V=slope.T @ result.ends, d=slope.sum(0), z0=backward.z0.sum(0)
        )
        correct = int((result.labels == labels).sum())
        return Evaluation(loss, gradients, du, correct, result.ends, replace(result.report, backward=backward))

    def _forward(self, u: np.ndarray, **options: Any) -> Result:
        w = self.weights
        z0 = np.tile(w.z0, (len(u), 1))
        forward = odeint(self.field, z0, _TIMES, row_args=(u,), **options)
        ends = forward.value[-1]

        def rest() -> np.ndarray:
            arrived = np.isfinite(ends).all(1)
            at_end: np.ndarray = np.full_like(ends, np.nan)
            if arrived.any():
                at_end[arrived] = self.field(ends[arrived], u[arrived])
            return at_end

        report = Report(forward, None, _lengths(ends - z0), rest)
        return Result(ends @ w.V.T + w.d, ends, report)

    def _check(self, array: Any, name: str, shape: tuple[int, ...]) -> None:
        check_numpy(array, name)
        if array.dtype != self.dtype:
            raise TypeError(f"{name}: {describe(array)} given; expected dtype {self.dtype}, that of A1")
        if array.shape != shape:
            raise ValueError(f"{name}: {describe(array)} given; expected shape {shape}")
        numpy_door.check_finite(array, name)

    def _inputs(self, x: Any) -> np.ndarray:
        check_numpy(x, "x")
        if x.ndim != 2 or x.shape[0] == 0 or x.shape[1] != self.inputs:
            raise ValueError(f"x: {describe(x)} given; expected shape (rows, {self.inputs}) with at least one row")
        self._check(x, "x", x.shape)
        array: np.ndarray = x
        return array

    def _labels(self, labels: Any, rows: int) -> np.ndarray:
        check_numpy(labels, "labels")
        if labels.dtype.kind not in "iu":
            raise TypeError(f"labels: {describe(labels)} given; expected integers")
        if labels.shape != (rows,):
            raise ValueError(f"labels: {describe(labels)} given; expected shape ({rows},), one per row of x")
        if labels.min() < 0 or labels.max() >= self.classes:
            raise ValueError(
                f"labels: {labels.min()} to {labels.max()} given; expected at least 0 and below {self.classes}"
            )
        array: np.ndarray = labels
        return array


_OF_LOSS = keyword_options(HomoODE.loss_and_gradients)
_OF_CALL = [*keyword_options(HomoODE.__call__), "method", "first_step", "max_steps", "threads", "on_failure"]


def _lengths(rows: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.linalg.norm(rows.astype(np.float64), axis=1)
    return lengths


# ------------------------------------------------------------------------------------------------------------ training


def smooth_l1(z0: np.ndarray, ends: np.ndarray) -> tuple[float, np.ndarray]:
    """The distance of a start from the ends of a batch, and its gradient to the start; the ends are held fixed.

    L0 = mean over the rows of sum_j s(z0_j - ends_j), s(e) = e^2 / 2 where \\|e\\| <= 1, else \\|e\\| - 1/2.

    Args:
        z0: the start, ``(width,)``.
        ends: ``(rows, width)``.

    Returns:
        ``(L0, dL0/dz0)``; the second is the mean of z0 - ends with every element held within [-1, 1].

    Example:
        >>> import numpy as np
        >>> from deqcore.systems.homoode import smooth_l1
        >>> loss, gradient = smooth_l1(np.zeros(2), np.array([[0.5, 3.0]]))
        >>> loss, gradient.tolist()
        (2.625, [-0.5, -1.0])
    """
    e = z0 - ends
    held = np.clip(e, -1, 1)
    loss = (held * (e - held / 2)).sum(1).mean()
    return float(loss), held.mean(0)


@dataclass(frozen=True)
class SharedStart:
    """How the start follows the ends: steps of gradient descent on :func:`smooth_l1`, apart from the other weights.

    The ends move while the model is trained, and a start that runs after them too fast disturbs the training. So the
    rate falls along a cosine, to 0 before the end.

    Args:
        rate: length of a step at first, in (0, 1]; at 1 the start jumps to the mean of ends that are closer than 1.
        every: updates of the other weights between two steps.
        until: the part of the training after which the start stays, in (0, 1].

    Raises:
        TypeError, ValueError: not numbers, or outside their ranges.

    Example:
        >>> from deqcore.systems.homoode import SharedStart
        >>> start = SharedStart(rate=0.2, every=5)
        >>> [round(start.rate_at(number, 100), 3) for number in (1, 5, 40, 80, 100)]
        [0.0, 0.198, 0.1, 0.0, 0.0]
    """

    rate: float = 0.5
    every: int = 5
    until: float = 0.8

    def __post_init__(self) -> None:
        for name in ("rate", "until"):
            value = real(getattr(self, name), name)
            if not 0 < value <= 1:
                raise ValueError(f"{name}: {value} given; expected a number in (0, 1]")
        if integer(self.every, "every") < 1:
            raise ValueError(f"every: {self.every} given; expected at least 1")

    def rate_at(self, number: int, updates: int) -> float:
        """The rate after this many of so many updates of the other weights; 0 between two steps."""
        return 0.0 if number % self.every else cosine(self.rate, number / (self.until * updates))

    def moved(self, z0: np.ndarray, ends: np.ndarray, number: int, updates: int) -> np.ndarray:
        """The start after update ``number`` of so many, whose batch ended at ``ends``."""
        rate = self.rate_at(number, updates)
        if rate == 0:
            return z0
        start: np.ndarray = z0 - z0.dtype.type(rate) * smooth_l1(z0, ends)[1]
        return start


@dataclass
class Epoch:
    """What one pass over the samples gave and took.

    Attributes:
        loss: the mean over the samples.
        accuracy: as the batches came by, while the weights changed.
        distance: mean of \\|z(1) - z(0)\\|.
        nfe_forward, nfe_backward: evaluations of F per batch, the mean.

    Example:
        >>> import numpy as np
        >>> from deqcore.systems import homoode
        >>> rng = np.random.default_rng(0)
        >>> model = homoode.HomoODE(homoode.Weights.random(rng, inputs=8, classes=3))
        >>> x, labels = np.eye(8, dtype=np.float32), np.array([0, 1, 2, 0, 1, 2, 0, 1])
        >>> _, epochs = homoode.train(model, x, labels, rng=rng, epochs=2)
        >>> len(epochs), epochs[1].nfe_forward, epochs[1].nfe_backward
        (2, 16.0, 16.0)
    """

    loss: float = 0.0
    accuracy: float = 0.0
    distance: float = 0.0
    nfe_forward: float = 0.0
    nfe_backward: float = 0.0

    def add(self, e: Evaluation, share: float) -> None:
        """Take in a batch that holds this share of the samples."""
        self.loss += share * e.loss
        self.accuracy += share * e.correct / len(e.ends)
        self.distance += share * float(e.report.distance.mean())
        self.nfe_forward += share * e.report.nfe_forward
        self.nfe_backward += share * e.report.nfe_backward


def train(
    model: HomoODE,
    x: np.ndarray,
    labels: np.ndarray,
    *,
    rng: np.random.Generator,
    start: SharedStart | str | None = SharedStart(),
    epochs: int = 40,
    batch: int = 64,
    rate: float = 5e-3,
    show: Callable[[Epoch], None] | None = None,
    **options: Any,
) -> tuple[HomoODE, list[Epoch]]:
    """Train by Adam, whose rate falls to 0 along a cosine.

    Args:
        model: where to begin; it stays as it is.
        x, labels: the samples, as for :meth:`HomoODE.loss_and_gradients`.
        rng: draws the order of the samples; the same state gives the same result.
        start: a :class:`SharedStart`; ``"loss"``: the start is a weight like the others; None: it stays where it is.
        epochs: passes over the samples.
        batch: most samples per update.
        rate: of Adam, at first.
        show: called with every epoch.
        options: ``method``, ``gradient``, ``rtol``, ``atol``, ``max_steps``, ``threads``: as for
            :meth:`HomoODE.loss_and_gradients`.

    Returns:
        (the trained model, one :class:`Epoch` per epoch).

    Raises:
        ConvergenceError: an integration did not arrive.
        TypeError, ValueError: an argument of the wrong kind, dtype, shape or range, or not finite.

    Example:
        >>> import numpy as np
        >>> from deqcore.systems import homoode
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((200, 4)).astype(np.float32)
        >>> labels = (x[:, 0] * x[:, 1] > 0).astype(int)                 # no straight line tells them apart
        >>> model = homoode.HomoODE(homoode.Weights.random(rng, inputs=4, classes=2, width=16, hidden=16))
        >>> trained, epochs = homoode.train(model, x, labels, rng=rng, epochs=30, batch=32, rate=0.01)
        >>> bool((trained(x).labels == labels).mean() > 0.95), bool(epochs[-1].loss < epochs[0].loss)
        (True, True)
    """
    for name in options:
        if name not in _OF_LOSS:
            refuse_unknown("train", {name: options[name]}, [*keyword_options(train), *_OF_LOSS])
    if not isinstance(model, HomoODE):
        raise TypeError(f"model: {describe(model)} given; expected a HomoODE")
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng: {describe(rng)} given; expected a numpy.random.Generator")
    learnt = isinstance(start, SharedStart) or (isinstance(start, str) and start == "loss")
    if start is not None and not learnt:
        raise ValueError(f"start: {start!r} given; expected a SharedStart, 'loss' or None")
    for name, count in (("epochs", epochs), ("batch", batch)):
        if integer(count, name) < 1:
            raise ValueError(f"{name}: {count} given; expected at least 1")
    if not 0 < real(rate, "rate") < np.inf:
        raise ValueError(f"rate: {rate!r} given; expected a number > 0")
    x = model._inputs(x)
    labels = model._labels(labels, len(x))
    activation = model.field.activation
    updates = epochs * -(-len(x) // batch)

    def evaluate(weights: Weights, rows: np.ndarray) -> Evaluation:
        e = HomoODE(weights, activation).loss_and_gradients(x[rows], labels[rows], **options)
        if start == "loss":
            return e
        return replace(e, gradients=replace(e.gradients, z0=np.zeros_like(weights.z0)))

    def follow(weights: Weights, e: Evaluation, number: int) -> Weights:
        assert isinstance(start, SharedStart)
        return replace(weights, z0=start.moved(weights.z0, e.ends, number, updates))

    steps = descend(
        model.weights,
        len(x),
        evaluate,
        epochs=epochs,
        batch=batch,
        rate=rate,
        rng=rng,
        adjust=follow if isinstance(start, SharedStart) else None,
    )
    weights, done, epoch = model.weights, [], Epoch()
    for step in steps:
        weights = step.p
        epoch.add(step.evaluation, step.share)
        if step.ends_epoch:
            done.append(epoch)
            if show is not None:
                show(epoch)
            epoch = Epoch()
    return HomoODE(weights, activation), done
