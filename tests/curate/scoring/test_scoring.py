import json
import time

import numpy as np
import pytest

import curate.scoring.scorer
import embeddings.moments
from curate.results import Estimate
from curate.scoring import score, shift_index, verdict_of
from embeddings.errors import EncoderMismatchError, TooFewImagesError, UsageError
from embeddings.store import EmbeddingStore


def vectors(n, shift=0.0, seed=0, d=12):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) / np.sqrt(np.arange(1, d + 1)) + shift).astype(np.float32)


def index(value, low, high):
    return Estimate(value=value, low=low, high=high)


FLOOR = index(0.0, -2.0, 2.0)
DEFAULT_FIGURES = {
    "frechet",
    "mean_gap",
    "mmd",
    "coverage",
    "to_pool",
    "to_target",
    "copies",
    "frechet_full",
}


@pytest.mark.parametrize(
    ("estimate", "copied", "verdict"),
    [
        (index(0.5, -1, 1.9), 0.0, "same"),
        (index(6, 4, 8), 0.0, "near"),
        (index(19, 17, 20.5), 0.0, "unclear"),
        (index(25, 21, 30), 0.0, "middle"),
        (index(34, 30, 38), 0.0, "unclear"),
        (index(45, 40, 50), 0.0, "far"),
        (index(0.5, -30, 31), 0.0, "unclear"),
        (index(0.5, -1, 1.9), 0.5, "copies"),
        (index(6, 4, 8), 0.49, "near"),
    ],
)
def test_verdicts(estimate, copied, verdict):
    assert verdict_of(estimate, FLOOR, copied) == verdict


def test_the_index_is_0_at_the_target_and_50_at_its_variance_and_keeps_the_order():
    values = [shift_index(Estimate(value=f, low=f - 1, high=f + 1), 200.0) for f in (0.0, 50.0, 200.0, 1e9)]
    assert [v.value for v in values] == pytest.approx([0.0, 20.0, 50.0, 100.0], abs=1e-4)
    assert all(v.low < v.value < v.high for v in values)
    assert shift_index(Estimate(value=None), 1.0).value is None


def test_pools_are_ranked_with_ties_and_every_documented_metric():
    pools = {"same": vectors(300, seed=1), "near": vectors(300, 0.1, seed=2), "far": vectors(300, 2.0, seed=3)}
    report = score(vectors(300), pools, work=None)
    assert [p.name for p in report.pools] in (["same", "near", "far"], ["near", "same", "far"])
    assert report["far"].rank == 3
    assert report["far"].verdict == "far"
    assert report["same"].verdict == "same"
    assert "far" not in report["same"].tied_with
    assert set(report["far"].metrics) == DEFAULT_FIGURES
    assert report["far"].metrics["coverage"].value < 0.1
    assert report["same"].metrics["frechet_full"].null == pytest.approx(
        report["same"].metrics["frechet_full"].value, rel=0.6
    )
    assert report.floor.low < 0 < report.floor.high
    json.dumps(report.to_json(), allow_nan=False)


def test_adding_a_pool_changes_no_other_pool():
    target, a, b = vectors(200), vectors(200, 0.2, seed=1), vectors(200, 0.4, seed=2)
    alone = score(target, {"a": a}, work=None)
    both = score(target, {"b": b, "a": a}, work=None)
    assert alone["a"].metrics == both["a"].metrics
    assert alone["a"].index == both["a"].index


def test_a_pool_measured_before_is_not_measured_again(tmp_path, monkeypatch):
    target, a, b = vectors(200), vectors(200, 0.2, seed=1), vectors(200, 0.4, seed=2)
    first = score(target, {"a": a}, work=tmp_path)
    measured = []
    real = curate.scoring.scorer.measure
    monkeypatch.setattr(curate.scoring.scorer, "measure", lambda t, pool, n: measured.append(pool) or real(t, pool, n))
    second = score(target, {"a": a, "b": b}, work=tmp_path)
    assert len(measured) == 1
    assert second["a"].metrics == first["a"].metrics
    changed = a.copy()
    changed[0] += 1
    score(target, {"a": changed}, work=tmp_path)
    assert len(measured) == 2


def test_blocks_are_found_once_per_store_however_many_figures_need_them(tmp_path, monkeypatch):
    calls = []
    real = embeddings.moments.block_names
    monkeypatch.setattr(embeddings.moments, "block_names", lambda rows: calls.append(1) or real(rows))
    kept = EmbeddingStore.from_vectors(vectors(200, 0.2, seed=1))
    (tmp_path / "a").mkdir()
    parts = {"rows": kept.rows(), "vectors": kept.vectors(), "errors": kept.errors}
    on_disk = EmbeddingStore(spec=kept.spec, path=tmp_path / "a", **parts)
    score(vectors(200), {"a": on_disk, "b": vectors(200, 0.4, seed=2)}, work=tmp_path)
    assert len(calls) == 3
    assert (tmp_path / "a" / "moments.npz").exists()


def test_a_pool_of_copies_is_called_that():
    target = vectors(100)
    assert score(target, {"stolen": target[:60]}, work=None)["stolen"].verdict == "copies"


def test_without_a_pool_the_target_is_profiled():
    report = score(np.concatenate([vectors(60), vectors(5)]), work=None)
    assert report.pools == ()
    assert report.target["n"] == 65
    assert report.target["duplicates"] == 5
    assert 1 < report.target["effective_rank"] <= 12
    carries = {c["measure"]: c["ok"] for c in report.target["carries"]}
    assert carries["ranking of pools"]
    assert not carries["headline distance at full resolution (k = 32)"]


def test_too_small_sets_other_encoders_and_bad_names_are_refused():
    target = vectors(100)
    with pytest.raises(TooFewImagesError, match="pool 'one' has 1 image;"):
        score(target, {"one": vectors(1)}, work=None)
    with pytest.raises(TooFewImagesError, match="target has 10"):
        score(vectors(10), {"a": target}, work=None)
    with pytest.raises(EncoderMismatchError, match="target was embedded by vectors and a by other"):
        score(target, {"a": EmbeddingStore.from_vectors(target, name="other")}, work=None)
    with pytest.raises(UsageError, match="cannot name a pool"):
        score(target, {"target": target}, work=None)


@pytest.mark.slow
def test_time_is_linear_in_the_pool():
    target = vectors(1000, d=64)
    times = []
    for n in (50_000, 200_000):
        pool, start = vectors(n, 0.1, seed=1, d=64), time.perf_counter()
        score(target, {"a": pool}, work=None)
        times.append(time.perf_counter() - start)
    assert times[1] < 8 * times[0]
