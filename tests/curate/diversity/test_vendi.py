import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.diversity import effective_rank, vendi
from embeddings.errors import EncoderMismatchError, SourceError, TooFewImagesError, UsageError
from embeddings.moments import fold_of
from embeddings.store import EmbeddingStore


def primal(x, q):
    """The definition, by the [n, n] kernel."""
    unit = np.asarray(x, np.float64) / np.linalg.norm(x, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    values = values[values > 1e-12]
    if q == 1:
        return np.exp(-(values * np.log(values)).sum())
    return 1 / values.max() if q == np.inf else (values**q).sum() ** (1 / (1 - q))


def test_known_answers():
    assert vendi(np.eye(6)).value == pytest.approx(6)
    assert vendi(np.ones((5, 3))).value == pytest.approx(1)
    assert vendi(np.repeat(np.eye(2), [1, 3], axis=0)).value == pytest.approx(1.7547653506)
    x = np.random.default_rng(0).normal(size=(500, 32))
    assert vendi(x).value == pytest.approx(30.962746457315, abs=1e-9)
    assert vendi(x, q=2).value == pytest.approx(30.026187467914, abs=1e-9)
    assert vendi(np.ones((1, 3))).value == pytest.approx(1)
    assert vendi(np.ones((1, 3))).low is None


@given(
    seed=st.integers(0, 99), n=st.integers(2, 30), d=st.integers(2, 30), q=st.sampled_from([0.0, 0.5, 1, 2, 3, np.inf])
)
def test_equals_the_definition_in_either_form_and_lies_within_its_ceiling(seed, n, d, q):
    x = np.random.default_rng(seed).normal(size=(n, d)) + 0.3
    found = vendi(x, q=q)
    assert found.value == pytest.approx(primal(x, q), rel=1e-9)
    assert 1 - 1e-9 <= found.value <= min(n, d) + 1e-9
    assert str(min(n, d)) in found.unit


def test_rotation_scale_precision_and_copies_of_everything_change_nothing():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 5)).astype(np.float16)
    turn, plain = np.linalg.qr(rng.normal(size=(5, 5)))[0], vendi(x).value
    assert vendi(9 * x.astype(np.float64) @ turn).value == pytest.approx(plain)
    assert vendi(x.astype(np.float64)).value == pytest.approx(plain)
    assert vendi(np.repeat(x, 7, axis=0)).value == pytest.approx(plain)
    # An offset is no invariance: with it all directions become alike.
    assert vendi(x + 100).value == pytest.approx(1, abs=0.01)


def test_rarefied_sets_of_different_size_agree_where_plain_ones_do_not():
    rng = np.random.default_rng(2)
    small, large = rng.normal(size=(150, 64)), rng.normal(size=(1500, 64))
    assert vendi(large).value > 1.15 * vendi(small).value
    a, b = vendi(small, rarefied=100), vendi(large, rarefied=100)
    assert a.value == pytest.approx(b.value, rel=0.02)
    assert a.low < b.value < a.high
    assert a.n == (150, 100)
    assert a.seed == 0
    assert "100" in a.method
    assert vendi(small, rarefied=150) == vendi(small)


def test_rarefied_is_the_mean_over_subsets():
    x = np.eye(20)
    assert vendi(x, rarefied=7).value == pytest.approx(7)  # any 7 of 20 orthogonal images
    assert vendi(x, rarefied=1).value == pytest.approx(1)
    y = np.random.default_rng(3).normal(size=(80, 6))
    assert vendi(y, rarefied=10, seed=0).value == vendi(y, rarefied=10, seed=0).value
    assert vendi(y, rarefied=10, seed=0).value != vendi(y, rarefied=10, seed=1).value
    keys, order = [str(i) for i in range(80)], np.random.default_rng(4).permutation(80)
    shuffled = EmbeddingStore.from_vectors(y[order], keys=[keys[i] for i in order])
    assert vendi(shuffled, rarefied=10).value == vendi(y, rarefied=10).value


@pytest.mark.parametrize("d", [4, 400])
def test_the_error_is_the_jackknife_over_folds(d):
    x = np.random.default_rng(5).normal(size=(50, d)) + 1
    store = EmbeddingStore.from_vectors(x)
    folds, found = fold_of(store.rows()), vendi(store)
    held, sizes = np.unique(folds, return_counts=True)
    h = len(x) / sizes
    left_out = np.array([primal(store.vectors()[folds != f], 1) for f in held])
    pseudo = h * found.value - (h - 1) * left_out
    center = len(held) * found.value - ((1 - 1 / h) * left_out).sum()
    assert found.se == pytest.approx(np.sqrt(np.mean((pseudo - center) ** 2 / (h - 1))))
    assert 1 <= found.low < found.value < found.high <= min(50, d)


def test_a_union_is_the_set_of_all_parts():
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(40, 8)).astype(np.float16), rng.normal(size=(30, 8)) + 2
    together = np.concatenate([a.astype(np.float64), b])
    assert vendi([EmbeddingStore.from_vectors(a), b]).value == pytest.approx(vendi(together).value)
    assert vendi([a, a]).value == pytest.approx(vendi(a).value)
    assert effective_rank([a.astype(np.float64), b]) == pytest.approx(effective_rank(together), rel=1e-6)


def test_what_cannot_be_measured_is_refused():
    x = np.random.default_rng(7).normal(size=(6, 3))
    with pytest.raises(TooFewImagesError, match="6 images cannot be rarefied to 7"):
        vendi(x, rarefied=7)
    for wrong in ({"q": -1}, {"q": np.nan}, {"rarefied": 0}):
        with pytest.raises(UsageError):
            vendi(x, **wrong)
    for n in (6, 2):
        with pytest.raises(SourceError, match="'1' is zero"):
            vendi(np.where(np.arange(n)[:, None] == 1, 0, x[:n]))
    with pytest.raises(SourceError, match="not finite"):
        vendi(np.full((6, 3), np.inf))
    with pytest.raises(EncoderMismatchError, match="part 2"):
        vendi([x, x[:, :2]])
    with pytest.raises(UsageError, match="no sets"):
        vendi([])


def share_of_intervals_that_cover(repetitions, rarefied):
    rng = np.random.default_rng(8)
    scale = np.linspace(3, 0.5, 16)
    found = [vendi(rng.normal(size=(150, 16)) * scale + 1, rarefied=rarefied) for _ in range(repetitions)]
    mean = np.mean([e.value for e in found])
    return np.mean([e.low <= mean <= e.high for e in found])


@pytest.mark.parametrize("rarefied", [None, 40])
def test_intervals_cover_the_mean(rarefied):
    assert share_of_intervals_that_cover(80, rarefied) >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize(("rarefied", "most"), [(None, 0.97), (40, 1.0)])  # eight draws add to the error
def test_intervals_cover_the_mean_in_many_repetitions(rarefied, most):
    assert 0.93 <= share_of_intervals_that_cover(2_000, rarefied) <= most
