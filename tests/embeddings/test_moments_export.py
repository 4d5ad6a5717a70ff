"""Exports of moments: what is refused, what is in the file, and the attack that the warnings are about."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from embeddings.errors import (
    CorruptError,
    EncoderMismatchError,
    ForeignFolderError,
    SourceError,
    TooFewImagesError,
    UsageError,
)
from embeddings.histograms import NeuronHistograms
from embeddings.moments import FOLDS, Folded, Moments
from embeddings.moments_export import DIFFERENCING, export_moments
from embeddings.moments_file import is_moments_file, read_moments
from embeddings.principal_moments import PrincipalMoments
from embeddings.store import EmbeddingStore

D = 200


def store(x, *, labels=None, groups=None, prefix="secret/path"):
    keys = [f"{prefix}-{i:06d}" for i in range(len(x))]
    made = EmbeddingStore.from_vectors(x, keys=keys)
    rows = made.rows()
    for name, values in (("label", labels), ("group", groups)):
        if values is not None:
            rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return EmbeddingStore(spec=made.spec, rows=rows, vectors=made.vectors(), facts={"source": "/home/someone/data"})


def wide(n=1500, d=D, seed=0):
    """[n, d] with a falling spectrum, of which a few dozen directions hold most."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) * 4 / np.arange(1, d + 1) ** 0.7 + rng.normal(size=d)).astype(np.float16)


def narrow(n=1000, d=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 1


class TestAllDimensions:
    def test_reads_back_as_the_moments_of_the_store(self, tmp_path):
        made = store(narrow())
        report = export_moments(made, tmp_path / "out" / "file.of-any-name")
        found = read_moments(report.path)
        assert (report.n, report.d, report.rank, found.rank, found.moments.rank) == (1000, 8, None, None, None)
        assert (found.spec, len(found)) == (made.spec, 1000)
        np.testing.assert_array_equal(found.moments.n, Folded(made).moments.n)
        np.testing.assert_array_equal(found.moments.mean, Folded(made).moments.mean)
        np.testing.assert_array_equal(found.moments.scatter, Folded(made).moments.scatter)
        assert found.moments.encoder == made.spec.fingerprint
        assert "all 8 dimensions" in report.notes[1]

    def test_is_chosen_where_every_fold_has_twice_as_many_images_as_dimensions(self, tmp_path):
        x = np.random.default_rng(0).normal(size=(1000, 60)).astype(np.float32)
        made = store(x)
        smallest = int(Folded(made).moments.n.min())
        assert 60 < smallest < 120
        assert export_moments(made, tmp_path / "a").rank == smallest // 2
        assert export_moments(store(x[:, : smallest // 2]), tmp_path / "b").rank is None


class TestMainDirections:
    def test_folds_keep_count_mean_and_trace_and_their_scatter_in_the_main_directions_of_their_half(self, tmp_path):
        made = store(wide())
        whole = Folded(made).moments
        report = export_moments(made, tmp_path / "m", directions=12)
        found = read_moments(report.path).moments
        assert (report.rank, found.rank) == (12, 12)
        np.testing.assert_array_equal(found.n, whole.n)
        np.testing.assert_array_equal(found.mean, whole.mean)
        for side in (0, 1):
            folds = list(range(side, FOLDS, 2))
            basis = np.linalg.eigh(whole.pooled(folds)[2])[1][:, -12:]
            (ours, our_traces), (theirs, traces) = (m.projected_scatter(basis) for m in (found, whole))
            for a, b in ((ours[0], theirs[0]), (our_traces, traces)):
                np.testing.assert_allclose(a[folds], b[folds], rtol=1e-4, atol=1e-4 * abs(b).max())
            # so the directions that a distance takes from one half are the half's own
            vectors = np.linalg.eigh(found.pooled(folds)[2])[1]
            assert np.linalg.svd(vectors[:, -12:].T @ basis)[1].min() > 0.99

    def test_outside_them_the_variance_is_that_of_the_half_and_then_isotropic(self, tmp_path):
        made = store(wide())
        whole = Folded(made).moments
        found = read_moments(export_moments(made, tmp_path / "m", directions=12).path)
        total = found.statistics.directions.shape[2]
        assert total == D - 1  # half of 1500 images carry more than there are
        for further in (0, 40):
            part = PrincipalMoments.of(whole, 12, further)
            for side in (0, 1):
                basis = np.linalg.svd(part.directions[side].astype(float))[0]
                basis[:, : 12 + further] = part.directions[side]
                folds = list(range(side, FOLDS, 2))
                ours, theirs = (m.projected_scatter(basis)[0][0][folds].sum(axis=0) for m in (part.expanded(), whole))
                variances = np.diag(theirs).copy()
                variances[12 + further :] = variances[12 + further :].mean()
                np.testing.assert_allclose(np.diag(ours), variances, rtol=1e-4)
                np.testing.assert_allclose(ours[12:, 12:], np.diag(variances[12:]), atol=1e-4 * variances[0])
                np.testing.assert_allclose(ours[:12, 12:], 0, atol=1e-4 * variances[0])

    def test_a_half_without_images_is_no_obstacle(self, tmp_path):
        x, folds = wide(300).astype(float), np.arange(300) % 5 * 2
        part = PrincipalMoments.of(Moments.from_vectors(x, folds), 10, 30)
        assert np.isfinite(part.expanded().scatter).all()
        np.testing.assert_allclose(np.trace(part.expanded().pooled()[2]), np.trace(np.cov(x.T)), rtol=1e-5)

    def test_as_many_as_half_the_smallest_fold_and_no_more_than_64_by_default(self, tmp_path):
        few, many = store(wide(800)), store(wide(2500))
        smallest = int(Folded(few).moments.n.min())
        report = export_moments(few, tmp_path / "few")
        assert report.rank == smallest // 2 < 64
        assert f"{smallest // 2} main directions" in report.notes[1]
        assert export_moments(many, tmp_path / "many").rank == 64

    def test_further_directions_have_twice_as_many_images_in_every_half(self, tmp_path):
        made = store(wide(700, d=500))
        n = Folded(made).moments.n
        found = read_moments(export_moments(made, tmp_path / "m").path).statistics
        assert found.directions.shape[2] == min(n[0::2].sum(), n[1::2].sum()) // 2

    def test_impossible_numbers_are_refused(self, tmp_path):
        made = store(wide(800))
        with pytest.raises(TooFewImagesError, match="60 directions need 120 different images in every fold; one has"):
            export_moments(made, tmp_path / "m", directions=60)
        for count in (0, -1, D, D + 1):
            with pytest.raises(UsageError, match="wanted 1 to 199"):
                export_moments(made, tmp_path / "m", directions=count)
        assert not list(tmp_path.iterdir())

    def test_features_without_variance_are_no_obstacle(self, tmp_path):
        x = np.ones((1000, 80))
        x[:, 0] = np.arange(1000)
        found = read_moments(export_moments(store(x), tmp_path / "m").path).moments
        np.testing.assert_allclose(found.pooled()[2][0, 0], np.var(x[:, 0], ddof=1), rtol=1e-6)
        assert abs(found.pooled()[2][1:, 1:]).max() < 1e-6

    def test_the_file_is_small(self, tmp_path):
        x = np.random.default_rng(0).normal(size=(1000, 1280)).astype(np.float16)
        assert export_moments(store(x), tmp_path / "m").bytes < 3.5e6


class TestRefusals:
    def test_under_50_images_in_a_fold(self, tmp_path):
        with pytest.raises(
            TooFewImagesError, match=r"these 300 images has \d+ different ones; an export needs 50"
        ) as e:
            export_moments(store(narrow(300)), tmp_path / "m")
        assert "650" in e.value.hint
        assert "group" in e.value.hint
        assert not list(tmp_path.iterdir())

    def test_copies_count_as_one_image(self, tmp_path):
        with pytest.raises(TooFewImagesError, match="different ones"):
            export_moments(store(np.repeat(narrow(100), 10, axis=0)), tmp_path / "m")

    def test_uneven_groups(self, tmp_path):
        groups = [f"g{i % 4}" if i < 900 else f"single{i}" for i in range(1000)]
        with pytest.raises(TooFewImagesError):
            export_moments(store(narrow(), groups=groups), tmp_path / "m")

    def test_a_fold_without_images_shows_none(self, tmp_path):
        groups = [f"g{i % 4}" for i in range(1000)]
        report = export_moments(store(narrow(), groups=groups), tmp_path / "m")
        assert (read_moments(report.path).moments.n == 0).sum() >= FOLDS - 4

    def test_another_file_is_not_overwritten(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(ForeignFolderError, match="no export of moments"):
            export_moments(store(narrow()), tmp_path / "thesis.txt")
        assert (tmp_path / "thesis.txt").read_text() == "years of work"


class TestDifferencing:
    @pytest.mark.parametrize("directions", [None, 3])
    def test_two_exports_that_differ_by_one_image_reveal_it(self, tmp_path, directions):
        x = narrow()
        for name, made in (("all", store(x)), ("without", store(x[:-1]))):
            export_moments(made, tmp_path / name, directions=directions)
        ours, theirs = (read_moments(tmp_path / name).statistics for name in ("all", "without"))
        revealed = ours.n @ ours.mean - theirs.n @ theirs.mean
        assert revealed @ x[-1] / np.linalg.norm(revealed) / np.linalg.norm(x[-1]) > 0.9999

    def test_so_every_export_warns(self, tmp_path):
        assert export_moments(store(narrow()), tmp_path / "m").notes[0] == DIFFERENCING

    def test_and_nearly_the_same_images_do_not_take_an_exports_place(self, tmp_path):
        x = narrow()
        changed = x.copy()
        changed[17] += 1
        export_moments(store(x), tmp_path / "m")
        before = (tmp_path / "m").read_bytes()
        for nearly in (x[:-1], changed, np.concatenate([x, x[:30] + 5])):
            with pytest.raises(ForeignFolderError, match="reveal them"):
                export_moments(store(nearly), tmp_path / "m")
        assert (tmp_path / "m").read_bytes() == before

    def test_the_same_images_do_and_so_do_many_more(self, tmp_path):
        x = narrow(3000)
        first = export_moments(store(x[:1000]), tmp_path / "m")
        before = first.path.read_bytes()
        export_moments(store(x[:1000]), tmp_path / "m")
        assert first.path.read_bytes() == before
        export_moments(store(x[:1000]), tmp_path / "m", directions=3)
        assert export_moments(store(x), tmp_path / "m").n == 3000

    def test_a_class_that_differs_by_one_image_is_seen_too(self, tmp_path):
        x = narrow(4000)
        labels = ["cat"] * 400 + ["dog"] * 1600 + ["dog"] * 2000
        export_moments(store(x[:2000], labels=labels[:2000]), tmp_path / "m", classes=True)
        labels[0] = "dog"
        with pytest.raises(ForeignFolderError, match="class 'cat' has 400 images, the new one 399"):
            export_moments(store(x, labels=labels), tmp_path / "m", classes=True)


class TestContents:
    def test_no_key_path_label_or_source_is_in_the_file(self, tmp_path):
        made = store(narrow(), labels=["confidential"] * 1000, groups=[f"patient-{i}" for i in range(1000)])
        data = export_moments(made, tmp_path / "m", histograms=True).path.read_bytes()
        for secret in (b"secret", b"someone", b"confidential", b"patient", made.digest.encode()):
            assert secret not in data

    def test_classes_when_asked_for_with_their_names(self, tmp_path):
        x = narrow(1200, d=40)
        labels = ["cat"] * 600 + ["dog"] * 500 + ["emu"] * 49 + [None] * 51
        made = store(x, labels=labels)
        report = export_moments(made, tmp_path / "m", classes=True)
        assert (report.classes, report.left_out_classes) == (("cat", "dog"), ("emu",))
        assert any("names of 2 classes" in note for note in report.notes)
        assert any("emu" in note for note in report.notes)
        assert b"emu" not in report.path.read_bytes()
        found = read_moments(report.path).classes
        assert (found.names, found.n.tolist()) == (("cat", "dog"), [600, 500])
        for i, rows in enumerate((slice(0, 600), slice(600, 1100))):
            np.testing.assert_allclose(found.mean[i], x[rows].mean(axis=0), rtol=1e-5, atol=1e-6)
            values, vectors = np.linalg.eigh(np.cov(x[rows].T))
            rest = values[:-32].mean()
            wanted = (vectors[:, -32:] * values[-32:]) @ vectors[:, -32:].T + rest * vectors[:, :-32] @ vectors[
                :, :-32
            ].T
            ours = found.root[i] @ found.root[i].T + found.rest[i] * np.eye(40)
            np.testing.assert_allclose(ours, wanted, atol=1e-5 * values[-1])

    def test_a_class_of_copies_is_left_out(self, tmp_path):
        x = narrow()
        x[:60] = x[0]
        made = store(x, labels=["logo"] * 60 + ["other"] * 940)
        # Without the others' class, too: taken from the whole it would leave the one picture of the logo.
        assert export_moments(made, tmp_path / "m", classes=True).left_out_classes == ("logo", "other")

    @pytest.mark.parametrize(("unlabeled", "kept"), [(1, ("a",)), (49, ("a",)), (50, ("a", "b")), (0, ("a", "b"))])
    def test_what_is_left_beside_the_classes_is_nothing_or_many(self, tmp_path, unlabeled, kept):
        x = narrow(1000)
        labels = [None] * unlabeled + ["b"] * 100 + ["a"] * (900 - unlabeled)
        report = export_moments(store(x, labels=labels), tmp_path / "m", classes=True)
        assert report.classes == kept
        found = read_moments(report.path)
        rest = found.moments.n @ found.moments.mean - found.classes.n @ found.classes.mean
        if unlabeled == 1:  # the attack: what is left of all images without their classes
            assert abs(np.dot(rest, x[0])) < 0.99 * np.linalg.norm(rest) * np.linalg.norm(x[0])

    def test_small_classes_keep_fewer_directions(self, tmp_path):
        made = store(narrow(1000, d=40), labels=["a"] * 50 + ["b"] * 950)
        root = read_moments(export_moments(made, tmp_path / "m", classes=True).path).classes.root
        assert [np.count_nonzero(np.abs(r).sum(axis=0)) for r in root] == [25, 32]

    def test_classes_of_unlabeled_images_are_refused(self, tmp_path):
        with pytest.raises(SourceError, match="no image has a label"):
            export_moments(store(narrow()), tmp_path / "m", classes=True)

    def test_every_class_too_small_leaves_none(self, tmp_path):
        made = store(narrow(), labels=[f"c{i % 30}" for i in range(1000)])
        report = export_moments(made, tmp_path / "m", classes=True)
        assert report.classes == ()
        assert len(report.left_out_classes) == 30
        assert read_moments(report.path).classes is None


class TestHistograms:
    def test_target_gives_a_range_and_the_pool_counts_over_it(self, tmp_path):
        target, pool = store(narrow()), store(narrow(seed=1))
        export_moments(target, tmp_path / "target", histograms=True)
        report = export_moments(pool, tmp_path / "pool", histograms=tmp_path / "target")
        ours, theirs = (read_moments(tmp_path / name).histograms for name in ("target", "pool"))
        ours.require_same_range(theirs)
        folds = Folded(pool).folds()
        direct = NeuronHistograms.empty(ours.low, ours.width).count(pool.vectors(), folds)
        np.testing.assert_array_equal(theirs.counts, direct.counts)
        # How far beyond the range an image lies is its activation: half a bin is told.
        np.testing.assert_allclose(theirs.beyond, direct.counts[:, :, [0, -1]] * ours.width[:, None] / 2)
        assert theirs.counts.dtype == np.int64
        assert any("Histograms" in note for note in report.notes)

    def test_range_is_of_the_set_not_of_its_extreme_images(self, tmp_path):
        x = narrow()
        x[5] *= 1000
        found = read_moments(export_moments(store(x), tmp_path / "a").path).moments.pooled()
        ours = read_moments(export_moments(store(x), tmp_path / "a", histograms=True).path).histograms
        np.testing.assert_allclose(ours.low, found[1] - 4 * np.sqrt(np.diag(found[2])), rtol=1e-6)
        assert (ours.counts[:, :, [0, -1]].sum(axis=(0, 2)) == 1).all()

    def test_what_cannot_be_counted_over_is_refused(self, tmp_path):
        made = store(narrow())
        export_moments(made, tmp_path / "bare")
        with pytest.raises(UsageError, match="holds no histograms"):
            export_moments(made, tmp_path / "m", histograms=tmp_path / "bare")
        with pytest.raises(SourceError, match="No file"):
            export_moments(made, tmp_path / "m", histograms=tmp_path / "absent")
        export_moments(store(narrow(d=7)), tmp_path / "other", histograms=True)
        with pytest.raises(EncoderMismatchError, match="dim: 7 against 8"):
            export_moments(made, tmp_path / "m", histograms=tmp_path / "other")
        (tmp_path / "text").write_text("no")
        with pytest.raises(CorruptError):
            export_moments(made, tmp_path / "m", histograms=tmp_path / "text")
        assert not is_moments_file(tmp_path / "m")
