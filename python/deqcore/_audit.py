# SPDX-License-Identifier: Apache-2.0
"""Whether a map is what the solvers take it for: a fixed function of each row, with the derivatives it comes with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from ._arrays import describe
from ._dialogue import State, check_args
from ._options import flag, keyword_options, refuse_unknown
from ._products import at_least, host_state
from ._regularisers import spectral_radius
from .maps import Dense

__all__ = ["Audit", "Finding", "audit"]

_ASSEMBLED = 64  # rows up to this width get their J written out
_STEPS = 60  # products of a power iteration on wider ones
_PROBES = 6  # random directions along which derivatives are compared


_BOUND = {"exact": "at most", "estimate": "some", "at_least": "at least"}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a map, from :func:`audit`.

    Attributes:
        name: which check found it; :func:`audit` lists them.
        words: what was seen, and what to do about it.
        rows: the rows it was seen in, where it belongs to rows.

    Example:
        >>> import numpy as np, deqcore
        >>> deqcore.audit(lambda z: z - z.mean(axis=0), np.ones((3, 2))).findings[0].name
        'rows_influence_each_other'
    """

    name: str
    words: str
    rows: tuple[int, ...] = ()

    def __str__(self) -> str:
        """The name, then the words."""
        return f"{self.name}: {self.words}"


@dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """What :func:`audit` found; arrays have one entry per row.

    Attributes:
        findings: a tuple of :class:`Finding`; empty for a healthy map.
        contraction: float64, the spectral norm of J at z: f contracts near z where it is below 1. NaN where it could
            not be measured.
        spectral_radius: float64, the largest \\|eigenvalue\\| of J at z: Picard iteration converges from near a fixed
            point where it is below 1. NaN where it could not be measured.
        how: how ``contraction`` was measured: ``"exact"`` where J was written out, ``"estimate"`` by power iteration
            from below, ``"at_least"`` where nothing but a bound from below was to be had; ``""`` if not at all.
        not_checked: in words, what this call could not look at.

    Example:
        >>> import numpy as np, deqcore
        >>> print(deqcore.audit(lambda z: 0.5 * np.cos(z), np.ones((2, 3))))
        audit: nothing wrong found in 2 rows of width 3.
        |J| at z is at most 0.42 (row 0): a contraction near z.
        Spectral radius at most 0.42 (row 0): Picard iteration converges from near a fixed point.
        Not checked: row_args (none given); products (no jvp, vjp given).
    """

    findings: tuple[Finding, ...]
    contraction: np.ndarray
    spectral_radius: np.ndarray
    how: str
    not_checked: tuple[str, ...]
    _width: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing wrong was found."""
        return not self.findings

    def __repr__(self) -> str:
        """The first line of what :meth:`explain` says."""
        return f"<Audit {self.explain().splitlines()[0]}>"

    def __str__(self) -> str:
        """What :meth:`explain` says."""
        return self.explain()

    def explain(self) -> str:
        """Say in plain words what was found, what to do about it, and how strongly the map contracts.

        Example:
            >>> import numpy as np, deqcore
            >>> rng = np.random.default_rng(0)
            >>> dropout = lambda z: np.tanh(z) * (rng.random(z.shape) < 0.9)
            >>> print(deqcore.audit(dropout, np.ones((2, 3))).explain().splitlines()[0])
            audit: 1 finding in 2 rows of width 3.
        """
        rows = len(self.contraction)
        block = f"{rows} row{'s' * (rows != 1)} of width {self._width}"
        found = f"{len(self.findings)} finding{'s' * (len(self.findings) != 1)}" if self.findings else ""
        lines = [f"audit: {found or 'nothing wrong found'} in {block}."]
        lines += map(str, self.findings)
        known = np.flatnonzero(np.isfinite(self.contraction))
        if len(known):
            worst = int(known[np.argmax(self.contraction[known])])
            norm, bound = self.contraction[worst], _BOUND[self.how]
            words = "a contraction near z" if self.how != "at_least" else "its size would take vjp="
            words = words if norm < 1 else "not a contraction in the 2-norm, which no solver needs"
            lines.append(f"|J| at z is {bound} {norm:.2g} (row {worst}): {words}.")
        known = np.flatnonzero(np.isfinite(self.spectral_radius))
        if len(known):
            worst = int(known[np.argmax(self.spectral_radius[known])])
            radius, bound = self.spectral_radius[worst], _BOUND["exact" if self.how == "exact" else "estimate"]
            converges = "Picard iteration converges from near a fixed point"
            words = converges if radius < 1 else "undamped Picard iteration runs away there; other methods need not"
            lines.append(f"Spectral radius {bound} {radius:.2g} (row {worst}): {words}.")
        if self.not_checked:
            lines.append(f"Not checked: {'; '.join(self.not_checked)}.")
        return "\n".join(lines)


def audit(
    f: Callable[..., Any] | Dense,
    z: np.ndarray,
    *,
    args: tuple[Any, ...] = (),
    row_args: tuple[Any, ...] = (),
    pass_rows: bool = False,
    vjp: Callable[..., Any] | None = None,
    jvp: Callable[..., Any] | None = None,
    calls: int = 3,
    seed: int = 0,
    **unknown: NoReturn,
) -> Audit:
    """Look for what breaks a solve on f near z: some 10 calls of the map, and those that the derivatives take.

    =============================  =====================================================================================
    Finding                        Seen
    =============================  =====================================================================================
    ``no_array``                   an answer that is no NumPy array
    ``wrong_dtype``                an answer of another dtype than z
    ``wrong_shape``                an answer of another shape than z
    ``not_finite``                 NaN or infinity at z, or close to it
    ``raises``                     an exception at a point close to z
    ``writes_input``               z, v, args or row_args have other bits after a call
    ``changes_between_calls``      equal calls with unequal answers: dropout, noise, counters, schedules
    ``keeps_state``                the same, but only after another point was asked about: momentum, averages
    ``rows_influence_each_other``  moving one row moves the answer in another: batch norm, a softmax over the batch
    ``row_args_not_per_row``       some rows alone, with their row_args, get other answers or an exception: shared data
                                   in ``row_args``, row data that do not come through it, statistics over row data
    ``ignores_z``                  the same answer everywhere
    ``wrong_jvp``, ``wrong_vjp``   not the derivative of f, by central differences at three steps
    ``products_disagree``          (u, J v) and (J' u, v) differ by more than rounding
    =============================  =====================================================================================

    Derivatives are told apart from differences to some 1e-5 in float64, and to some percent in float32: audit maps in
    float64 where they can be. Kinks, as those of relu, are allowed for.

    It is a search: what it does not find may still be there, at other points and other inputs. z should be a typical
    state; a random one is better than zeros. The map is given copies that it can write to.

    J is written out for rows of up to 64 elements, by products if there are any, by differences if not. On wider rows
    the radius is that of :func:`spectral_radius`, and \\|J\\| comes from power iterations on J' J, to a few percent
    from below; without vjp there is no J', and the largest stretch of 60 products is no more than a bound from below,
    which can be half of \\|J\\|.

    Args:
        f: the map, ``f(z, *args, *row_args)``; or a native map, whose own products are then checked.
        z: where to look, a NumPy array, float32 or float64, shape ``(rows, ...)``; ``(width,)`` is one row.
        args: passed to the map whole.
        row_args: arrays with one entry per row; ``(injection,)`` for a :class:`maps.Dense`.
        pass_rows: also pass ``rows=``, the int32 indices of the rows asked about.
        vjp, jvp: the products that gradients use: ``vjp(z, v, *args, *row_args)`` returning J(z)' v, and ``jvp``
            returning J(z) v, of the shape and dtype of v.
        calls: equal calls that are compared, at least 2; more find rarer changes.
        seed: of the directions and distances, at least 0.

    Returns:
        An :class:`Audit`. What is wrong with the map is a finding, and nothing is raised for it.

    Raises:
        TypeError: an argument of the wrong kind or dtype, an unknown option.
        ValueError: an argument out of range or of the wrong shape, or not finite.
        Exception: whatever the map raises at z itself, unchanged.

    Example:
        >>> import numpy as np, deqcore
        >>> rng = np.random.default_rng(0)
        >>> W, x, z = 0.1 * rng.standard_normal((8, 8)), *rng.standard_normal((2, 4, 8))
        >>> layer = lambda z, x: np.tanh(z @ W.T + x)
        >>> forgot_the_slope = lambda z, v, x: v @ W
        >>> [finding.name for finding in deqcore.audit(layer, z, row_args=(x,), vjp=forgot_the_slope).findings]
        ['wrong_vjp']
        >>> deqcore.audit(deqcore.maps.Dense(W), z, row_args=(x,)).ok
        True
    """
    if unknown:
        refuse_unknown("audit", unknown, _OPTIONS)
    if not callable(f):
        raise TypeError(f"f: {describe(f)} given; expected a callable or a map from deqcore.maps")
    for name, product in (("vjp", vjp), ("jvp", jvp)):
        if product is not None and not callable(product):
            raise TypeError(f"{name}: {describe(product)} given; expected {name}(z, v, ...)")
    state = host_state(z, "z")
    check_args(args, row_args)
    pass_rows = flag(pass_rows, "pass_rows")
    calls, seed = at_least(calls, "calls", 2), at_least(seed, "seed", 0)
    if isinstance(f, Dense):
        row_args = (f._per_row(f._injection(args, row_args, pass_rows, state), state),)
        vjp, jvp = vjp or f.vjp, jvp or f.jvp
    search = _Search(f, state, args, row_args, pass_rows, vjp, jvp, calls, np.random.default_rng(seed))
    with np.errstate(all="ignore"):  # a map that leaves its domain is a finding, not a warning
        search.run()
        norm, radius, how = _sizes(search, seed)
    return Audit(tuple(search.findings), norm, radius, how, tuple(search.not_checked), state.width)


_OPTIONS = keyword_options(audit)


class _Unusable(Exception):
    """An answer that nothing more can be learnt from."""


class _Search:
    """The checks, in order, and what they have found."""

    def __init__(
        self,
        f: Callable[..., Any],
        state: State,
        args: tuple[Any, ...],
        row_args: tuple[Any, ...],
        pass_rows: bool,
        vjp: Callable[..., Any] | None,
        jvp: Callable[..., Any] | None,
        calls: int,
        rng: np.random.Generator,
    ) -> None:
        self.maps: dict[str, Callable[..., Any]] = {"f": f}
        self.maps |= {name: map for name, map in (("jvp", jvp), ("vjp", vjp)) if map is not None}
        self.state, self.args, self.row_args, self.pass_rows = state, args, row_args, pass_rows
        self.calls, self.rng = calls, rng
        self.eps = float(np.finfo(state.dtype).eps)
        self.findings: list[Finding] = []
        self.not_checked: list[str] = []
        self.gathers = len(state.shape) > 1  # else there is one row, and nothing is gathered
        self.products_usable = True
        self.value = np.full(state.block.shape, math.nan)
        self.scale = np.ones(state.rows)
        self.finite = np.zeros(state.rows, bool)

    # ------------------------------------------------------------------------------------------------------ calling

    def found(self, name: str, words: str, rows: Any = ()) -> None:
        """Note it, once per name."""
        if not any(finding.name == name for finding in self.findings):
            self.findings.append(Finding(name, words, tuple(int(row) for row in rows)))

    def ask(self, name: str, *blocks: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """What a map says about blocks ``(rows, width)``, checked, at float64."""
        state = self.state
        shape = state.shape if rows is None else state.question_shape(len(rows))
        at = np.arange(state.rows) if rows is None else rows
        data = self.row_args if rows is None else tuple(np.take(array, rows, axis=0) for array in self.row_args)
        given = [np.array(block, state.dtype).reshape(shape) for block in blocks]
        given += [x.copy() if isinstance(x, np.ndarray) else x for x in (*self.args, *data)]
        arrays = [x for x in given if isinstance(x, np.ndarray)]
        before = [x.tobytes() for x in arrays]
        options = {"rows": at.astype(np.int32)} if self.pass_rows else {}
        answer = self.maps[name](*given, **options)
        result = self.checked(name, answer, shape, len(at))  # before a map's own buffer is looked at again
        for i, (array, bits) in enumerate(zip(arrays, before, strict=True)):
            if array.tobytes() != bits:
                what = ("z", "v")[i] if i < len(blocks) else "args or row_args"
                self.found(
                    "writes_input",
                    f"{name} wrote to {what}, which belongs to the solver: return a new array, as z + 1 does and "
                    f"z += 1 does not (the solvers hand over read-only arrays, on which it would fail)",
                )
        return result

    def checked(self, name: str, answer: Any, shape: tuple[int, ...], rows: int) -> np.ndarray:
        """The answer as a block at float64; :class:`_Unusable` if it is none."""
        if not isinstance(answer, np.ndarray) or isinstance(answer, np.ma.MaskedArray):
            what = "None" if answer is None else describe(answer)
            self.found("no_array", f"{name} returned {what}; return a NumPy array of shape {shape}")
            raise _Unusable
        usable = True
        if answer.dtype != self.state.dtype:
            self.found(
                "wrong_dtype",
                f"{name} returned {answer.dtype} for {self.state.dtype}: look for data of another dtype that it uses, "
                f"or return answer.astype(z.dtype)",
            )
            usable = answer.dtype.kind == "f"
        if answer.shape != shape:
            self.found("wrong_shape", f"{name} returned shape {answer.shape}; return {shape}, that of its argument")
            usable = False
        if not usable:
            raise _Unusable
        return np.array(answer, np.float64).reshape(rows, -1)

    def near(self, name: str, *blocks: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray | None:
        """The same away from z, where an exception is a finding; None if there is no answer."""
        before = len(self.findings)
        try:
            return self.ask(name, *blocks, rows=rows)
        except _Unusable:
            if rows is not None:
                why = self.findings.pop() if len(self.findings) > before else ""
                self.found(
                    "row_args_not_per_row",
                    f"on {len(rows)} of {self.state.rows} rows with their row_args, {getattr(why, 'words', name)}; "
                    f"shared data (weights) go in args",
                )
            return None
        except Exception as error:  # whatever the map's domain makes it raise
            if rows is None:
                self.found(
                    "raises",
                    f"{name} raised {type(error).__name__} close to z ({error}): solvers try points around z; return "
                    f"NaN where there is no value, and the row ends as not_finite",
                )
            else:
                self.found(
                    "row_args_not_per_row",
                    f"{name} raised {type(error).__name__} on {len(rows)} of {self.state.rows} rows ({error}): data "
                    f"with one entry per row must all come through row_args, and shared data through args",
                )
            return None

    # ------------------------------------------------------------------------------------------------------ checks

    def run(self) -> None:
        """All checks. Later ones are left out where an earlier finding makes them say nothing."""
        state = self.state
        per_row = self.check_row_args()
        try:
            self.value = self.ask("f", state.block)
        except _Unusable:
            self.value = np.full(state.block.shape, math.nan)
            self.not_checked.append("everything else (no usable answer)")
            self.maps = {}
            return
        finite = np.isfinite(self.value).all(axis=1)
        if not finite.all():
            bad = np.flatnonzero(~finite)
            self.found(
                "not_finite",
                f"f answered NaN or infinity at z in {_named(bad)}: check its inputs and its domain",
                bad,
            )
        sizes = np.maximum(np.abs(state.block).max(axis=1), np.where(finite, np.abs(self.value).max(axis=1), 0))
        self.scale = np.where((sizes > 0) & np.isfinite(sizes), sizes, 1.0)
        self.finite = finite
        if not finite.any():
            self.not_checked.append("everything else (not finite in any row)")
            self.maps = {}
            return
        repeats = self.repeatable()
        if repeats:
            self.check_rows()
            if not self.row_args:
                self.not_checked.append("row_args (none given)")
            elif not self.gathers or state.rows == 1:
                self.not_checked.append("row_args (one row)")
            elif per_row:
                self.check_subsets()
            self.check_constant()
            self.check_products()
            if self.repeated("after other points were asked about", "keeps_state"):
                return
        self.not_checked.append("what follows from comparing calls (equal calls differ)")
        self.maps = {}

    def check_row_args(self) -> bool:
        """Whether every row argument has an entry per row."""
        for i, array in enumerate(self.row_args):
            right = isinstance(array, np.ndarray) and array.ndim > 0 and array.shape[0] == self.state.rows
            if self.gathers and not right:
                self.found(
                    "row_args_not_per_row",
                    f"row_args[{i}] is {describe(array)}, not an array with one entry for each of {self.state.rows} "
                    f"rows: give shared data in args",
                )
                return False
        return True

    def differs(self, a: np.ndarray, b: np.ndarray, factor: float = 16.0, scale: Any = None) -> np.ndarray:
        """Rows whose answers differ by more than rounding; NaN equals NaN."""
        scale = self.scale if scale is None else scale
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        apart = np.where(same, 0, np.abs(a - b))
        return np.flatnonzero(~(apart.max(axis=1) <= factor * self.eps * scale))

    def repeated(self, when: str, name: str) -> bool:
        """Whether f says of z what it said at first."""
        again = self.near("f", self.state.block)
        if again is None:
            return False
        rows = self.differs(again, self.value)
        if len(rows):
            advice = (
                "switch to evaluation mode (dropout, batch norm), or draw masks and noise once per solve and pass "
                "them in row_args"
                if name == "changes_between_calls"
                else "running averages, caches and counters must not move while a solve runs"
            )
            self.found(name, f"f(z) changed {when} in {_named(rows)}: {advice}", rows)
        return not len(rows)

    def repeatable(self) -> bool:
        """Equal calls in a row; then one after another point, and one after a call on fewer rows."""
        if not all(self.repeated("from call to call", "changes_between_calls") for _ in range(self.calls - 1)):
            return False
        self.near("f", self.state.block + self.steps(1.0))
        return self.repeated("after another point was asked about", "keeps_state")

    def steps(self, size: float) -> np.ndarray:
        """Random directions, elements of about ``size`` times the row's scale."""
        return size * self.scale[:, None] * self.rng.standard_normal(self.state.block.shape)

    def check_rows(self) -> None:
        """Move one row, and look at the others."""
        state = self.state
        if state.rows == 1:
            self.not_checked.append("rows influencing each other (one row)")
            return
        for row in {0, state.rows // 2, state.rows - 1}:
            for size in (0.1, 1.0):
                moved = state.block.astype(np.float64)
                moved[row] += self.steps(size)[row]
                answer = self.near("f", moved)
                if answer is None:
                    continue
                others = self.differs(answer, self.value)
                others = others[(others != row) & self.finite[others]]
                if len(others):
                    self.found(
                        "rows_influence_each_other",
                        f"moving row {row} of z changed the answer in {_named(others)}: rows are solved and end by "
                        f"themselves, so statistics over the batch (batch norm in training mode, a mean or softmax "
                        f"over axis 0) must be fixed beforehand; or make the whole batch one row",
                        others,
                    )
                    return

    def check_subsets(self) -> None:
        """Ask about some rows with their row data, as a solve does once others have ended."""
        state = self.state
        if any(finding.name == "rows_influence_each_other" for finding in self.findings):
            self.not_checked.append("row_args (rows influence each other)")
            return
        # A product of other shape sums in another order: rounding like that of a sum of width terms.
        factor = 64 * (1 + math.sqrt(state.width))
        some = self.rng.permutation(state.rows)[: (state.rows + 1) // 2]
        for rows in (some, np.array([state.rows - 1])):
            answer = self.near("f", state.block[rows], rows=rows)
            if answer is None:
                continue
            wrong = rows[self.differs(answer, self.value[rows], factor, self.scale[rows])]
            if len(wrong):
                self.found(
                    "row_args_not_per_row",
                    f"asked about {len(rows)} of {state.rows} rows with their row_args, f answered otherwise in "
                    f"{_named(wrong)}: row_args are gathered to the rows that are left, so give shared data (weights) "
                    f"in args, and all data with one entry per row in row_args; fix statistics over the batch",
                    wrong,
                )
                return

    def check_constant(self) -> None:
        """Move everything, further and further."""
        answered = False
        for size in (0.1, 1.0, 10.0, 10.0):
            answer = self.near("f", self.state.block + self.steps(size))
            if answer is not None:
                answered = True
                bad = np.flatnonzero(~np.isfinite(answer).all(axis=1) & self.finite)
                if len(bad) and size < 1:
                    self.found(
                        "not_finite",
                        f"f answered NaN or infinity close to z, by a tenth of its size, in {_named(bad)}: solvers "
                        f"try points around z, and such rows end as not_finite",
                        bad,
                    )
                if (answer != self.value)[self.finite].any():
                    return
        if answered:
            self.found("ignores_z", "f(z) is the same for every z tried: the answer does not depend on the state")

    # ------------------------------------------------------------------------------------------------------ products

    def differences(self, v: np.ndarray, h: float) -> tuple[np.ndarray, np.ndarray] | None:
        """J v by a central difference, whose points lie h times the row's scale from z in the largest element of v.

        Also half of how far the differences to both sides are apart, which is what a kink at z can make it wrong by.
        """
        length = np.abs(v).max(axis=1)
        step = (h * self.scale / np.where(length > 0, length, 1))[:, None]
        above, below = (self.near("f", self.state.block + sign * step * v) for sign in (1, -1))
        if above is None or below is None:
            return None
        return (above - below) / (2 * step), np.abs(above - 2 * self.value + below) / (2 * step)

    def difference(self, v: np.ndarray) -> np.ndarray | None:
        """J v by the step that is best for smooth maps."""
        both = self.differences(v, self.eps ** (1 / 3))
        return None if both is None else both[0]

    def check_products(self) -> None:
        """The products against differences, and against each other."""
        products = [name for name in ("jvp", "vjp") if name in self.maps]
        if not products:
            self.not_checked.append("products (no jvp, vjp given)")
            return
        state, width = self.state, self.state.width
        usable = self.finite.copy()
        # Of each product: errors and what is allowed, in squares, summed over the probes.
        sums = {name: np.zeros((2, state.rows)) for name in products}
        apart = np.zeros((2, state.rows))
        # From the step with the least rounding to the one with the least truncation; kinks shrink with the step.
        sizes = [self.eps ** (1 / 4), self.eps ** (1 / 3), self.eps ** (1 / 2)]
        loose = 1e-6 if state.dtype == np.float64 else 3e-3
        for _ in range(_PROBES):
            u, v = self.rng.standard_normal((2, *state.block.shape)).astype(state.dtype).astype(np.float64)
            differences = [self.differences(v, h) for h in sizes]
            answers: dict[str, np.ndarray] = {}
            for name in products:
                direction = v if name == "jvp" else u
                answer, again = (self.product(name, direction) for _ in range(2))
                if answer is None or again is None:
                    self.products_usable = False
                    return
                if not np.isfinite(answer[usable]).all():
                    bad = np.flatnonzero(~np.isfinite(answer).all(axis=1) & usable)
                    self.found("not_finite", f"{name} answered NaN or infinity at z in {_named(bad)}", bad)
                    self.products_usable = False
                    return
                moved = self.differs(again, answer, 16, np.maximum(np.abs(answer).max(axis=1), 1e-300))
                if len(moved := moved[usable[moved]]):
                    self.found(
                        "changes_between_calls",
                        f"{name}(z, v) changed from call to call in {_named(moved)}: draw masks once per solve",
                        moved,
                    )
                    self.products_usable = False
                    return
                answers[name] = answer
            lengths = {name: np.linalg.norm(a, axis=1) for name, a in answers.items()}
            size_u, size_v = np.linalg.norm(u, axis=1), np.linalg.norm(v, axis=1)
            # At the step that tells most: per row, the error where the least is allowed.
            best = {name: np.full((2, state.rows), math.inf) for name in products}
            for h, both in zip(sizes, differences, strict=True):
                if both is None:
                    continue
                D, kink = both
                size_D = np.linalg.norm(D, axis=1)
                # Rounding of the points and of the values, as seen through the step.
                noise = (2 + math.sqrt(width) / 20) * self.eps / h * math.sqrt(width) * np.abs(v).max(axis=1)
                noise *= np.maximum(1, size_D / size_v)
                if "jvp" in answers:
                    wrong = np.linalg.norm(answers["jvp"] - D, axis=1)
                    allowed = loose * (lengths["jvp"] + size_D) + noise + 1.01 * np.linalg.norm(kink, axis=1)
                    best["jvp"] = np.where(allowed < best["jvp"][1], (wrong, allowed), best["jvp"])
                if "vjp" in answers:
                    wrong = np.abs(np.einsum("rj,rj->r", u, D) - np.einsum("rj,rj->r", answers["vjp"], v))
                    # Of numbers with random signs, as those of a wrong product are; so are kinks.
                    allowed = loose * (size_u * size_D + lengths["vjp"] * size_v) / math.sqrt(width) + noise
                    allowed += 3 * np.linalg.norm(u * kink, axis=1)
                    best["vjp"] = np.where(allowed < best["vjp"][1], (wrong, allowed), best["vjp"])
            for name in products:
                told = np.isfinite(best[name]).all(axis=0)
                sums[name] += np.where(told, np.square(best[name]), 0)
            if len(products) == 2:
                left, right = u * answers["jvp"], answers["vjp"] * v
                allowed = (lengths["jvp"] * size_u + lengths["vjp"] * size_v) / 2
                allowed = np.where(allowed > 0, allowed, 1) * 32 * (1 + math.sqrt(width)) * self.eps
                apart += np.square((left.sum(axis=1) - right.sum(axis=1), allowed))
        for name in products:
            bad = np.flatnonzero((sums[name][0] > sums[name][1]) & usable)
            if len(bad):
                product, hint = ("J(z) v", "") if name == "jvp" else ("J(z)' v", ", or J v in place of J' v")
                self.found(
                    f"wrong_{name}",
                    f"{name} is not {product} by differences of f in {_named(bad)}: look for a forgotten slope, an "
                    f"argument that was detached{hint}",
                    bad,
                )
        bad = np.flatnonzero((apart[0] > apart[1]) & usable)
        if len(bad):
            self.found(
                "products_disagree",
                f"(u, J v) and (J' u, v) differ in {_named(bad)}: jvp and vjp are not of the same J",
                bad,
            )

    def product(self, name: str, direction: np.ndarray) -> np.ndarray | None:
        return self.near(name, self.state.block, direction)


def _sizes(search: _Search, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """-> |J|, spectral radius, how."""
    state, nothing = search.state, np.full(search.state.rows, math.nan)
    if any(finding.name == "rows_influence_each_other" for finding in search.findings):
        search.not_checked.append("|J| of each row (rows influence each other)")
        return nothing, nothing.copy(), ""
    if not search.maps:
        return nothing, nothing.copy(), ""
    before = len(search.findings)

    def answered(answer: np.ndarray | None) -> np.ndarray:
        return np.full(state.block.shape, math.nan) if answer is None else answer

    def by_product(name: str) -> Callable[[np.ndarray], np.ndarray]:
        return lambda v: answered(search.product(name, v))

    usable = {name: by_product(name) for name in ("jvp", "vjp") if name in search.maps and search.products_usable}
    forward = usable.get("jvp", lambda v: answered(search.difference(v)))
    backward = usable.get("vjp")
    either = usable.get("jvp") or backward or forward
    if state.width <= _ASSEMBLED:
        norm, radius = _written_out(either, state)
        how = "exact"
    else:

        def product(z: np.ndarray, v: np.ndarray) -> np.ndarray:
            return either(v.astype(np.float64)).astype(state.dtype)

        norm = _stretch([forward, backward] if backward else [forward], state, np.random.default_rng(seed))
        radius = spectral_radius(product, state.block, steps=2 * _STEPS, seed=seed)
        norm = np.where(np.isfinite(norm), np.fmax(norm, radius), math.nan)  # |J| is no smaller than that
        how = "estimate" if backward else "at_least"
    del search.findings[before:]  # of points that only the estimates went to
    return np.where(search.finite, norm, math.nan), np.where(search.finite, radius, math.nan), how


def _written_out(multiply: Callable[[np.ndarray], np.ndarray], state: State) -> tuple[np.ndarray, np.ndarray]:
    J = np.empty((state.rows, state.width, state.width))
    unit = np.zeros(state.block.shape)
    for i in range(state.width):
        unit[:, i] = 1
        J[:, :, i] = multiply(unit)  # or J', which has the same norm and spectrum
        unit[:, i] = 0
    norm, radius = np.full((2, state.rows), math.nan)
    for r in np.flatnonzero(np.isfinite(J).all(axis=(1, 2))):
        norm[r] = np.linalg.norm(J[r], 2)
        radius[r] = np.abs(np.linalg.eigvals(J[r])).max()
    return norm, radius


def _stretch(order: list[Callable[[np.ndarray], np.ndarray]], state: State, rng: np.random.Generator) -> np.ndarray:
    """The largest |J v| / |v| on the way of a power iteration: on J' J, or on J alone."""
    v = rng.standard_normal(state.block.shape)
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    most = np.zeros(state.rows)
    for step in range(2 * _STEPS if len(order) == 2 else _STEPS):
        v = order[step % len(order)](v)
        length = np.linalg.norm(v, axis=1)
        most = np.maximum(most, length)  # NaN stays
        v = v / np.where(length > 0, length, 1)[:, None]
    return most


def _named(members: np.ndarray) -> str:
    """How many rows, and the first few."""
    shown = ", ".join(map(str, members[:5])) + (", ..." if len(members) > 5 else "")
    many = len(members) != 1
    return f"{len(members)} row{'s' * many} (row{'s' * many} {shown})"
