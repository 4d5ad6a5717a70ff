"""What every measure that ``score`` can take must do, whatever it measures."""

import json
import math

import numpy as np
import pytest

from curate.results import Estimate
from curate.scoring.measures import DEFAULT, MEASURES
from curate.scoring.sides import StoreSide, Target
from embeddings.store import EmbeddingStore

N, D = 1_100, 6  # kid as published needs 1,000
NO_DIRECTION = {"auc_p", "mmd_gaussian_p", "copies", "authenticity"}
BARE = {"mean_gap", "copies", "frechet_full", "auc_p", "mmd_gaussian_p", "kid", "cmmd", "otdd"}  # without an interval
ABOUT_THE_ORIGIN = {"kid", "cmmd"}  # as published


def sample(shift=0.0, seed=0, *, n=N, offset=0.0):
    vectors = np.random.default_rng(seed).normal(size=(n, D)) / np.sqrt(np.arange(1, D + 1)) + shift
    return (vectors + offset).astype(np.float32)


def store(vectors, order=None):
    """A store of labeled rows, given in another order if wanted."""
    order = np.arange(len(vectors)) if order is None else order
    kept = EmbeddingStore.from_vectors(vectors[order], keys=[f"{i:05d}" for i in order])
    labels = np.where(vectors[:, 0] > np.median(vectors[:, 0]), "a", "b").tolist()
    rows = kept.rows().set_column(kept.rows().schema.get_field_index("label"), "label", [labels])
    return EmbeddingStore(spec=kept.spec, rows=rows, vectors=kept.vectors())


def take(name, target, pool):
    return MEASURES[name].take(Target(StoreSide("target", target)), StoreSide("pool", pool))


@pytest.fixture(scope="module")
def readings():
    """Figures of every measure for a near and a far pool."""
    target = store(sample())
    pools = {"near": store(sample(0.1, seed=1)), "far": store(sample(1.5, seed=2))}
    return {name: {pool: take(name, target, s) for pool, s in pools.items()} for name in MEASURES}


@pytest.mark.parametrize("name", MEASURES)
def test_it_gives_the_figures_it_promises_in_plain_json(name, readings):
    for figures in readings[name].values():
        assert tuple(figures) == MEASURES[name].figures
        for figure, estimate in figures.items():
            assert math.isfinite(estimate.value)
            assert all(0 < n <= N for n in estimate.n)
            assert estimate.unit
            assert estimate.method
            assert Estimate.from_json(json.loads(json.dumps(estimate.to_json(), allow_nan=False))) == estimate
            if figure in BARE:
                assert estimate.low is None
            else:
                assert estimate.low <= estimate.value <= estimate.high


@pytest.mark.parametrize("name", MEASURES)
def test_a_far_pool_reads_farther_in_the_direction_it_states(name, readings):
    for figure in set(MEASURES[name].figures) - NO_DIRECTION:
        near, far = (readings[name][pool][figure] for pool in ("near", "far"))
        assert (near.value < far.value) == near.lower_is_closer, figure


@pytest.mark.parametrize("name", MEASURES)
def test_the_order_of_rows_changes_nothing(name, readings):
    rng = np.random.default_rng(3)
    again = take(name, store(sample(), rng.permutation(N)), store(sample(0.1, seed=1), rng.permutation(N)))
    for figure, estimate in readings[name]["near"].items():
        assert again[figure].value == pytest.approx(estimate.value, rel=1e-9, abs=1e-12), figure


@pytest.mark.parametrize("name", sorted(set(MEASURES) - ABOUT_THE_ORIGIN))
def test_an_offset_common_to_both_sets_changes_nothing(name, readings):
    again = take(name, store(sample(offset=100)), store(sample(0.1, seed=1, offset=100)))
    for figure, estimate in readings[name]["near"].items():
        scale = max(abs(readings[name]["far"][figure].value), abs(estimate.value), 0.01)
        assert again[figure].value == pytest.approx(estimate.value, abs=0.02 * scale), figure


@pytest.mark.parametrize("name", MEASURES)
def test_a_set_too_small_gives_a_reason_and_no_error(name):
    for figure, estimate in take(name, store(sample(n=30)), store(sample(seed=1, n=2))).items():
        assert estimate.value is not None or estimate.reason, figure


def test_the_default_measures_are_measures():
    assert set(DEFAULT) < set(MEASURES)
