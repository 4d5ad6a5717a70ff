import json

import numpy as np
import pyarrow as pa
import pytest

from curate.attribution import slices
from curate.attribution._slices import independent_rows
from curate.distances import coverage
from curate.distances._coverage import expected_coverage
from embeddings.errors import EncoderMismatchError, SourceError, TooFewImagesError, UnknownNameError, UsageError
from embeddings.store import EmbeddingStore


def store(x, labels=None, groups=None, prefix=""):
    made = EmbeddingStore.from_vectors(np.asarray(x), keys=[f"{prefix}{i:05d}" for i in range(len(x))])
    rows = made.rows()
    for name, values in (("label", labels), ("group", groups)):
        if values is not None:
            column = pa.array([None if v is None else str(v) for v in values], pa.string())
            rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    return EmbeddingStore(spec=made.spec, rows=rows, vectors=made.vectors())


def blobs(sizes, d=4, gap=12.0, seed=0):
    """Gaussian blobs far apart, and the blob of every row."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.normal(size=(len(label), d))
    x[:, 0] += gap * label
    return x, [f"kind {i}" for i in label]


class TestVerdicts:
    def test_the_slice_that_is_missing_in_all_pools_is_unserved(self):
        x, labels = blobs((120, 80, 40, 5))
        a, b = blobs((150, 1, 0, 0), seed=1)[0], blobs((1, 90, 0, 20), seed=2)[0]
        found = slices(store(x, labels), {"a": store(a), "b": store(b)})
        assert found.by == "label"
        verdicts = {s.name: (s.verdict, s.best) for s in found.slices}
        assert verdicts == {
            "kind 0": ("served", "a"),
            "kind 1": ("served", "b"),
            "kind 2": ("unserved", None),
            "kind 3": ("too few", "b"),
        }
        assert [s.name for s in found.unserved] == ["kind 2"]
        assert {s.name: s.n for s in found.slices} == {"kind 0": 120, "kind 1": 80, "kind 2": 40, "kind 3": 5}

    def test_the_worst_slice_comes_first_and_too_few_last(self):
        x, labels = blobs((60, 60, 60, 4))
        pool = np.concatenate([blobs((80, 0, 0, 0), seed=1)[0], blobs((0, 8, 0, 0), seed=2)[0]])
        found = slices(store(x, labels), {"p": store(pool)})
        assert [s.name for s in found.slices] == ["kind 2", "kind 1", "kind 0", "kind 3"]

    def test_a_small_pool_proves_nothing(self):
        x, labels = blobs((100, 100))
        missing = slices(store(x, labels), {"p": store(blobs((6, 0), seed=1)[0])})
        assert {s.name: s.verdict for s in missing.slices} == {"kind 0": "served", "kind 1": "unclear"}
        # Beside a large pool it is left to the union: alone it could not be told.
        both = slices(store(x, labels), {"p": store(blobs((6, 0), seed=1)[0]), "q": store(blobs((300, 0), seed=2)[0])})
        assert {s.name: s.verdict for s in both.slices} == {"kind 0": "served", "kind 1": "unserved"}

    @pytest.mark.parametrize(("n", "m"), [(150, 15), (150, 60), (150, 600), (300, 300)])
    def test_a_pool_of_the_same_distribution_leaves_no_slice_unserved(self, n, m):
        rng = np.random.default_rng(n + m)
        shares, wrong, covering, total = [], 0, 0, 0
        for _ in range(40):
            kinds = [rng.choice(5, size=s, p=[0.4, 0.3, 0.15, 0.1, 0.05]) for s in (n, m)]
            x, y = (rng.normal(size=(len(k), 6)) + 8 * k[:, None] for k in kinds)
            for s in slices(store(x, kinds[0]), {"p": store(y)}).slices:
                shares.append((s.coverage["p"].value, s.n))
                wrong += s.verdict == "unserved"
                covering += s.coverage["p"].low <= s.coverage["p"].null <= s.coverage["p"].high
                total += 1
        mean = np.average([v for v, _ in shares], weights=[w for _, w in shares])
        assert mean == pytest.approx(expected_coverage(n, m, 5), abs=0.035)
        assert wrong <= 0.01 * total
        assert covering >= 0.9 * total


class TestFigures:
    def test_one_slice_reads_what_coverage_reads(self):
        x, y = np.random.default_rng(0).normal(size=(2, 90, 5))
        found = slices(store(x, ["all"] * 90), {"p": store(y)}, by="label")
        assert found.slices[0].coverage["p"].value == coverage(store(x), store(y)).value
        assert found.slices[0].coverage["p"].null == coverage(store(x), store(y)).null
        assert found.slices[0].union == found.slices[0].coverage["p"]

    def test_the_null_is_that_of_each_pools_size(self):
        x, labels = blobs((60, 40))
        found = slices(store(x, labels), {"p": store(x[:30] + 0.01), "q": store(x[::-1] + 0.02)}).slices[0]
        assert found.coverage["p"].null == expected_coverage(100, 30, 5)
        assert found.coverage["q"].null == expected_coverage(100, 100, 5)
        assert found.union.null == expected_coverage(100, 130, 5)
        assert found.union.value >= max(e.value for e in found.coverage.values())

    def test_a_pool_given_twice_counts_once_in_the_union(self):
        x, labels = blobs((60, 40))
        y = store(x[:50] + 0.01)
        found = slices(store(x, labels), {"p": y, "again": y}).slices[0]
        assert found.union.null == expected_coverage(100, 50, 5)

    def test_copies_in_target_and_pool_change_nothing(self):
        x, labels = blobs((50, 30))
        y = blobs((60, 3), seed=1)[0]
        once = slices(store(x, labels), {"p": store(y)})
        often = slices(store(np.repeat(x, 7, axis=0), np.repeat(labels, 7)), {"p": store(np.repeat(y, 7, axis=0))})
        figures = [[(s.name, s.n, s.verdict, s.coverage["p"].value, s.union) for s in f.slices] for f in (once, often)]
        assert figures[0] == figures[1]

    def test_rows_of_a_group_count_as_one_image(self):
        rng = np.random.default_rng(0)
        x, labels = blobs((40, 40))
        near = np.concatenate([x, x + 0.01 * rng.normal(size=x.shape)])
        groups = [f"g{i}" for i in (*range(80), *range(80))]
        found = slices(store(near, labels * 2, groups), {"p": store(blobs((90, 90), seed=3)[0])})
        assert [s.n for s in found.slices] == [40, 40]
        assert all(s.verdict == "served" for s in found.slices)

    def test_an_offset_in_float32_changes_nothing(self):
        x, labels = blobs((50, 30))
        y = blobs((60, 3), seed=1)[0]
        plain, moved = (
            slices(store((x + c).astype(np.float32), labels), {"p": store((y + c).astype(np.float32))})
            for c in (0, 100)
        )
        assert [(s.name, s.coverage["p"].value) for s in plain.slices] == [
            (s.name, s.coverage["p"].value) for s in moved.slices
        ]

    def test_examples_are_the_images_nearest_to_the_middle(self):
        x = np.array([[0.0], [1], [2], [3], [4], [50], [60]])
        found = slices(store(x, ["a"] * 5 + ["b"] * 2), {"p": store(x + 0.1)}, by="label", k=1)
        assert {s.name: s.examples for s in found.slices} == {
            "a": ("00002", "00001", "00003"),
            "b": ("00005", "00006"),
        }

    def test_is_json(self):
        x, labels = blobs((30, 30))
        document = json.loads(json.dumps(slices(store(x, labels), {"p": store(x[:30] + 0.1)}).to_json()))
        assert document["unserved"] == ["kind 1"]
        assert document["slices"][0]["coverage"]["p"]["null"] == expected_coverage(60, 30, 5)


class TestCut:
    def test_labels_go_before_groups_before_clusters(self):
        x, labels = blobs((30, 30))
        pool = {"p": store(x + 0.1)}
        groups = [f"camera {i % 3}" for i in range(60)]
        assert slices(store(x, [*labels[:-1], None], [str(i) for i in range(60)]), pool).by == "label"
        assert slices(store(x, [str(i) for i in range(60)], groups), pool).by == "group"
        assert slices(store(x, None, groups), pool).by == "group"
        assert slices(store(x), pool).by == "cluster"
        assert slices(store(x, ["one"] * 60), pool).by == "cluster"

    def test_images_of_a_group_are_independent_where_groups_are_the_slices(self):
        x, _ = blobs((40, 40))
        found = slices(store(x, None, ["left"] * 40 + ["right"] * 40), {"p": store(blobs((80, 0), seed=1)[0])})
        assert {s.name: (s.n, s.verdict) for s in found.slices} == {"left": (40, "served"), "right": (40, "unserved")}

    def test_clusters_find_the_blobs(self):
        x, labels = blobs((40, 25, 15), gap=60)
        found = slices(store(x), {"p": store(blobs((50, 40, 0), gap=60, seed=1)[0])}, by="cluster")
        assert {s.name for s in found.slices} == {f"cluster {i + 1}" for i in range(len(found.slices))}
        sizes = [next(s.n for s in found.slices if s.name == f"cluster {i + 1}") for i in range(len(found.slices))]
        assert sizes == sorted(sizes, reverse=True)
        assert sum(sizes) == 80
        kinds = {s.name: {labels[int(key)] for key in s.examples} for s in found.slices}
        assert all(len(kind) == 1 for kind in kinds.values())
        assert {s.union.value for s in found.slices if kinds[s.name] == {"kind 2"}} == {0.0}
        served = [s for s in found.slices if kinds[s.name] != {"kind 2"}]
        assert np.average([s.union.value for s in served], weights=[s.n for s in served]) > 0.8

    def test_clusters_depend_on_the_seed_alone(self):
        x = np.random.default_rng(0).normal(size=(200, 8))
        a, b = (slices(store(x), {"p": store(x[:50] + 0.1)}) for _ in range(2))
        assert a == b

    def test_images_without_a_label_are_in_no_slice(self):
        x, labels = blobs((30, 30))
        found = slices(store(x, [*labels[:-5], *[None] * 5]), {"p": store(x + 0.1)})
        assert [s.n for s in found.slices] == [30, 25] or [s.n for s in found.slices] == [25, 30]
        assert "5 target images have no label" in found.notes[0]

    def test_a_representative_does_not_depend_on_the_other_images(self):
        x, _ = blobs((30,))
        groups = np.arange(30) // 3
        whole, part = store(x, None, groups), store(x[:15], None, groups[:15])
        assert set(independent_rows(part, groups[:15])) <= set(independent_rows(whole, groups))


class TestRefusals:
    def test_what_cannot_be_cut(self):
        x, labels = blobs((20, 20))
        with pytest.raises(UsageError, match="No pool"):
            slices(store(x, labels), {})
        with pytest.raises(UnknownNameError, match="labels"):
            slices(store(x, labels), {"p": store(x)}, by="labels")
        with pytest.raises(SourceError, match="no groups"):
            slices(store(x, labels), {"p": store(x)}, by="group")
        with pytest.raises(EncoderMismatchError, match="and p by"):
            slices(store(x, labels), {"p": store(x[:, :2])})
        with pytest.raises(SourceError, match="not finite"):
            slices(x, {"p": np.full((3, 4), np.nan)})

    def test_few_images_are_told_as_far_as_they_go(self):
        pool = {"p": store(np.arange(40.0)[:, None])}
        with pytest.raises(TooFewImagesError):
            slices(store([[1.0]]), pool)
        found = slices(store([[1.0], [2.0], [9.0]]), pool)
        assert found.k == 2
        assert "k = 2 instead of 5" in found.notes[0]
        assert {s.verdict for s in found.slices} == {"too few"}

    def test_images_that_differ_in_their_keys_alone_are_one_cluster(self):
        made = store(np.arange(60.0).reshape(30, 2))
        flat = EmbeddingStore(spec=made.spec, rows=made.rows(), vectors=np.ones((30, 2), np.float32))
        found = slices(flat, {"p": flat})
        assert [(s.name, s.n, s.union.value) for s in found.slices] == [("cluster 1", 30, 1.0)]
