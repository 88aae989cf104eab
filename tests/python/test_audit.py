# SPDX-License-Identifier: Apache-2.0
"""A zoo of broken maps, each with what must be found in it, and healthy ones, in which nothing must be."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from deqcore import maps
from deqcore._audit import Audit, Finding, audit
from deqcore.maps import Dense
from support.problems import dense_jacobians, weights

ROWS, WIDTH = 6, 6  # as many rows as elements: what is shared can pass for row data


class Setting:
    """Data for the maps of the zoo."""

    def __init__(self, dtype, seed=0):
        rng = np.random.default_rng(seed)
        self.dtype, self.rng = dtype, rng
        self.W = weights(rng, WIDTH).astype(dtype)
        self.x, self.z = rng.standard_normal((2, ROWS, WIDTH)).astype(dtype)

    def f(self, z, x):
        return np.tanh(z @ self.W.T + x)

    def jvp(self, z, v, x):
        return (1 - np.tanh(z @ self.W.T + x) ** 2) * (v @ self.W.T)

    def vjp(self, z, v, x):
        return ((1 - np.tanh(z @ self.W.T + x) ** 2) * v) @ self.W

    def audit(self, f=None, **options):
        return audit(f or self.f, self.z, **({"row_args": (self.x,)} | options))


# ------------------------------------------------------------------------------------------------------------- the zoo

ZOO = {}


def broken(*names):
    """Register an audit of a broken map; ``names``: what must be found, any of them."""

    def register(make):
        ZOO[make.__name__] = (make, names)
        return make

    return register


@broken("changes_between_calls")
def dropout(s):
    return s.audit(lambda z, x: s.f(z, x) * (s.rng.random(z.shape) < 0.9))


@broken("changes_between_calls")
def tiny_noise(s):
    return s.audit(
        lambda z, x: s.f(z, x) + (1e3 * np.finfo(s.dtype).eps * s.rng.standard_normal(z.shape)).astype(z.dtype)
    )


@broken("changes_between_calls")
def global_counter(s):
    count = [0]

    def f(z, x):
        count[0] += 1
        return s.f(z, x) / s.dtype(count[0])

    return s.audit(f)


@broken("changes_between_calls", "keeps_state")
def schedule_that_moves_every_fifth_call(s):
    count = [0]

    def f(z, x):
        count[0] += 1
        return s.f(z, x) * s.dtype(0.99 ** (count[0] // 5))

    return s.audit(f)


@broken("changes_between_calls")
def running_average_in_the_answer(s):
    mean = np.zeros(WIDTH, s.dtype)

    def f(z, x):
        mean[:] = 0.9 * mean + 0.1 * z.mean(axis=0)
        return s.f(z - mean, x)

    return s.audit(f)


@broken("changes_between_calls")
def momentum_buffer(s):
    last = [np.zeros((ROWS, WIDTH), s.dtype)]

    def f(z, x):
        last[0] = s.f(z, x) + s.dtype(0.1) * last[0]
        return last[0]

    return s.audit(f)


@broken("keeps_state")
def inertia_from_the_last_point(s):
    last = [s.z]

    def f(z, x):
        moved, last[0] = z - last[0], z.copy()
        return s.f(z, x) + s.dtype(0.1) * moved

    return s.audit(f)


@broken("rows_influence_each_other")
def batch_norm_in_training_mode(s):
    def f(z, x):
        y = z @ s.W.T + x
        return np.tanh((y - y.mean(axis=0)) / (y.std(axis=0) + s.dtype(1e-5)))

    return s.audit(f)


@broken("rows_influence_each_other")
def mean_of_the_batch(s):
    return s.audit(lambda z, x: s.f(z, x) + s.dtype(0.1) * z.mean(axis=0))


@broken("rows_influence_each_other")
def softmax_over_the_batch(s):
    def f(z, x):
        e = np.exp(z + x)
        return e / e.sum(axis=0)

    return s.audit(f)


@broken("rows_influence_each_other")
def norm_of_the_whole_batch(s):
    return s.audit(lambda z, x: s.f(z, x) / np.linalg.norm(z).astype(z.dtype))


@broken("rows_influence_each_other")
def neighbouring_rows(s):
    return s.audit(lambda z, x: s.f(np.roll(z, 1, axis=0), x))


@broken("rows_influence_each_other")
def batch_mean_without_row_args(s):
    return s.audit(lambda z: s.f(z, s.x) + s.dtype(0.1) * z.mean(axis=0), row_args=())


@broken("rows_influence_each_other")
def mean_of_a_large_batch(s):
    z = s.rng.standard_normal((20_000, 2)).astype(s.dtype)
    return audit(lambda z: 0.5 * z + z.mean(axis=0), z)


@broken("row_args_not_per_row")
def mean_of_the_row_data(s):
    return s.audit(lambda z, x: s.f(z, x - x.mean(axis=0)))


@broken("row_args_not_per_row")
def weights_as_row_data(s):
    return s.audit(lambda z, W: np.tanh(z @ W.T), row_args=(s.W,))


@broken("row_args_not_per_row")
def bias_as_row_data(s):
    return s.audit(lambda z, b: np.tanh(z @ s.W.T + np.resize(b, WIDTH)), row_args=(s.x[0],))


@broken("row_args_not_per_row")
def one_row_for_all_as_row_data(s):
    return s.audit(lambda z, b: np.tanh(z @ s.W.T + b), row_args=(s.x[:1],))


@broken("row_args_not_per_row")
def row_data_in_the_closure_too(s):
    return s.audit(lambda z, x: s.f(z, x) + s.dtype(0.1) * s.x)


@broken("row_args_not_per_row")
def row_data_in_the_closure_by_position(s):
    return s.audit(lambda z, x: s.f(z, x) + s.dtype(0.1) * s.x[: len(z)])


@broken("writes_input")
def writes_to_its_input(s):
    def f(z, x):
        z *= s.dtype(0.5)
        return s.f(z, x)

    return s.audit(f)


@broken("writes_input")
def answers_in_its_input(s):
    def f(z, x):
        np.tanh(z @ s.W.T + x, out=z)
        return z

    return s.audit(f)


@broken("writes_input")
def writes_to_its_row_data(s):
    def f(z, x):
        x += z @ s.W.T
        return np.tanh(x)

    return s.audit(f)


@broken("writes_input")
def writes_to_its_shared_data(s):
    def f(z, b):
        b += s.dtype(1)
        return np.tanh(z @ s.W.T + b)

    return s.audit(f, args=(s.x[0],), row_args=())


@broken("writes_input")
def product_that_writes_to_its_direction(s):
    def vjp(z, v, x):
        v *= 1 - s.f(z, x) ** 2
        return v @ s.W

    return s.audit(vjp=vjp)


@broken("wrong_dtype")
def another_dtype(s):
    return s.audit(lambda z, x: s.f(z, x).astype(np.float32 if s.dtype == np.float64 else np.float64))


@broken("wrong_dtype")
def integers(s):
    return s.audit(lambda z, x: np.sign(z).astype(int))


@broken("wrong_shape")
def another_shape(s):
    return s.audit(lambda z, x: s.f(z, x)[:, :-1])


@broken("wrong_shape")
def flattened(s):
    return s.audit(lambda z, x: s.f(z, x).ravel())


@broken("no_array")
def no_answer(s):
    return s.audit(lambda z, x: None)


@broken("no_array")
def a_list(s):
    return s.audit(lambda z, x: s.f(z, x).tolist())


@broken("not_finite")
def nan_in_one_row(s):
    return s.audit(lambda z, x: np.where(x == s.x[2], s.dtype(np.nan), s.f(z, x)))


@broken("not_finite")
def infinite_everywhere(s):
    return s.audit(lambda z, x: z / s.dtype(0))


@broken("not_finite")
def log_at_the_edge_of_its_domain(s):
    return audit(lambda z: np.sqrt(z), np.full((ROWS, WIDTH), 1e-3, s.dtype) * np.array([[1]] + [[0]] * 5, s.dtype))


@broken("raises")
def raises_close_to_z(s):
    def f(z, x):
        if (z != s.z).any():
            raise ArithmeticError("outside")
        return s.f(z, x)

    return s.audit(f)


@broken("ignores_z")
def constant(s):
    return s.audit(lambda z, x: np.tanh(x))


@broken("ignores_z")
def remembers_its_first_answer(s):
    memory = {}

    def f(z, x):
        return memory.setdefault(len(z), s.f(z, x))

    return s.audit(f)


@broken("wrong_vjp")
def vjp_without_the_slope(s):
    return s.audit(vjp=lambda z, v, x: v @ s.W)


@broken("wrong_vjp")
def vjp_not_transposed(s):
    return s.audit(vjp=s.jvp)


@broken("wrong_vjp")
def vjp_at_another_point(s):
    return s.audit(vjp=lambda z, v, x: s.vjp(s.f(z, x), v, x))


@broken("wrong_vjp")
def vjp_of_zeros(s):
    return s.audit(vjp=lambda z, v, x: np.zeros_like(v))


@broken("wrong_vjp")
def vjp_wrong_in_one_row(s):
    return s.audit(vjp=lambda z, v, x: s.vjp(z, v, x) * np.where(x == s.x[4], 2, 1).astype(s.dtype))


@broken("wrong_vjp")
def vjp_of_i_minus_j(s):
    return s.audit(vjp=lambda z, v, x: v - s.vjp(z, v, x))


@broken("wrong_jvp")
def jvp_with_the_wrong_sign(s):
    return s.audit(jvp=lambda z, v, x: -s.jvp(z, v, x))


@broken("wrong_jvp")
def jvp_three_percent_too_long(s):
    return s.audit(jvp=lambda z, v, x: s.dtype(1.03) * s.jvp(z, v, x))


@broken("wrong_vjp")
def vjp_three_percent_too_long(s):
    return s.audit(vjp=lambda z, v, x: s.dtype(1.03) * s.vjp(z, v, x))


@broken("wrong_vjp")
def vjp_of_wide_relu_a_tenth_too_long(s):
    W, (z, x) = s.rng.standard_normal((300, 300)) / 300**0.5, s.rng.standard_normal((2, 3, 300))
    W, z, x = (a.astype(s.dtype) for a in (W, z, x))
    vjp = lambda z, v, x: s.dtype(1.1) * (((z @ W.T + x > 0) * v) @ W)  # noqa: E731
    return audit(lambda z, x: np.maximum(z @ W.T + x, 0), z, row_args=(x,), vjp=vjp)


@broken("products_disagree")
def products_of_weights_that_differ_a_little(s):
    W = s.W * s.dtype(1 + 1e-3)
    return s.audit(jvp=s.jvp, vjp=lambda z, v, x: ((1 - s.f(z, x) ** 2) * v) @ W)


@broken("changes_between_calls")
def dropout_in_the_product(s):
    return s.audit(vjp=lambda z, v, x: s.vjp(z, v, x) * (s.rng.random(z.shape) < 0.9))


@broken("wrong_dtype", "wrong_shape", "no_array")
def product_of_another_shape(s):
    return s.audit(vjp=lambda z, v, x: s.vjp(z, v, x)[0])


@broken("not_finite")
def product_with_nan(s):
    return s.audit(vjp=lambda z, v, x: s.vjp(z, v, x) * s.dtype(np.nan))


@pytest.mark.parametrize("name", ZOO)
def test_what_is_broken_is_found(name, dtype):
    make, expected = ZOO[name]
    for seed in range(3):
        found = make(Setting(dtype, seed))
        names = [finding.name for finding in found.findings]
        assert not found.ok
        assert set(names) & set(expected), (names, expected)
        assert len(set(names)) == len(names)
        assert all(name in str(found) for name in names)
        assert len(names) <= 2, names  # one cause, few words


def test_the_rows_are_named(dtype):
    s = Setting(dtype)
    assert nan_in_one_row(s).findings[0].rows == (2,)
    assert vjp_wrong_in_one_row(s).findings[0].rows == (4,)
    assert "in 1 row (row 4)" in str(vjp_wrong_in_one_row(s))


# ---------------------------------------------------------------------------------------------------------- the healthy


def healthy(dtype, seed):
    """Name -> an audit that must find nothing."""
    s = Setting(dtype, seed)
    rng = s.rng
    products = {"jvp": s.jvp, "vjp": s.vjp}
    A = rng.standard_normal((ROWS, WIDTH, WIDTH)).astype(dtype)
    kernel = rng.standard_normal((3, 3)).astype(dtype)
    wide = (rng.standard_normal((200, 200)) / 200**0.5).astype(dtype)
    states = rng.standard_normal((4, 200)).astype(dtype)
    image = rng.standard_normal((5, 3, 8)).astype(dtype)
    buffer = np.empty((ROWS, WIDTH), dtype)

    def affine(z, A, x):
        return np.einsum("rij,rj->ri", A, z) + x

    def of_images(z, x):  # mixes channels and neighbours, one sample at a time
        return np.tanh(np.einsum("cd,rdh->rch", kernel, np.roll(z, 1, axis=2)) + x)

    def in_a_buffer(z, x):
        return np.tanh(z @ s.W.T + x, out=buffer[: len(z)])

    def layer_norm(z, x):
        y = z @ s.W.T + x
        return (y - y.mean(axis=1, keepdims=True)) / (y.std(axis=1, keepdims=True) + dtype(0.1))

    def by_rows(z, rows):
        return np.tanh(z @ s.W.T + s.x[rows])

    mask = (rng.random((ROWS, WIDTH)) < 0.8).astype(dtype)
    made = {
        "tanh": s.audit(),
        "tanh with products": s.audit(**products),
        "vjp alone": s.audit(vjp=s.vjp),
        "affine": s.audit(affine, row_args=(A, s.x)),
        "affine with products": s.audit(
            affine,
            row_args=(A, s.x),
            jvp=lambda z, v, A, x: np.einsum("rij,rj->ri", A, v),
            vjp=lambda z, v, A, x: np.einsum("rij,ri->rj", A, v),
        ),
        "of shared weights": s.audit(lambda z, W, x: np.tanh(z @ W.T + x), args=(s.W,)),
        "of images": audit(of_images, image, row_args=(image[::-1],)),
        "one row": audit(lambda z: np.tanh(s.W @ z), s.z[0]),
        "one row of a batch": audit(s.f, s.z[:1], row_args=(s.x[:1],), **products),
        "in a buffer of its own": s.audit(in_a_buffer),
        "layer norm": s.audit(layer_norm),
        "row data in the closure, and no row_args": audit(lambda z: s.f(z, s.x), s.z),
        "row data by the rows' indices": audit(by_rows, s.z, pass_rows=True),
        "dropout with a mask per solve": s.audit(lambda z, x, m: s.f(z, x) * m, row_args=(s.x, mask)),
        "transposed answers": s.audit(lambda z, x: np.tanh(s.W @ z.T + x.T).T),
        "width 1": audit(np.cos, s.z[:, :1]),
        "z = 0": audit(lambda z: np.tanh(z @ s.W.T) * dtype(0.5), np.zeros((ROWS, WIDTH), dtype)),
        "small numbers": audit(lambda z: dtype(0.5) * z, s.z * dtype(1e-20)),
        "large numbers": audit(lambda z, c: dtype(0.5) * z + c, s.z * dtype(1e20), row_args=(s.x * dtype(1e20),)),
        "wide": audit(lambda z, x: np.tanh(z @ wide.T + x), states, row_args=(states,)),
        "wide relu with products": audit(
            lambda z, x: np.maximum(z @ wide.T + x, 0),
            states,
            row_args=(states,),
            jvp=lambda z, v, x: (z @ wide.T + x > 0) * (v @ wide.T),
            vjp=lambda z, v, x: ((z @ wide.T + x > 0) * v) @ wide,
        ),
        "relu at its kinks": audit(
            lambda z: np.maximum(z, 0) * dtype(0.5),
            np.zeros((ROWS, WIDTH), dtype),
            jvp=lambda z, v: (z > 0) * v * dtype(0.5),
            vjp=lambda z, v: (z > 0) * v * dtype(0.5),
        ),
        "strong": audit(
            lambda z, x: 100 * np.sin(z @ s.W.T + x),
            s.z,
            row_args=(s.x,),
            jvp=lambda z, v, x: 100 * np.cos(z @ s.W.T + x) * (v @ s.W.T),
            vjp=lambda z, v, x: (100 * np.cos(z @ s.W.T + x) * v) @ s.W,
        ),
        "a relu that is off in some rows": audit(lambda z: np.maximum(z - dtype(2), 0), s.z),
    }
    for activation in maps.activations:
        made[f"Dense {activation}"] = audit(Dense(s.W, activation), s.z, row_args=(s.x,))
    made["Dense, one injection"] = audit(Dense(wide), states, row_args=(states[0],))
    return made


@pytest.mark.parametrize("seed", range(4))
def test_the_healthy_are_cleared(seed, dtype):
    for name, found in healthy(dtype, seed).items():
        assert found.ok, f"{name}: {found}"
        assert "nothing wrong found" in str(found)
        assert np.isfinite(found.contraction).all(), name
        assert (found.spectral_radius <= found.contraction * 1.01).all(), name


# --------------------------------------------------------------------------------------------------------- the numbers


class TestSizes:
    @pytest.mark.parametrize("products", [(), ("jvp",), ("vjp",), ("jvp", "vjp")], ids=str)
    def test_narrow_rows_have_them_to_the_accuracy_of_j(self, products, dtype):
        s = Setting(dtype)
        found = s.audit(**{name: getattr(s, name) for name in products})
        J = dense_jacobians("tanh", s.W, s.z, s.x)
        rtol = 1e-4 if products and dtype == np.float32 else 2e-2 if dtype == np.float32 else 1e-7
        np.testing.assert_allclose(found.contraction, [np.linalg.norm(j, 2) for j in J], rtol=rtol)
        np.testing.assert_allclose(found.spectral_radius, np.abs(np.linalg.eigvals(J)).max(axis=1), rtol=rtol)
        assert found.how == "exact"

    @pytest.mark.parametrize("products", [(), ("jvp",), ("vjp",), ("jvp", "vjp")], ids=str)
    def test_wide_rows(self, products, dtype, rng):
        W, (z, x) = rng.standard_normal((120, 120)) / 120**0.5, rng.standard_normal((2, 3, 120))
        W, z, x = (a.astype(dtype) for a in (W, z, x))
        layer = Dense(W)
        given = {name: getattr(layer, name) for name in products}
        found = audit(lambda z, x: np.tanh(z @ W.T + x), z, row_args=(x,), **given)
        J = dense_jacobians("tanh", W, z, x)
        norms, radii = np.linalg.norm(J, 2, axis=(1, 2)), np.abs(np.linalg.eigvals(J)).max(axis=1)
        assert found.how == ("estimate" if "vjp" in products else "at_least")
        assert (found.contraction <= norms * 1.02).all()
        np.testing.assert_allclose(found.contraction, norms, rtol=0.06 if "vjp" in products else 0.6)
        np.testing.assert_allclose(found.spectral_radius, radii, rtol=0.1)
        if "vjp" not in products:
            assert "a contraction" not in str(found).replace("not a contraction", "")

    def test_an_expanding_map_is_healthy(self):
        found = audit(lambda z: -3 * z, np.ones((2, 3)))
        assert found.ok
        np.testing.assert_allclose(found.contraction, 3)
        assert "not a contraction" in str(found)
        assert "undamped Picard iteration runs away" in str(found)

    def test_nothing_is_measured_where_calls_differ(self):
        found = dropout(Setting(np.float64))
        assert np.isnan(found.contraction).all()
        assert "what follows from comparing calls" in str(found)


class TestTheCall:
    def test_the_map_is_called_a_few_times_and_inputs_stay(self):
        s = Setting(np.float64)
        count = [0]

        def f(z, x):
            count[0] += 1
            return s.f(z, x)

        before = s.z.copy(), s.x.copy()
        s.audit(f, vjp=s.vjp)
        assert count[0] < 60
        assert (s.z == before[0]).all()
        assert (s.x == before[1]).all()

    def test_inputs_stay_even_where_the_map_writes(self):
        s = Setting(np.float64)
        before = s.z.copy(), s.x.copy()
        writes_to_its_input(s), writes_to_its_row_data(s)
        assert (s.z == before[0]).all()
        assert (s.x == before[1]).all()

    def test_more_calls_find_rarer_changes(self):
        count = [0]

        def f(z):
            count[0] += 1
            return z * (0.5 if count[0] != 40 else 0.6)

        assert audit(f, np.ones((2, 70))).ok or count[0] >= 40
        count[0] = 0
        assert audit(f, np.ones((2, 70)), calls=45).findings[0].name == "changes_between_calls"

    def test_the_seed_decides(self):
        s = Setting(np.float64)
        assert s.audit().contraction.tolist() == s.audit().contraction.tolist()

    def test_what_the_map_raises_at_z_is_raised(self):
        with pytest.raises(ZeroDivisionError):
            audit(lambda z: 1 / 0, np.ones(3))

    def test_warnings_of_the_map_are_not_shown(self):
        assert audit(lambda z: np.log(z), np.full((2, 3), 0.01)).findings[0].name == "not_finite"

    def test_it_can_be_pickled_and_printed(self):
        found = constant(Setting(np.float64))
        again = pickle.loads(pickle.dumps(found))
        assert isinstance(again, Audit)
        assert again.findings == found.findings
        assert repr(found) == f"<Audit {str(found).splitlines()[0]}>"
        assert isinstance(found.findings[0], Finding)
        assert str(found.findings[0]) in found.explain()


z = np.zeros((3, 4))


def half(z, *args):
    return 0.5 * z


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: audit(1, z), TypeError, "^f: int given; expected a callable"),
        (lambda: audit(half, [0.0]), TypeError, "^z: list given; expected a NumPy array"),
        (lambda: audit(half, z + math.inf), ValueError, r"^z: inf at index \(0, 0\)"),
        (lambda: audit(half, z.astype(int)), TypeError, "^z: .*int64 given; expected dtype"),
        (lambda: audit(half, z, args=z), TypeError, "^args: .*expected a tuple"),
        (lambda: audit(half, z, row_args=z), TypeError, "^row_args: .*expected a tuple"),
        (lambda: audit(half, z, vjp=1), TypeError, "^vjp: int given"),
        (lambda: audit(half, z, calls=1), ValueError, "^calls: 1 given; expected at least 2"),
        (lambda: audit(half, z, calls=2.5), TypeError, r"^calls: 2\.5 given; expected an integer"),
        (lambda: audit(half, z, seed=-1), ValueError, "^seed: -1 given"),
        (lambda: audit(half, z, pass_rows=1), TypeError, "^pass_rows: 1 given; expected True or False"),
        (lambda: audit(half, z, call=3), TypeError, "has no option 'call'; did you mean 'calls'"),
        (lambda: audit(Dense(np.eye(4)), z), TypeError, "^row_args: 0 arrays given"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
