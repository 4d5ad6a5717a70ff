import json

import numpy as np
import pyarrow as pa
import pytest

from curate.attribution import telling
from curate.distances import c2st, frechet, influence, influence_by
from embeddings.errors import EncoderMismatchError, SourceError, TooFewImagesError
from embeddings.store import EmbeddingStore

D = 6


def store(x, prefix="", **columns):
    made = EmbeddingStore.from_vectors(np.asarray(x), keys=[f"{prefix}{i:05d}" for i in range(len(x))])
    rows = made.rows()
    for name, values in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return EmbeddingStore(spec=made.spec, rows=rows, vectors=made.vectors())


def sides(n=200, m=220, shift=0.8, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, D)), rng.normal(size=(m, D))
    y[:, 0] += shift
    return x, y


class TestShown:
    def test_extreme_images_are_named_by_their_keys(self):
        x, y = sides()
        x[[7, 90], 0], y[[3, 150], 0], y[[8, 60], 0] = (-9, -8), (9, 8), (-9, -8)
        found = telling(store(x, "t"), store(y, "p"), count=2)
        assert [image.key for image in found.target_unlike] == ["t00007", "t00090"]
        assert [image.key for image in found.pool_unlike] == ["p00003", "p00150"]
        assert [image.key for image in found.pool_like] == ["p00008", "p00060"]
        assert found.auc == c2st(store(x, "t"), store(y, "p")).auc

    def test_scores_and_influences_are_those_of_the_rows(self):
        x, y = sides()
        target, pool = store(x, "t"), store(y, "p")
        found, test, pulled = telling(target, pool, count=5), c2st(target, pool), influence(target, pool)
        for image in (*found.pool_unlike, *found.pool_like, *found.pulling):
            row = int(image.key[1:])
            assert (image.score, image.influence) == (test.pool_scores[row], pulled[row])
        assert [image.score for image in found.target_unlike] == sorted(test.target_scores)[::-1][:5]
        assert all(image.influence is None for image in found.target_unlike)
        assert [image.influence for image in found.pulling] == sorted(pulled)[::-1][:5]

    def test_no_two_are_copies_or_of_one_group(self):
        x, y = sides()
        y[[3, 4, 5], 0] = 9
        y[6:10] = y[3]
        groups = [None] * len(y)
        groups[4] = groups[5] = "scene"
        found = telling(store(x, "t"), store(y, "p", group=groups), count=2)
        shown = [image.key for image in found.pool_unlike]
        assert len(shown) == 2
        assert len({*shown} & {"p00003", *(f"p{i:05d}" for i in range(6, 10))}) == 1
        assert len({*shown} & {"p00004", "p00005"}) == 1

    def test_no_more_are_shown_than_there_are(self):
        x, y = sides(n=25, m=30)
        found = telling(store(x), store(y), count=100)
        assert (len(found.target_unlike), len(found.pool_like)) == (25, 30)

    def test_arrays_are_named_by_their_row(self):
        x, y = sides()
        y[150, 0] = 9
        assert telling(x, y, count=1).pool_unlike[0].key == "150"


class TestPulls:
    def test_a_label_that_pulls_the_pool_away_comes_first(self):
        x, y = sides(n=600, m=600, shift=0)
        y[:60] += 2
        labels = ["odd"] * 60 + ["plain", "usual"] * 270
        found = telling(store(x), store(y, label=labels))
        assert found.by == "label"
        assert (found.pulls[0].name, found.pulls[0].n) == ("odd", 60)
        assert found.pulls[0].influence.low > 0
        by = influence_by(influence(store(x), store(y)), labels)
        assert {pull.name: pull.influence.value for pull in found.pulls} == pytest.approx(by)
        fall = frechet(store(x), store(y)).value - frechet(store(x), store(y[60:])).value
        assert found.pulls[0].influence.value == pytest.approx(fall, rel=0.4)
        assert {image.label for image in found.pulling} == {"odd"}

    def test_groups_stand_in_for_labels_and_have_no_interval_of_their_own(self):
        x, y = sides()
        found = telling(store(x), store(y, group=[f"site {i % 12}" for i in range(len(y))]))
        assert found.by == "group"
        assert len(found.pulls) == 12
        assert all(pull.influence.low is None for pull in found.pulls)

    def test_intervals_count_copies_once(self):
        x, y = sides(m=400)
        y[:40] += 2
        labels = ["odd"] * 40 + ["rest"] * 360
        once = telling(store(x), store(y, label=labels)).pulls[0].influence
        often = (
            telling(store(x), store(np.repeat(y, 4, axis=0), label=np.repeat(labels, 4).tolist())).pulls[0].influence
        )
        assert (often.value, often.se) == pytest.approx((once.value, once.se), rel=0.1)

    def test_a_pool_without_names_has_none(self):
        x, y = sides()
        found = telling(store(x), store(y, label=["one"] * len(y)))
        assert (found.by, found.pulls) == (None, ())

    def test_images_without_a_label_are_in_no_slice(self):
        x, y = sides()
        labels = ["a"] * 100 + ["b"] * 100 + [None] * 20
        assert {pull.name: pull.n for pull in telling(store(x), store(y, label=labels)).pulls} == {"a": 100, "b": 100}


def test_is_json():
    x, y = sides(n=40, m=40)
    document = json.loads(json.dumps(telling(store(x), store(y, label=["a", "b"] * 20), count=3).to_json()))
    assert len(document["pool_like"]) == 3
    assert document["pool_like"][0]["influence"] is not None
    assert {pull["name"] for pull in document["pulls"]} == {"a", "b"}
    assert document["pulls"][0]["influence"]["unit"] == "squared embedding units"


def test_too_few_images_other_encoders_and_values_that_are_not_finite_are_refused():
    x, y = sides()
    with pytest.raises(TooFewImagesError):
        telling(x, y[:19])
    with pytest.raises(EncoderMismatchError):
        telling(x, y[:, :2])
    with pytest.raises(SourceError, match="not finite"):
        telling(x, np.full((30, D), np.nan))
