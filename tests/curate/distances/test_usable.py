import json

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from curate.distances import prdc, usable
from curate.distances._usable import _Sample, _Variety
from embeddings.errors import EncoderMismatchError, SourceError, TooFewImagesError, UsageError
from embeddings.store import EmbeddingStore


def store(x, prefix="", groups=None):
    made = EmbeddingStore.from_vectors(np.asarray(x), keys=[f"{prefix}{i:05d}" for i in range(len(x))])
    rows = made.rows()
    if groups is not None:
        rows = rows.set_column(
            rows.schema.get_field_index("group"), "group", pa.array([str(g) for g in groups], pa.string())
        )
    return EmbeddingStore(spec=made.spec, rows=rows, vectors=made.vectors())


def draw(n, d=3, seed=0, shift=0.0):
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def inside(target, points, k=5):
    """Which points lie in a target ball, by loops over all pairs."""
    between = np.linalg.norm(target[:, None] - target, axis=2)
    radii = np.sort(between, axis=1)[:, k]
    return (np.linalg.norm(points[:, None] - target, axis=2) <= radii).any(axis=1)


class TestShare:
    def test_is_precision(self):
        x, y = draw(120), draw(80, seed=1, shift=0.7)
        found = usable(store(x), store(y), 1000)
        assert found.share.value == prdc(store(x), store(y)).precision.value == inside(x, y).mean()
        assert found.images.value == pytest.approx(1000 * found.share.value)
        assert found.share.low < found.share.value < found.share.high

    def test_the_null_is_half_of_the_target_against_the_other_half(self):
        nulls, truths = [], []
        for seed in range(12):
            nulls.append(usable(store(draw(160, seed=seed)), store(draw(50, seed=99)), 100).share.null)
            truths.append(inside(draw(80, seed=50 + seed), draw(80, seed=70 + seed)).mean())
        assert np.mean(nulls) == pytest.approx(np.mean(truths), abs=0.03)

    def test_images_on_the_edge_of_a_ball_and_copies_of_each_other_count(self):
        x = np.repeat(draw(30), 7, axis=0)
        found = usable(store(x), store(draw(40, seed=1)), 100)
        assert found.share.value == usable(store(draw(30)), store(draw(40, seed=1)), 100).share.value
        assert usable(store([[0.0], [1], [2], [10]]), store([[3.0]]), 10, k=1).share.value == 1.0
        assert usable(store([[0.0], [1], [2], [10]]), store([[19.0]]), 10, k=1).share.value == 0.0

    def test_copies_of_the_target_are_not_usable(self):
        x = draw(60)
        found = usable(store(x), store(np.concatenate([x[:20], draw(20, seed=1, shift=0.2)])), 100)
        assert found.share.value == inside(x, draw(20, seed=1, shift=0.2)).sum() / 40
        assert usable(store(x), store(x), 100).share.value == 0.0

    def test_takes_of_one_scene_are_one_neighbor(self):
        x = draw(40)
        takes = np.concatenate([x + 0.001 * i for i in range(6)])
        found = usable(store(takes, groups=[*range(40)] * 6), store(draw(50, seed=1)), 100)
        assert found.share.value == pytest.approx(inside(x, draw(50, seed=1)).mean(), abs=0.05)
        assert usable(store(takes), store(draw(50, seed=1)), 100).share.value < 0.1

    def test_an_offset_in_float32_changes_nothing(self):
        x, y = draw(90, d=6).astype(np.float32), draw(50, d=6, seed=1).astype(np.float32)
        plain, moved = (usable(x + np.float32(c), y + np.float32(c), 500) for c in (0, 100))
        assert plain.share.value == moved.share.value


class TestPrediction:
    @pytest.mark.parametrize("share", [0.15, 0.4, 0.8])
    @pytest.mark.parametrize(("n", "size"), [(200, 5_000), (60, 300), (40, 40), (200, 10**6)])
    def test_the_interval_covers_93_to_99_percent_of_deliveries(self, n, size, share):
        total = 0.0
        for hits in range(n + 1):
            low, high = _Sample(hits / n, n, float(n)).predict(size)
            kept = stats.binom.cdf(np.floor(high + 1e-6), size, share) - stats.binom.cdf(
                np.ceil(low - 1e-6) - 1, size, share
            )
            total += stats.binom.pmf(hits, n, share) * kept
        assert 0.93 <= total <= 0.99

    def test_the_interval_covers_deliveries_from_start_to_end(self):
        target = draw(60, d=2, seed=8)
        balls, rng, covered = store(target), np.random.default_rng(0), 0
        for _ in range(60):
            found = usable(balls, rng.normal(size=(50, 2)) + 1.5, 400).images
            covered += found.low <= inside(target, rng.normal(size=(400, 2)) + 1.5).sum() <= found.high
        assert covered >= 53

    def test_rows_of_a_group_widen_it(self):
        x, y = draw(80), draw(40, seed=1, shift=1.0)
        once = usable(store(x), store(y), 1000).images
        often = np.concatenate([y + 1e-4 * i for i in range(5)])
        grouped, loose = (usable(store(x), store(often, groups=g), 1000).images for g in ([*range(40)] * 5, None))
        assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high), rel=0.05)
        assert loose.high - loose.low < 0.7 * (grouped.high - grouped.low)

    def test_all_or_none_keep_a_width(self):
        x = draw(60)
        none = usable(store(x), store(draw(50, seed=1, shift=100)), 1000)
        assert (none.images.value, none.images.low) == (0.0, 0.0)
        assert 10 < none.images.high < 100
        every = usable(store(x), store(x[:50] + 1e-6), 1000)
        assert (every.images.value, every.images.high) == (1000.0, 1000.0)
        assert 900 < every.images.low < 990

    def test_large_deliveries_are_predicted_as_the_next_smaller_ones(self):
        x, y = draw(60), draw(150, seed=1, shift=1.2)
        near, far = (usable(store(x), store(y), size).images for size in (10_000, 10_001))
        assert (near.low, near.high) == pytest.approx((far.low, far.high), rel=2e-3)


class TestRepeats:
    def test_without_a_repeat_there_is_a_lower_bound_and_a_note(self):
        found = usable(store(draw(60)), store(draw(200, seed=1)), 100_000)
        assert (found.distinct.value, found.distinct.high) == (100_000, 100_000)
        assert found.distinct.low == pytest.approx(200 * 199 / 6, rel=0.01)
        assert "200 images with no picture twice only show that there are more than about 6,600" in found.notes[0]
        assert not usable(store(draw(60)), store(draw(200, seed=1)), 300).notes
        assert "too few to tell" in usable(store(draw(60)), store(draw(4, seed=1)), 300).notes[-1]

    @pytest.mark.parametrize("size", [250, 1_000, 20_000])
    def test_repeats_tell_how_many_different_images_there_are(self, size):
        rng, values, covered = np.random.default_rng(0), [], 0
        truth = 2_000 * (1 - (1 - 1 / 2_000) ** size)
        for _ in range(300):
            seen = np.unique(rng.integers(2_000, size=200), return_counts=True)[1]
            value, low, high = _Variety(seen).expected(size)
            values.append(value)
            covered += low <= truth <= high
        assert np.median(values) == pytest.approx(truth, rel=0.05)
        assert 0.87 <= covered / 300 <= 0.99

    def test_usable_images_are_those_of_different_pictures(self):
        pictures = draw(500, seed=3)
        drawn = np.random.default_rng(4).integers(500, size=200)
        found = usable(store(draw(40)), store(pictures[drawn]), 3_000)
        known = np.unique(drawn, return_counts=True)[1]
        figures = (found.distinct.value, found.distinct.low, found.distinct.high)
        assert figures == pytest.approx(_Variety(known).expected(3_000))
        assert found.images.value == pytest.approx(found.share.value * found.distinct.value)
        assert found.images.low < found.share.value * found.distinct.low * 1.05
        assert found.share.value == pytest.approx(inside(draw(40), pictures[np.unique(drawn)]).mean())

    def test_a_few_very_frequent_pictures_hide_no_others(self):
        pool = np.concatenate([np.repeat(draw(1, seed=5), 60, axis=0), draw(140, seed=6)])
        found = usable(store(draw(40)), store(pool), 10_000)
        # None was seen twice: 7 in 10 images are of pictures without number.
        assert found.distinct.value == pytest.approx(141 + 9_800 * 0.7)

    def test_a_delivery_smaller_than_the_sample_is_drawn_from_it(self):
        pool = np.repeat(draw(50, seed=1), 2, axis=0)
        found = usable(store(draw(40)), store(pool), 30).distinct
        missing = np.prod([(98 - i) / (100 - i) for i in range(30)])
        assert found.value == pytest.approx(50 * (1 - missing))
        assert found.low is None

    def test_nothing_but_repeats(self):
        found = usable(store(draw(40)), store(np.repeat(draw(1, seed=1), 50, axis=0)), 1_000)
        assert (found.distinct.value, found.images.value) == (1.0, 1.0)


class TestNotes:
    def test_images_that_are_like_few_of_the_target_are_noted(self):
        x = np.concatenate([draw(100, seed=1), draw(100, seed=2, shift=30)])
        one_kind = usable(store(x), store(draw(150, seed=3)), 200)
        assert not any("few of the target's" in note for note in one_kind.notes)
        few = usable(store(x), store(x[:3].repeat(50, axis=0) + 1e-3 * draw(150, seed=4)), 200)
        assert few.share.value == 1.0
        assert "like few of the target's images" in few.notes[0]


def test_is_json():
    found = usable(draw(40), draw(30, seed=1), 5_000)
    document = json.loads(json.dumps(found.to_json()))
    assert document["size"] == 5_000
    assert document["share"]["null"] == found.share.null
    assert document["images"]["low"] == found.images.low
    assert document["notes"] == list(found.notes)


def test_what_cannot_be_answered_is_refused():
    x = draw(40)
    with pytest.raises(UsageError, match="0 images"):
        usable(x, x, 0)
    with pytest.raises(TooFewImagesError, match="5 neighbors were asked for among 4 independent"):
        usable(x[:5], x, 10)
    with pytest.raises(EncoderMismatchError):
        usable(x, x[:, :2], 10)
    with pytest.raises(SourceError, match="not finite"):
        usable(x, np.full((3, 3), np.nan), 10)
    assert usable(x[:6], x[6:7], 10).share.null is None  # halves of six images have no fifth neighbor
    assert usable(x[:6], x[6:7], 10).share.value in (0.0, 1.0)
