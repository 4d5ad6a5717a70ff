import numpy as np
import pyarrow as pa
import pytest

from curate.diversity import duplicates, effective_rank
from embeddings.errors import TooFewImagesError
from embeddings.store import EmbeddingStore


def test_effective_rank_counts_equal_directions_and_ignores_empty_ones():
    corners = np.vstack([np.eye(5), -np.eye(5)]) @ np.eye(5, 9)
    assert effective_rank(corners) == pytest.approx(5.0)
    line = np.outer(np.arange(6.0), [1.0, 2.0, 3.0])
    assert effective_rank(line) == pytest.approx(1.0)
    assert effective_rank(np.ones((4, 3))) == 0.0


def test_effective_rank_is_the_entropy_of_the_spectrum_and_does_not_see_rotation_or_scale():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4)) * [1, 2, 3, 4]
    p = np.linalg.eigvalsh(np.cov(x.T))
    p /= p.sum()
    assert effective_rank(x) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
    q = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    assert effective_rank(7 * x @ q + 3) == pytest.approx(effective_rank(x), rel=1e-6)


def test_one_image_has_no_rank():
    with pytest.raises(TooFewImagesError):
        effective_rank(np.ones((1, 3)))


def test_duplicates_are_found_by_bytes_or_pixels_and_through_each_other():
    store = EmbeddingStore.from_vectors(np.arange(10.0).reshape(5, 2), keys=list("abcde"))
    rows = store.rows()
    rows = rows.set_column(rows.schema.get_field_index("sha256"), "sha256", pa.array(["1", "2", "1", "4", "5"]))
    rows = rows.set_column(rows.schema.get_field_index("pixels"), "pixels", pa.array(["p", "q", "r", "r", "s"]))
    doubled = EmbeddingStore(spec=store.spec, rows=rows, vectors=store.vectors())
    assert duplicates(doubled).tolist() == [0, 1, 0, 0, 2]
    assert duplicates(store).tolist() == [0, 1, 2, 3, 4]


def test_images_without_a_digest_are_not_duplicates_of_each_other():
    store = EmbeddingStore.from_vectors(np.arange(6.0).reshape(3, 2))
    unknown = pa.nulls(3, pa.string())
    rows = store.rows()
    for column in ("sha256", "pixels"):
        rows = rows.set_column(rows.schema.get_field_index(column), column, unknown)
    assert duplicates(EmbeddingStore(spec=store.spec, rows=rows, vectors=store.vectors())).tolist() == [0, 1, 2]
