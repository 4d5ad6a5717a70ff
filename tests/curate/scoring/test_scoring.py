import json
import time

import numpy as np
import pytest

import curate.scoring.scorer
import embeddings.moments
from curate.results import Estimate, ShiftReport
from curate.scoring import score, score_each, shift_index, verdict_of
from curate.scoring.measures import MEASURES
from embeddings.errors import EncoderMismatchError, SourceError, TooFewImagesError, UnknownNameError, UsageError
from embeddings.moments_export import export_moments
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
    real = curate.scoring.scorer.refit_frechet
    monkeypatch.setattr(curate.scoring.scorer, "refit_frechet", lambda t, pool: measured.append(pool) or real(t, pool))
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
    assert not carries["headline distance at full resolution (k = 16)"]


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


def exported(folder, name, store, **options):
    export_moments(store, folder / name, **options)
    return folder / name


def labeled_store(n, shift=0.0, seed=0, d=4):
    return EmbeddingStore.from_vectors(vectors(n, shift, seed=seed, d=d))


def test_moments_stand_for_a_store(tmp_path):
    target, pool, far = labeled_store(1500), labeled_store(1500, 0.3, seed=1), labeled_store(1500, 2.0, seed=2)
    ours, theirs = exported(tmp_path, "ours.moments", target), exported(tmp_path, "theirs.moments", pool)
    whole = score(target, {"pool": pool, "far": far}, work=None)
    shared = score(ours, {"pool": theirs, "far": far}, work=None)
    for name in ("pool", "far"):
        for figure in ("frechet", "mmd", "frechet_full", "mean_gap"):
            assert shared[name].metrics[figure].value == pytest.approx(whole[name].metrics[figure].value, rel=1e-4)
        assert shared[name].verdict == whole[name].verdict
    coverage = shared["pool"].metrics["coverage"]
    assert coverage.value is None
    assert coverage.reason == "needs vectors; target is a file of moments"
    assert shared["pool"].n == 1500
    assert shared.target["total_variance"] == pytest.approx(whole.target["total_variance"], rel=1e-4)
    assert -0.1 < shared.floor.low < 0 < shared.floor.high
    json.dumps(shared.to_json(), allow_nan=False)


def test_moments_in_some_directions_leave_out_what_needs_all(tmp_path):
    target, pool = labeled_store(1500, d=24), labeled_store(1500, 0.2, seed=1, d=24)
    cut = exported(tmp_path, "pool.moments", pool, directions=8)
    whole, found = (score(target, {"pool": p}, work=None)["pool"] for p in (pool, cut))
    assert found.metrics["frechet"].value == pytest.approx(
        whole.metrics["frechet"].value, abs=whole.metrics["frechet"].se
    )
    assert found.metrics["mmd"].reason == "needs all 24 dimensions; pool holds 8 directions"


def test_histograms_in_the_file_let_neurons_be_compared(tmp_path):
    target, pool = labeled_store(1500), labeled_store(1500, 0.5, seed=1)
    ours = exported(tmp_path, "ours.moments", target, histograms=True)
    theirs = exported(tmp_path, "theirs.moments", pool, histograms=ours)
    direct = score(target, {"pool": pool}, also=["neurons"], work=None)["pool"].metrics["neurons"]
    for a, b in ((ours, theirs), (ours, pool), (target, theirs)):
        found = score(a, {"pool": b}, also=["neurons"], work=None)["pool"].metrics["neurons"]
        assert found.value == pytest.approx(direct.value, rel=0.02)
    plain = exported(tmp_path, "plain.moments", pool)
    lacking = score(target, {"pool": plain}, also=["neurons"], work=None)["pool"].metrics["neurons"]
    assert "is a file of moments without them" in lacking.reason


def test_moments_of_another_encoder_are_refused(tmp_path):
    other = exported(tmp_path, "o.moments", EmbeddingStore.from_vectors(vectors(1500, d=4), name="other"))
    with pytest.raises(EncoderMismatchError, match="target was embedded by vectors and a by other"):
        score(labeled_store(100), {"a": other}, work=None)


def test_every_measure_and_explanation_is_given_or_says_why_not():
    pools = {"a": vectors(300, 0.3, seed=1), "b": vectors(300, 1.0, seed=2)}
    report = score(vectors(300), pools, also=["all"], pool_size=10_000, work=None)
    figures = {figure for m in MEASURES.values() for figure in m.figures}
    for pool in report.pools:
        assert set(pool.metrics) == figures | {"frechet"}
        absent = {name: e.reason for name, e in pool.metrics.items() if e.value is None}
        assert set(absent) == {"kid", "otdd"}  # too few images, no labels
        assert all(absent.values())
        assert set(pool.findings) == {"parts", "factors", "images", "memorized", "delivery"}
        assert "without images" in pool.findings["factors"]["reason"]
        assert not pool.findings["memorized"]["suspicious"]
    assert {s["name"] for s in report.findings["diversity"]["sets"]} == {"target", "a", "b", "all pools"}
    assert report.findings["slices"]["by"] == "cluster"
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert ShiftReport.from_json(document) == report


def test_asking_for_more_measures_changes_nothing_and_repeats_nothing(tmp_path, monkeypatch):
    target, pools = vectors(200), {"a": vectors(200, 0.2, seed=1)}
    first = score(target, pools, work=tmp_path)
    monkeypatch.setattr(curate.scoring.scorer, "refit_frechet", None)
    more = score(target, pools, also=["c2st,sliced"], work=tmp_path)["a"].metrics
    assert {name: more[name] for name in first["a"].metrics} == first["a"].metrics
    assert set(more) - set(first["a"].metrics) == {"auc", "pad", "auc_p", "sliced"}


def test_an_unknown_measure_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownNameError, match="factors"):
        score(vectors(100), {"a": vectors(100)}, also=["factor"], work=None)
    with pytest.raises(UsageError, match="A delivery of 0 images"):
        score(vectors(100), {"a": vectors(100)}, pool_size=0, work=None)


def test_a_cut_or_foreign_file_of_kept_scores_is_as_good_as_none(tmp_path):
    target, pools = vectors(200), {"a": vectors(200, 0.2, seed=1)}
    first = score(target, pools, work=tmp_path)
    (kept,) = (tmp_path / "scores").iterdir()
    for damage in ('{"schema": "x", "entr', "[]", '{"schema": "x"}'):
        kept.write_text(damage)
        assert score(target, pools, work=tmp_path) == first


def test_labels_that_come_later_are_seen_though_scores_are_kept(tmp_path):
    def labeled(names):
        plain = EmbeddingStore.from_vectors(vectors(100, 0.2, seed=1))
        rows = plain.rows().set_column(plain.rows().schema.get_field_index("label"), "label", [names])
        return EmbeddingStore(spec=plain.spec, rows=rows, vectors=plain.vectors())

    names = ["x", "y"] * 50
    without, with_labels = (
        score(labeled(names), {"a": labeled(n)}, also="otdd", work=tmp_path)["a"] for n in ([None] * 100, names)
    )
    assert "no labels" in without.metrics["otdd"].reason
    assert with_labels.metrics["otdd"].value is not None


def test_how_pictures_are_seen_is_part_of_what_is_kept(image_folder, pictures, tmp_path):
    target, pool = image_folder(pictures(30, seed=1), "target"), image_folder(pictures(30, seed=2), "pool")
    settings = {"encoder": "color-texture", "work": tmp_path / "work"}
    plain = score(target, {"a": pool}, **settings)["a"].index
    seen_otherwise = f"{pool}#white:128"
    fresh = score(target, {"a": seen_otherwise}, encoder="color-texture", work=None)["a"].index
    assert score(target, {"a": seen_otherwise}, **settings)["a"].index == fresh
    assert plain is not None


def test_a_delivery_that_cannot_be_foretold_is_no_error():
    rows = EmbeddingStore.from_vectors(vectors(60))
    groups = ["abdh"[i % 4] for i in range(60)]  # folds 0, 6, 9 and 7
    table = rows.rows().set_column(rows.rows().schema.get_field_index("group"), "group", [groups])
    target = EmbeddingStore(spec=rows.spec, rows=table, vectors=rows.vectors())
    found = score(target, {"a": vectors(100, 0.2, seed=1)}, pool_size=1000, work=None)["a"].findings["delivery"]
    assert "independent images" in found["reason"]


def test_a_missing_second_target_is_found_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr(curate.scoring.scorer, "refit_frechet", None)
    with pytest.raises(SourceError, match="nowhere"):
        score_each({"a": vectors(100), "b": "nowhere.npy"}, {"p": vectors(100, seed=1)}, work=None)
