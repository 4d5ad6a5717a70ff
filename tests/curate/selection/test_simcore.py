import numpy as np
import pytest
from candidates_data import capped, images, make_candidates

from curate.selection._simcore import CENTERS, choose


def cone(direction, cosine, n, seed=0):
    """n vectors [n, 6] of a given cosine to an axis, at random around it and of random lengths."""
    rng = np.random.default_rng(seed)
    around = rng.normal(size=(n, 6))
    around[:, direction] = 0
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    vectors = cosine * np.eye(6)[direction] + np.sqrt(1 - cosine**2) * around
    return vectors * rng.uniform(0.1, 9, size=(n, 1))


def axes(*directions):
    """A target of as many centers: each its own, as long as there are at most 100."""
    return np.eye(6)[list(directions)]


def test_it_stops_after_the_round_that_sank():
    pool = np.concatenate(
        [cone(0, 0.9, 5), cone(1, 0.8, 5, 1), cone(0, 0.85, 4, 2), cone(1, 0.7, 90, 3), cone(3, 1, 50)]
    )
    candidates = make_candidates(axes(0, 1), {"pool": pool})
    chosen = choose(candidates, images(candidates, 100), seed=0)
    # 5 rounds of mean cosine .85, then one of .775, which is .91 of it.
    assert len(chosen.rows) == 12
    assert chosen.scores.reshape(6, 2).sum(axis=1) == pytest.approx([0.3] * 5 + [0.45], abs=1e-5)
    assert chosen.stopped == "the mean cosine of a round is 0.775, under 0.95 of the 0.850 of the pools' first"
    assert chosen.parameters == {"centers": 2, "reference": pytest.approx(0.85, abs=1e-5), "stops_below": 0.95}


def test_it_does_not_stop_if_the_budget_is_met_before():
    candidates = make_candidates(axes(0, 1), {"pool": np.concatenate([cone(0, 0.9, 40), cone(1, 0.2, 40)])})
    chosen = choose(candidates, images(candidates, 2), seed=0)
    assert len(chosen.rows) == 2
    assert chosen.stopped == ""


def test_every_round_gives_each_center_its_nearest():
    rng = np.random.default_rng(5)
    target, pool = rng.normal(size=(7, 20)) + 2, rng.normal(size=(90, 20)) + 2
    candidates = make_candidates(target, {"pool": pool})
    chosen = choose(candidates, images(candidates, 21), seed=0)
    t, x = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (target, pool))
    cosines, free = (t @ x.T).round(4), set(range(90))
    centers = [int(reason.split()[5]) for reason in chosen.reasons]
    image_of = {}  # centers are single images here, numbered anyhow
    for row, center, score in zip(chosen.rows.tolist(), centers, chosen.scores, strict=True):
        image = image_of.setdefault(center, int(np.argmin(np.abs(cosines[:, row] - (1 - score)))))
        assert cosines[image, row] == pytest.approx(cosines[image, sorted(free)].max(), abs=2e-4)
        assert 1 - score == pytest.approx(cosines[image, row], abs=1e-4)
        free.discard(row)
    assert sorted(image_of.values()) == list(range(7))
    assert centers[:7] == centers[7:14] == centers[14:]


def test_a_large_target_has_100_centers_of_all_its_images():
    rng = np.random.default_rng(0)
    candidates = make_candidates(rng.normal(size=(400, 8)) + 3, {"pool": rng.normal(size=(500, 8)) + 3})
    chosen = choose(candidates, images(candidates, CENTERS), seed=0)
    sizes = [int(reason.split()[-2]) for reason in chosen.reasons]
    assert chosen.parameters["centers"] == CENTERS
    assert sum(sizes) == 400


def test_own_images_do_not_raise_the_reference():
    pool = np.concatenate([cone(0, 0.7, 30), cone(1, 0.7, 30, 1)])
    candidates = make_candidates(axes(0, 1), {"pool": pool}, own=True)
    chosen = choose(candidates, images(candidates, 40), seed=0)
    assert sorted(chosen.rows[:2]) == [0, 1]
    assert len(chosen.rows) == 40
    assert chosen.parameters["reference"] == pytest.approx(0.7, abs=1e-5)
    only = make_candidates(axes(0, 1), {"pool": pool[:1]}, own=True)
    assert len(choose(only, capped(only, 9, [9, 0]), seed=0).rows) == 2


def test_weights_are_turns_of_centers_and_0_is_none():
    pool = np.concatenate([cone(i, 0.9, 60, i) for i in range(3)])
    candidates = make_candidates(axes(0, 1, 2), {"pool": pool}, target_weights=np.array([3.0, 1.0, 0.0]))
    chosen = choose(candidates, images(candidates, 40), seed=0)
    assert np.bincount(chosen.rows // 60, minlength=3).tolist() == [30, 10, 0]
    assert chosen.parameters["centers"] == 2


def test_a_zero_vector_is_like_nothing():
    pool = np.concatenate([np.zeros((1, 6)), cone(0, 0.2, 5)])
    candidates = make_candidates(axes(0), {"pool": pool})
    chosen = choose(candidates, images(candidates, 9), seed=0)
    assert chosen.rows[-1] == 0
    assert chosen.scores == pytest.approx([0.8] * 5 + [1.0], abs=1e-5)


def test_caps_and_few_candidates():
    candidates = make_candidates(axes(0, 1), {"a": cone(0, 0.9, 20), "b": cone(0, 0.88, 20, 1)})
    ledger = capped(candidates, 30, [0, 4, 20])
    chosen = choose(candidates, ledger, seed=0)
    assert np.bincount(candidates.source[chosen.rows])[1] == 4
    assert ledger.taken.tolist() == chosen.rows.tolist()
    one = make_candidates(axes(0), {"pool": axes(0)})
    assert choose(one, images(one, 5), seed=0).rows.tolist() == [0]
