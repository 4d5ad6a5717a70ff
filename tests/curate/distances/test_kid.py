import numpy as np
import pytest

from curate.distances import kid
from curate.distances._kid import unbiased_mmd
from embeddings.errors import EncoderMismatchError, SourceError, TooFewImagesError, UsageError
from embeddings.store import EmbeddingStore


def samples():
    rng = np.random.default_rng(7)
    return rng.normal(size=(2000, 64)).astype(np.float32), (1.1 * rng.normal(size=(2000, 64)) + 0.05).astype(np.float32)


def test_published_value():
    x, y = samples()
    found = kid(x, y)
    # torch-fidelity 0.4.0 on these features as float64, and as the float32 they are.
    assert found.mean.value == pytest.approx(0.010451886972421658, rel=1e-12)
    assert found.spread.value == pytest.approx(0.00167312874723286, rel=1e-12)
    assert found.mean.value == pytest.approx(0.010451843738555908, rel=1e-5)
    assert found.spread.value == pytest.approx(0.001673127255662514, rel=1e-5)
    assert unbiased_mmd(x.astype(np.float64), y.astype(np.float64)) == pytest.approx(0.010116030967111556, abs=1e-14)
    assert (found.mean.null, found.mean.lower_is_closer, found.mean.se) == (0.0, True, None)


def test_double_loops_agree():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 4)) + 1, rng.normal(size=(7, 4))
    k = lambda a, b: (a @ b / 4 + 1) ** 3  # noqa: E731
    own = [np.mean([k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (x, y)]
    assert unbiased_mmd(x, y) == pytest.approx(sum(own) - 2 * np.mean([k(a, b) for a in x for b in y]), rel=1e-12)


def test_subsets_of_everything_are_the_whole():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(50, 6)), rng.normal(size=(50, 6)) + 0.2
    found = kid(x, y, subsets=3, size=50)
    assert found.mean.value == pytest.approx(unbiased_mmd(x, y), rel=1e-10)
    assert found.spread.value == pytest.approx(0.0, abs=1e-12)


def test_a_store_is_taken_in_key_order_and_the_seed_decides():
    x, y = (s[:300].astype(np.float64) for s in samples())
    keys = [f"{i:04}" for i in range(300)]
    stores = [EmbeddingStore.from_vectors(s, keys=keys) for s in (x, y)]
    settings = {"subsets": 5, "size": 100}
    assert kid(*stores, **settings) == kid(x, y, **settings)
    assert kid(x, y, **settings, seed=1).mean.value != kid(x, y, **settings).mean.value


def test_the_global_generator_is_left_alone():
    x, y = (s[:100] for s in samples())
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    kid(x, y, subsets=2, size=50)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_the_null_is_zero():
    values = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        values.append(kid(rng.normal(size=(60, 8)), rng.normal(size=(60, 8)), subsets=10, size=40).mean.value)
    assert abs(np.mean(values)) < 3.5 * np.std(values) / np.sqrt(30)


def test_what_it_cannot_measure_is_refused():
    x, y = samples()
    with pytest.raises(TooFewImagesError, match="subsets of 1,000") as error:
        kid(x, y[:999])
    assert "mmd" in error.value.hint
    with pytest.raises(UsageError, match="0 subsets"):
        kid(x, y, subsets=0)
    with pytest.raises(EncoderMismatchError):
        kid(x, y[:, :3])
    bad = x.copy()
    bad[0, 0] = np.inf
    with pytest.raises(SourceError, match="not finite"):
        kid(x, bad)
