"""What must come out on real images: the demo's Google emoji against its pools."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from curate.demo import demo_folder
from curate.distances._frechet import TargetFrame, frechet_to
from curate.scoring import score
from embeddings.moments import FOLDS, Moments
from embeddings.pipeline import as_store

NEAR = {"fluent", "openmoji", "clipart"}
FAR = {"garments", "photos", "digits"}
THINNED = 4  # every fourth of the 1280 features: a quarter of the variance, a tenth of the time


@pytest.fixture(scope="module")
def demo_store(tmp_path_factory):
    """``demo_store(name, encoder, n)``: n random images of a demo file, embedded once."""
    folder = tmp_path_factory.mktemp("parts")

    def store(name, encoder="lite0", n=None):
        table = pq.read_table(demo_folder() / "data" / f"{name}.parquet")
        rows = np.sort(np.random.default_rng(0).permutation(len(table))[:n])
        part = folder / f"{name}-{len(rows)}.parquet"
        pq.write_table(table.take(rows), part)
        return as_store(part, name=name, encoder=encoder, work=folder)

    return store


def test_null_halves_of_the_real_target_read_zero_within_errors(demo_store):
    parts = [demo_store(name) for name in ("target-train", "target-test")]
    vectors = np.concatenate([np.asarray(p.vectors(), np.float64)[:, ::THINNED] for p in parts])
    for n, repetitions, largest_error in ((100, 16, 13), (250, 8, 5), (450, 5, 3)):
        values, errors = [], []
        for seed in range(repetitions):
            rng = np.random.default_rng(seed)
            order = rng.permutation(len(vectors))
            a, b = (
                Moments.from_vectors(vectors[rows], rng.integers(0, FOLDS, n)) for rows in (order[:n], order[n : 2 * n])
            )
            estimate = frechet_to(TargetFrame.of(a), b)
            values.append(estimate.value)
            errors.append(estimate.se)
        assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(repetitions) + 0.3 / THINNED, n
        assert (np.abs(values) < 1.96 * np.array(errors)).mean() >= 0.9, n
        assert np.mean(errors) < largest_error / THINNED, n


def test_pools_come_out_in_the_known_order(demo_store):
    pools = {name: demo_store(name, n=80) for name in ("twitter", *NEAR, "openmoji-line", *FAR)}
    report = score(demo_store("target-train"), pools, work=None)
    order = [pool.name for pool in report.pools]
    assert order[0] == "twitter"
    assert set(order[1:4]) == NEAR
    assert order[4] == "openmoji-line"
    assert set(order[5:]) == FAR
    assert report["twitter"].verdict in ("same", "near")
    assert all(report[name].verdict == "far" for name in ("garments", "digits"))


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_untrained_encoder_loses_the_order(demo_store, seed):
    encoder = f"random:{seed}"
    pools = {name: demo_store(name, encoder, n=80) for name in ("twitter", *NEAR, "openmoji-line", *FAR)}
    report = score(demo_store("target-train", encoder, n=200), pools, encoder=encoder, work=None)
    assert FAR & {pool.name for pool in report.pools[:3]}
