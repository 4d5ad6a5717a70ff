import numpy as np
import pytest
from candidates_data import capped, images, make_candidates

from curate.selection import _knn_quota
from curate.selection._directions import Whitening
from curate.selection._global_top import choose


def make(m=15, n=200, d=10, **more):
    rng = np.random.default_rng(0)
    return make_candidates(
        rng.normal(size=(m, d)), {"a": rng.normal(size=(n, d)), "b": rng.normal(size=(30, d))}, **more
    )


def test_it_takes_the_nearest_to_any_target_image(monkeypatch):
    monkeypatch.setattr("curate.selection._global_top.BLOCK_ROWS", 64)
    candidates = make()
    frame = Whitening.fit(candidates.pool_sample)
    x, t = (frame.apply(v).astype(float) for v in (candidates.vectors(np.arange(230)), candidates.target_vectors))
    squared = ((x[:, None] - t) ** 2).sum(axis=-1).round(6)
    chosen = choose(candidates, images(candidates, 40), seed=0)
    assert chosen.rows.tolist() == np.argsort(squared.min(axis=1), kind="stable")[:40].tolist()
    assert np.allclose(chosen.scores, squared.min(axis=1)[chosen.rows], atol=1e-6)
    assert chosen.reasons == [f"global-top: target {i:05d} is the nearest" for i in squared[chosen.rows].argmin(axis=1)]
    assert "random draw" in chosen.parameters["warning"]


def test_a_dense_mode_drowns_the_others_as_the_warning_says():
    rng = np.random.default_rng(1)
    centers = np.eye(8) * 10
    target = np.concatenate([c + rng.normal(size=(10, 8)) for c in centers])
    pool = np.concatenate([c + rng.normal(size=(2000 if i == 0 else 60, 8)) for i, c in enumerate(centers)])
    candidates = make_candidates(target, {"pool": pool})
    share = {
        method.__module__: np.bincount(pool[method(candidates, images(candidates, 160), seed=0).rows].argmax(1))[0]
        for method in (choose, _knn_quota.choose)
    }
    assert share == {"curate.selection._global_top": pytest.approx(130, abs=30), "curate.selection._knn_quota": 20}


def test_images_of_weight_0_are_not_searched_for():
    weights = np.arange(15) % 2 * 1.0
    some = make(target_weights=weights)
    chosen = choose(some, images(some, 25), seed=0)
    alone = make_candidates(some.target_vectors[1::2], {n: some.stores[n] for n in ("a", "b")})
    assert chosen.rows.tolist() == choose(alone, images(alone, 25), seed=0).rows.tolist()
    assert {int(reason.split()[2]) % 2 for reason in chosen.reasons} == {1}


def test_caps_own_images_and_few_candidates():
    candidates = make(own=True)
    chosen = choose(candidates, capped(candidates, 100, [100, 20, 30]), seed=0)
    assert chosen.rows[:15].tolist() == list(range(15))  # all at distance 0
    assert np.bincount(candidates.source[chosen.rows]).tolist() == [15, 20, 30]
    one = make_candidates(np.zeros((1, 4)), {"pool": np.ones((1, 4))})
    assert choose(one, images(one, 9), seed=0).rows.tolist() == [0]
