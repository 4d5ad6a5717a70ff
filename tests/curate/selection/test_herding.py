import numpy as np
import pytest
from candidates_data import capped, images, make_candidates
from selection_data import near_modes

from curate.distances._kernels import Gaussian
from curate.selection import _herding
from curate.selection._herding import Herd, choose

KERNEL = Gaussian(3.0, 2)


def gram(x, y):
    """The same kernel by its definition."""
    square = ((np.asarray(x, float)[:, None] - np.asarray(y, float)) ** 2).sum(axis=2)
    return np.mean([np.exp(-square / (2 * 3.0 / 2**h)) for h in range(3)], axis=0)


def mmd2(points, target, weights):
    """|mean embedding of some points - that of the target|^2."""
    a, b = np.full(len(points), 1 / len(points)), weights / weights.sum()
    return a @ gram(points, points) @ a - 2 * a @ gram(points, target) @ b + b @ gram(target, target) @ b


def herded(points, target, weights, count):
    herd, is_open = Herd(KERNEL, points, target, weights / weights.sum()), np.ones(len(points), bool)
    herd.compare(np.arange(len(points)))
    for _ in range(count):
        place, value = herd.best(is_open)
        is_open[place] = False
        herd.add(place, value)
    return herd


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    points, target = (rng.normal(size=(n, 3)).astype(np.float32) for n in (30, 20))
    return points, target + 0.5, rng.uniform(0.2, 3, 20)


def test_every_pick_is_the_best_of_all(sets):
    points, target, weights = sets
    herd, taken = herded(points, target, weights, 30), []
    for row, value in zip(herd.rows, herd.values, strict=True):
        every = {other: mmd2(points[[*taken, other]], target, weights) for other in range(30) if other not in taken}
        assert every[row] <= min(every.values()) + 1e-6
        assert value == pytest.approx(every[row], abs=1e-6)
        taken.append(row)
    assert (herd.lowest, herd.lowest_at) == (min(herd.values), int(np.argmin(herd.values)) + 1)


def test_noise_is_the_trace_of_the_covariance_over_the_images(sets):
    points, target, _ = sets
    unbiased = (gram(target, target).sum() - 20) / (20 * 19)
    assert herded(points, target, np.ones(20), 0).noise == pytest.approx((1 - unbiased) / 20, rel=1e-5)


def test_noise_is_what_a_sample_of_the_target_is_off_by():
    """Against the mean embedding of a normal distribution, in closed form."""
    rng, variances = np.random.default_rng(1), 3.0 / 2 ** np.arange(3)
    center = np.mean((variances / (variances + 2)) ** 1.5)
    off, claimed = [], []
    for _ in range(300):
        sample = rng.normal(size=(25, 3)).astype(np.float32)
        squares = (sample**2).sum(axis=1)[:, None]
        embedded = (variances / (variances + 1)) ** 1.5 * np.exp(-squares / (2 * (variances + 1)))
        off.append(gram(sample, sample).mean() - 2 * embedded.mean() + center)
        claimed.append(herded(sample, sample, np.ones(25), 0).noise)
    assert np.mean(claimed) == pytest.approx(np.mean(off), rel=0.03)


def test_a_weight_is_so_many_images(sets):
    points, target, _ = sets
    counts = np.arange(20) % 3
    twice = herded(points, np.repeat(target, counts, axis=0), np.ones(counts.sum()), 10)
    weighted = herded(points, target, counts.astype(float), 10)
    assert weighted.rows == twice.rows
    assert weighted.values == pytest.approx(twice.values, abs=1e-6)


def test_what_is_compared_may_change_on_the_way(sets):
    points, target, weights = sets
    herd = herded(points, target, weights, 8)
    herd.compare(np.setdiff1d(np.arange(30), herd.rows))
    place, value = herd.best(np.ones(22, bool))
    row = int(herd.compared[place])
    assert row == herded(points, target, weights, 9).rows[-1]
    assert value == pytest.approx(mmd2(points[[*herd.rows, row]], target, weights), abs=1e-6)


def test_nearer_to_the_distribution_than_nearest_images_and_chance():
    target, unseen = near_modes(150, 0), near_modes(400, 1)
    candidates = make_candidates(target, {"near": near_modes(600, 2, 0.9), "far": near_modes(600, 3, 3.0)})
    chosen = choose(candidates, images(candidates, 100), seed=0)
    random = np.random.default_rng(0).permutation(1200)[:100]
    near = np.argsort(((candidates.vectors(np.arange(1200))[:, None] - target) ** 2).sum(axis=2).min(axis=1))[:100]
    read = [mmd2(candidates.vectors(rows) / 3, unseen / 3, np.ones(400)) for rows in (chosen.rows, near, random)]
    assert read[0] < 0.75 * read[1]
    assert read[0] < 0.5 * read[2]
    assert not chosen.stopped
    assert len(set(chosen.rows)) == 100


def test_it_stops_where_every_image_left_does_harm():
    target, far = near_modes(200, 0), near_modes(500, 2) + 30
    candidates = make_candidates(target, {"near": near_modes(80, 1), "far": far})
    chosen = choose(candidates, images(candidates, 400), seed=0)
    assert 75 <= len(chosen.rows) <= 90
    assert (candidates.source[chosen.rows] == candidates.names.index("near")).sum() >= 70
    assert "every image left would raise" in chosen.stopped
    assert f"{chosen.scores.min():.4g} at {int(chosen.scores.argmin()) + 1} images" in chosen.stopped
    assert chosen.scores[-1] <= chosen.scores.min() + chosen.parameters["noise"]


def test_a_larger_target_tells_sooner_that_images_do_harm():
    pools = {"near": near_modes(60, 1), "beside": near_modes(500, 2, 1.2) + 0.8}
    taken = []
    for m in (40, 4000):
        candidates = make_candidates(near_modes(m, 0), pools)
        taken.append(len(choose(candidates, images(candidates, 560), seed=0).rows))
    assert taken[1] < taken[0]


def test_where_caps_close_what_was_compared_the_next_are(monkeypatch):
    monkeypatch.setattr(_herding, "COMPARED", 1)
    candidates = make_candidates(near_modes(50, 0), {"a": near_modes(300, 1, 0.2), "b": near_modes(300, 2, 0.8)})
    chosen = choose(candidates, capped(candidates, 40, [0, 5, 1000]), seed=0)
    assert np.bincount(candidates.source[chosen.rows]).tolist() == [0, 5, 35]


@pytest.mark.parametrize("pool", [np.zeros((1, 12)), np.ones((40, 12)), near_modes(60, 1)])
@pytest.mark.parametrize("target", [near_modes(1, 0), np.ones((3, 12))])
def test_small_and_constant_sets(target, pool):
    candidates = make_candidates(target, {"pool": pool}, own=True)
    chosen = choose(candidates, images(candidates, 10_000), seed=0)
    assert len(set(chosen.rows)) == len(chosen.rows) >= 1
    assert np.isfinite(chosen.scores).all()
    assert len(chosen.rows) == len(candidates) or chosen.stopped
    if len(target) == 1:
        assert chosen.parameters["noise"] == 1
        assert not chosen.stopped


def test_the_target_itself_is_taken_first():
    candidates = make_candidates(near_modes(60, 0), {"pool": near_modes(400, 1) + 4}, own=True)
    chosen = choose(candidates, images(candidates, 60), seed=0)
    assert candidates.own[chosen.rows].mean() > 0.9
    assert np.array_equal(choose(candidates, images(candidates, 60), seed=9).rows, chosen.rows)
