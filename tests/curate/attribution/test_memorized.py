import json

import numpy as np
import pyarrow as pa
import pytest

from curate.attribution import memorized
from curate.distances import frechet, prdc
from embeddings.errors import EncoderMismatchError, SourceError, TooFewImagesError
from embeddings.store import EmbeddingStore


def store(x, prefix="", **columns):
    made = EmbeddingStore.from_vectors(np.asarray(x), keys=[f"{prefix}{i:05d}" for i in range(len(x))])
    rows = made.rows()
    for name, values in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return EmbeddingStore(spec=made.spec, rows=rows, vectors=made.vectors())


def draw(n, d=24, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


class TestPlanted:
    def test_a_generator_that_memorized_the_target_is_flagged_although_its_distance_is_excellent(self):
        rng = np.random.default_rng(9)
        x = draw(300)
        pool = x[rng.integers(300, size=300)] * 1.02 + 0.3 * rng.normal(size=(300, 24))
        honest = draw(300, seed=5)
        assert frechet(x, pool).value < frechet(x, honest).high
        found = memorized(store(x), store(pool))
        assert found.suspicious
        assert found.near.value > 0.9
        assert found.share.low > 0.9 > found.share.null
        assert found.exact.value == 0

    @pytest.mark.parametrize("planted", [15, 40])
    def test_a_few_copies_in_an_honest_pool_are_named(self, planted):
        x, pool = draw(400, seed=1), draw(300, seed=2)
        copied = np.random.default_rng(3).choice(400, planted, replace=False)
        pool[10 : 10 + planted] = x[copied] + 0.1 * draw(planted, seed=4)
        found = memorized(store(x, "t"), store(pool, "p"))
        assert found.suspicious
        assert found.count == planted
        assert {(pair.pool, pair.target) for pair in found.pairs} == {
            (f"p{10 + i:05d}", f"t{c:05d}") for i, c in enumerate(copied)
        }
        distances = [pair.distance for pair in found.pairs]
        assert distances == sorted(distances)
        pair = found.pairs[0]
        row, other = int(pair.pool[1:]), int(pair.target[1:])
        assert pair.distance == pytest.approx(np.linalg.norm(pool[row] - x[other]), abs=1e-5)
        beside = np.sort(np.linalg.norm(x - pool[row], axis=1))[1]
        assert pair.ratio == pytest.approx(pair.distance / beside, abs=1e-5)

    @pytest.mark.parametrize("d", [2, 8, 40])
    def test_honest_pools_are_not_flagged_and_read_their_nulls(self, d):
        shares, nulls, near, near_nulls, flags = [], [], [], [], 0
        for seed in range(20):
            rng = np.random.default_rng(seed)
            found = memorized(store(rng.normal(size=(150, d))), store(rng.normal(size=(150, d))))
            flags += found.suspicious
            shares, nulls = [*shares, found.share.value], [*nulls, found.share.null]
            near, near_nulls = [*near, found.near.value], [*near_nulls, found.near.null]
        assert flags <= 1
        assert np.mean(shares) == pytest.approx(np.mean(nulls), abs=0.03)
        assert np.mean(near) == pytest.approx(np.mean(near_nulls), abs=0.03)


class TestFigures:
    def test_hand_case(self):
        x = store([[0.0], [1], [3], [7]], "t")
        found = memorized(x, store([[0.2], [2.0], [6.9], [8.5], [3.0]], "p"))
        # 0.2 is 0.2 from 0 and 0.8 from 1; 2 as far from both; 6.9 is 0.1 from 7; 8.5 is far nearer to 7 than 3 is.
        pairs = [(pair.pool, pair.target) for pair in found.pairs]
        assert pairs == [("p00002", "t00003"), ("p00000", "t00000"), ("p00003", "t00003")]
        assert found.exact.value == 0.2
        assert (found.near.value, found.share.value) == (0.75, 1.0)
        assert found.spacing == 1.5

    def test_the_null_is_that_of_leaving_each_image_out(self):
        x = draw(60, d=3, seed=6)
        found = memorized(store(x), store(draw(20, d=3, seed=7)))
        one_by_one = [memorized(store(np.delete(x, i, axis=0)), store(x[i : i + 1])) for i in range(60)]
        assert found.share.null == pytest.approx(np.mean([m.share.value for m in one_by_one]))
        assert found.near.null == pytest.approx(np.mean([m.near.value for m in one_by_one]))

    def test_the_share_is_what_authenticity_leaves(self):
        x, y = draw(80, d=5, seed=8), draw(70, d=5, seed=9)
        assert memorized(store(x), store(y)).share.value == pytest.approx(
            1 - prdc(store(x), store(y)).authenticity.value
        )

    def test_copies_in_the_target_hide_nothing(self):
        x, pool = draw(100, seed=1), draw(60, seed=2)
        pool[:20] = x[:20] + 0.05 * draw(20, seed=4)
        once, often = (memorized(store(np.repeat(x, times, axis=0)), store(pool)) for times in (1, 7))
        figures = [(m.near.value, m.near.null, m.near_null_high, m.share.null, m.spacing) for m in (once, often)]
        assert figures[0] == pytest.approx(figures[1], abs=1e-12)
        assert once.suspicious
        assert often.suspicious

    def test_groups_in_the_target_hide_nothing(self):
        x, pool = draw(100, seed=1), draw(60, seed=2)
        pool[:20] = x[:20] + 0.05 * draw(20, seed=4)
        takes = np.concatenate([x, x + 0.05 * draw(100, seed=5)])
        groups = [f"g{i}" for i in (*range(100), *range(100))]
        assert memorized(store(takes, group=groups), store(pool)).count == 20
        assert memorized(store(takes), store(pool)).count < 5

    def test_a_pool_that_repeats_one_copy_proves_nothing(self):
        x = draw(100, seed=1)
        pool = np.concatenate([draw(60, seed=2), np.repeat(x[:1] + 0.05, 60, axis=0)])
        assert memorized(store(x), store(pool)).near.low < 0.4
        once = memorized(store(x), store(pool[:61]))
        assert once.near.high < 0.15
        assert not once.suspicious

    def test_exact_copies_are_counted_apart(self):
        x = draw(50)
        found = memorized(store(x), store(x))
        assert found.exact.value == 1.0
        assert (found.near.value, found.share.value, found.suspicious, found.pairs) == (None, None, False, ())
        assert "exact copy" in found.near.reason
        half = memorized(store(x), store(np.concatenate([x[:25], draw(25, seed=3)])))
        assert half.exact.value == 0.5
        assert half.count == 0

    def test_perceptual_hashes_are_second_evidence(self):
        x = draw(40)
        hashes = [f"{i * 0x0123456789ABCDEF % 2**64:016x}" for i in range(40)]
        turned = [f"{int(h, 16) ^ 0b101:016x}" for h in hashes[:5]] + ["ffffffff00000000"] * 4 + [None]
        found = memorized(store(x, phash=hashes), store(x[:10] + 0.01, phash=turned))
        bits = {int(pair.pool): pair.bits for pair in found.pairs}
        assert [bits[i] for i in range(5)] == [2] * 5
        assert bits[9] is None
        assert (found.count, found.seen_by_hash) == (10, 5)

    def test_at_most_a_hundred_pairs_are_listed(self):
        x = draw(150)
        found = memorized(store(x), store(x + 0.001))
        assert (found.count, len(found.pairs)) == (150, 100)

    def test_float16_and_an_offset_change_nothing(self):
        x, pool = draw(80, seed=1).astype(np.float16), draw(60, seed=2).astype(np.float16)
        pool[:20] = x[:20] + np.float16(0.05)
        plain = memorized(store(x), store(pool))
        moved = memorized(store(x.astype(np.float32) + 100), store(pool.astype(np.float32) + 100))
        assert (plain.count, plain.near.null, plain.share.value) == (moved.count, moved.near.null, moved.share.value)

    def test_is_json(self):
        x = draw(40)
        document = json.loads(json.dumps(memorized(store(x), store(x[:9] + 0.01)).to_json()))
        assert document["suspicious"] is True
        assert document["pairs"][0]["bits"] is None
        assert document["exact"]["value"] == 0.0


class TestRefusals:
    def test_few_images_other_encoders_and_values_that_are_not_finite(self):
        with pytest.raises(TooFewImagesError, match="2 neighbors were asked for among 1 independent"):
            memorized(store([[0.0], [1.0]]), store([[0.5]]))
        with pytest.raises(EncoderMismatchError):
            memorized(store(draw(9)), store(draw(9, d=3)))
        with pytest.raises(SourceError, match="not finite"):
            memorized(draw(9), np.full((3, 24), np.inf))

    def test_constant_features_prove_nothing(self):
        made = store(np.arange(30.0)[:, None])
        flat = EmbeddingStore(spec=made.spec, rows=made.rows(), vectors=np.ones((30, 1), np.float32))
        other = EmbeddingStore(spec=made.spec, rows=store(draw(30, d=1)).rows(), vectors=np.ones((30, 1), np.float32))
        found = memorized(flat, other)
        assert (found.near.value, found.near.null, found.suspicious) == (1.0, 1.0, False)
