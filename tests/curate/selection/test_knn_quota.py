import numpy as np
import pytest
from candidates_data import capped, images, make_candidates

from curate.selection._directions import Whitening
from curate.selection._knn_quota import choose


@pytest.fixture(scope="module")
def modes():
    """A target of 12 modes that are rare in a pool of 3,000: 30 of each, beside 2,640 images of 30 others."""
    rng = np.random.default_rng(11)
    centers = rng.normal(size=(42, 32)) * 3

    def sample(kinds):
        return (centers[kinds] + rng.normal(size=(len(kinds), 32))).astype(np.float32)

    kinds = np.concatenate([np.repeat(np.arange(12), 30), rng.integers(12, 42, 2640)])
    return sample(np.repeat(np.arange(12), 10)), kinds, sample(kinds)


def test_every_mode_of_the_target_gets_its_share(modes):
    target, kinds, pool = modes
    candidates = make_candidates(target, {"pool": pool})
    chosen = choose(candidates, images(candidates, 240), seed=0)
    share = np.bincount(kinds[chosen.rows], minlength=42)[:12]
    assert share.min() >= 15  # a fair share is 20
    assert (kinds[chosen.rows] < 12).mean() > 0.98
    assert chosen.parameters == {"directions": 32, "fitted_on": 3000, "target_images": 120}


def test_weights_are_shares(modes):
    target, kinds, pool = modes
    weights = np.where(np.arange(120) < 10, 11.0, 1.0)  # of the first mode, as much as the rest together
    candidates = make_candidates(target, {"pool": pool}, target_weights=weights)
    share = np.bincount(kinds[choose(candidates, images(candidates, 40), seed=0).rows], minlength=42)
    assert share[0] == pytest.approx(20, abs=3)  # an even share would be 3


def test_own_images_go_first_and_say_so(modes):
    target, _, pool = modes
    candidates = make_candidates(target[:20], {"pool": pool[:300]}, own=True)
    chosen = choose(candidates, images(candidates, 50), seed=3)
    assert sorted(chosen.rows[:20]) == list(range(20))
    assert set(chosen.codes[:20]) == {"own-image"}
    assert set(chosen.reasons[:20]) == {"knn-quota: an image of the target itself"}
    assert set(chosen.codes[20:]) == {"knn-quota"}
    assert all(reason.startswith("knn-quota: choice 2 of target 000") for reason in chosen.reasons[20:40])


def test_scores_are_squared_distances_to_the_taker(modes):
    target, _, pool = modes
    candidates = make_candidates(target[:6], {"pool": pool[:400]})
    chosen = choose(candidates, images(candidates, 30), seed=0)
    frame = Whitening.fit(candidates.pool_sample)
    takers = [int(reason.rpartition(" ")[2]) for reason in chosen.reasons]
    gap = frame.apply(target[takers]).astype(float) - frame.apply(candidates.vectors(chosen.rows))
    assert np.allclose(chosen.scores, (gap**2).sum(axis=1), atol=2e-6)


def test_caps_are_kept_and_the_rest_comes_from_elsewhere(modes):
    target, _, pool = modes
    candidates = make_candidates(target, {"a": pool[:200], "b": pool[200:500]})
    ledger = capped(candidates, 150, [0, 30, 200])
    chosen = choose(candidates, ledger, seed=0)
    assert np.bincount(candidates.source[chosen.rows]).tolist() == [0, 30, 120]
    assert ledger.taken.tolist() == chosen.rows.tolist()


@pytest.mark.parametrize("n", [1, 3, 9])
def test_few_candidates_and_one_target_image(n):
    rng = np.random.default_rng(n)
    candidates = make_candidates(rng.normal(size=(1, 16)), {"pool": rng.normal(size=(n, 16))})
    chosen = choose(candidates, images(candidates, 20), seed=0)
    assert sorted(chosen.rows) == list(range(n))
    assert chosen.stopped == ""
