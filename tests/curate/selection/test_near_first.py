import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from selection_data import make_store
from sklearn.decomposition import PCA

from curate.selection import select
from curate.selection._near_first import Whitening, take_turns
from embeddings.neighbors import Engine


def naive_turns(targets, pool, order, budget):
    """The definition: look at every free candidate, every time."""
    taken, out = set(), []
    while len(out) < budget:
        for target in order[: budget - len(out)]:
            distances = [round(float(((targets[target] - row) ** 2).sum()), 6) for row in pool]
            row = min((i for i in range(len(pool)) if i not in taken), key=lambda i: (distances[i], i))
            taken.add(row)
            out.append((row, int(target), distances[row]))
    return out


def as_list(turns):
    return list(zip(turns.rows.tolist(), turns.takers.tolist(), turns.distances.tolist(), strict=True))


points = st.integers(1, 30).flatmap(
    lambda n: hnp.arrays(np.float32, (n, 2), elements=st.integers(-3, 3).map(float))  # a grid: ties abound
)


@given(targets=points, pool=points, entries=st.sampled_from([1, 8, 1 << 20]), data=st.data())
def test_turns_are_those_of_the_plain_greedy(targets, pool, entries, data):
    order = np.array(data.draw(st.permutations(range(len(targets)))))
    budget = data.draw(st.integers(1, len(pool)))
    turns = take_turns(targets, pool, order, budget, entries=entries, engine=Engine(faiss=False))
    assert as_list(turns) == naive_turns(targets.astype(float), pool.astype(float), order, budget)


@pytest.mark.parametrize("entries", [1, 500, 1 << 23])
def test_the_length_of_the_lists_does_not_matter(entries):
    rng = np.random.default_rng(0)
    targets, pool = rng.normal(size=(40, 5)).astype(np.float32), rng.normal(size=(150, 5)).astype(np.float32)
    targets[20:] = targets[:20] * 0.01  # a crowd, whose lists run out early
    order = rng.permutation(40)
    turns = take_turns(targets, pool, order, 140, entries=entries)
    assert as_list(turns) == naive_turns(targets.astype(float), pool.astype(float), order, 140)


def test_whitening_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    sample = (rng.normal(size=(400, 20)) * np.geomspace(1, 30, 20) + 100).astype(np.float32)
    frame = Whitening.fit(sample)
    expected = PCA(n_components=12, whiten=True, svd_solver="full").fit(sample.astype(float)).transform(sample[:50])
    found = frame.apply(sample[:50])
    assert frame.directions == 12  # 400 // 32
    distances = [((x[:, None] - x) ** 2).sum(axis=-1) for x in (found.astype(float), expected)]
    assert np.allclose(*distances, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("n", "directions"), [(1, 0), (2, 1), (5, 4), (40, 4), (320, 10), (5000, 64)])
def test_small_pools_get_few_directions(n, directions):
    sample = np.random.default_rng(n).normal(size=(n, 100)).astype(np.float32)
    assert Whitening.fit(sample).directions == directions


def test_a_direction_without_variance_is_left_out():
    sample = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    sample[:, 2:] = 5
    frame = Whitening.fit(sample)
    assert frame.directions == 2
    assert np.isfinite(frame.apply(sample * 2)).all()


@pytest.fixture(scope="module")
def modes():
    """A target of 12 modes that are rare in a pool of 3,000: 30 of each, beside 2,640 images of 30 others."""
    rng = np.random.default_rng(11)
    centers = rng.normal(size=(42, 32)) * 3

    def sample(kinds):
        return (centers[kinds] + rng.normal(size=(len(kinds), 32))).astype(np.float32)

    kinds = np.concatenate([np.repeat(np.arange(12), 30), rng.integers(12, 42, 2640)])
    target, unseen = sample(np.repeat(np.arange(12), 10)), sample(np.repeat(np.arange(12), 50))
    return make_store("target", target), unseen, kinds, sample(kinds)


def test_near_first_covers_the_target_and_is_nearer_than_random(modes):
    target, unseen, kinds, pool = modes
    chosen = {
        method: select(
            target, {"pool": make_store("pool", pool)}, budget=240, method=method, include_target=False, work=None
        )
        for method in ("near-first", "random")
    }
    rows = {method: [int(key) for key in s.rows()["key"].to_pylist()] for method, s in chosen.items()}
    share = np.bincount(kinds[rows["near-first"]], minlength=42)[:12]
    assert share.min() >= 15  # a fair share is 20
    assert (kinds[rows["near-first"]] < 12).mean() > 0.98
    gap = {m: float(((pool[r].mean(axis=0) - unseen.mean(axis=0)) ** 2).sum()) for m, r in rows.items()}
    spread = {m: abs(pool[r].var(axis=0).sum() / unseen.var(axis=0).sum() - 1) for m, r in rows.items()}
    assert gap["near-first"] < 0.5
    assert gap["random"] > 5
    assert spread["near-first"] < 0.1


def test_rare_modes_are_not_drowned_when_near_images_run_out(modes):
    target, _, kinds, pool = modes
    chosen = select(target, {"pool": make_store("pool", pool)}, budget=600, include_target=False, work=None)
    kind = kinds[[int(key) for key in chosen.rows()["key"].to_pylist()]]
    assert (np.bincount(kind, minlength=42)[:12] >= 25).all()  # of 30 that there are


def test_the_targets_own_images_come_first_and_count(modes):
    target, _, _, pool = modes
    chosen = select(target, {"pool": make_store("pool", pool)}, budget=200, work=None)
    assert chosen.counts() == {"target": 120, "pool": 80}
    assert chosen.rows()["source"].to_pylist()[:120] == ["target"] * 120
    assert set(chosen.rows()["score"].to_pylist()[:120]) == {0.0}
    assert set(chosen.rows()["reason"].to_pylist()[:120]) == {"near-first: an image of the target itself"}
    assert chosen.rows()["similarity"].to_pylist()[:120] == [1.0] * 120
    assert chosen.rows()["reason"][120].as_py().startswith("near-first: choice 2 of target ")


def test_a_budget_below_the_target_is_a_draw_from_it_not_its_first_keys(modes):
    target, _, _, pool = modes
    keys = select(target, {"pool": make_store("pool", pool)}, budget=60, work=None).rows()["key"].to_pylist()
    assert 15 < sum(int(key) < 60 for key in keys) < 45


def test_the_score_is_the_whitened_distance_to_the_taker(modes):
    target, _, _, pool = modes
    chosen = select(target, {"pool": make_store("pool", pool)}, budget=50, include_target=False, work=None).rows()
    whiten = PCA(n_components=32, whiten=True, svd_solver="full").fit(pool.astype(float)).transform
    for key, score, reason in zip(*(chosen[c].to_pylist() for c in ("key", "score", "reason")), strict=True):
        taker = int(reason.rpartition(" ")[2])
        gap = whiten(pool[[int(key)]].astype(float)) - whiten(np.asarray(target.vectors())[[taker]].astype(float))
        assert score == pytest.approx((gap**2).sum(), rel=1e-4)
