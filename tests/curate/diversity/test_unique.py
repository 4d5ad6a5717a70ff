import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from curate.diversity import unique
from curate.diversity._unique import near_hashes
from embeddings.errors import EncoderMismatchError, SourceError, UsageError
from embeddings.store import EmbeddingStore

BITS64 = st.integers(0, 2**64 - 1)


def hashed(hashes, vectors=None):
    """A store of different pictures with these perceptual hashes (None: not known)."""
    vectors = np.arange(2.0 * len(hashes)).reshape(-1, 2) + 1 if vectors is None else vectors
    store = EmbeddingStore.from_vectors(vectors, keys=[f"{i:06d}" for i in range(len(hashes))])
    column = pa.array([None if h is None else f"{h:016x}" for h in hashes], pa.string())
    rows = store.rows().set_column(store.rows().schema.get_field_index("phash"), "phash", column)
    return EmbeddingStore(spec=store.spec, rows=rows, vectors=store.vectors())


def brute(hashes, bits):
    """Number of groups of hashes, by comparing all pairs."""
    near = [[(a ^ b).bit_count() <= bits for b in hashes] for a in hashes]
    return connected_components(np.array(near))[0]


@given(
    centers=st.lists(BITS64, min_size=1, max_size=6),
    flips=st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 63), max_size=8)), min_size=1, max_size=30),
    bits=st.integers(0, 9),
)
def test_near_hashes_are_those_of_comparing_all_pairs(centers, flips, bits):
    hashes = []
    for center, positions in flips:
        value = centers[center % len(centers)]
        for position in positions:
            value ^= 1 << position
        hashes.append(value)
    assert unique(hashed(hashes), bits=bits).n_unique_near == brute(hashes, bits)


def test_every_pair_within_the_limit_is_found_wherever_its_bits_lie():
    rng = np.random.default_rng(0)
    for bits in (1, 4, 16):
        first = int(rng.integers(2**63))
        for _ in range(50):
            second = first
            for position in rng.choice(64, size=bits, replace=False):
                second ^= 1 << int(position)
            pairs = {(int(i), int(j)) for a, b in near_hashes(np.array([first, second], np.uint64), bits)
                     for i, j in zip(a, b, strict=True) if i != j}  # fmt: skip
            assert pairs & {(0, 1), (1, 0)}
            assert unique(hashed([first, second]), bits=bits - 1).n_unique_near == 2


def test_counts_rates_and_diversity():
    store = hashed([0, 0b1111, 0b11111, 1 << 40 | 0xFFFF, None])
    found = unique(store)
    assert (found.images, found.n_unique, found.n_unique_near) == (5, 5, 3)  # the third is near to the second only
    assert found.group.tolist() == [0, 0, 0, 1, 2]
    assert (found.exact_rate, found.near_rate) == (0.0, pytest.approx(0.4))
    assert found.diversity(10) == 0.5
    assert found.diversity(10, near=True) == pytest.approx(0.3)
    assert "within 4 of 64 bits (4 hashed)" in found.method


def test_copies_are_found_without_hashes_and_across_a_union():
    x = np.random.default_rng(1).normal(size=(10, 4))
    found = unique(np.repeat(x, 7, axis=0))
    assert (found.images, found.n_unique, found.n_unique_near) == (70, 10, 10)
    union = unique([x, x[:5], x[:5] + 1])
    assert (union.images, union.n_unique) == (20, 15)
    assert union.group.tolist() == [*range(10), *range(5), *range(10, 15)]
    assert unique([hashed([0, 7]), hashed([1 << 60], np.ones((1, 2)) * 99)]).n_unique_near == 1


def test_blank_images_share_a_hash_and_count_as_one():
    assert unique(hashed([0] * 50 + [2**64 - 1]), bits=0).n_unique_near == 2


def test_cosine_similarity_joins_what_hashes_do_not_see():
    angles = np.deg2rad([0, 5, 9, 50, 90, 90])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[1], [2], [3], [1], [1], [5]]
    found = unique(x, near=np.cos(np.deg2rad(6)))
    assert (found.n_unique, found.n_unique_near) == (6, 3)
    assert found.group.tolist() == [0, 0, 0, 1, 2, 2]
    assert unique(x, near=1.0).n_unique_near == 5


def test_cosine_similarity_is_that_of_comparing_all_pairs_in_blocks(monkeypatch):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(120, 6)).astype(np.float32)
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    monkeypatch.setattr("curate.diversity._unique.BLOCK", 25)
    for near in (0.5, 0.8, 0.95):
        assert unique(x, near=near).n_unique_near == connected_components(unit @ unit.T >= near)[0]


def test_row_order_changes_no_count():
    rng = np.random.default_rng(3)
    hashes = [int(h) for h in rng.integers(2**63, size=300)]
    hashes += [h ^ (1 << int(rng.integers(63))) for h in hashes[:100]]
    counts = {unique(hashed([hashes[i] for i in order])).n_unique_near for order in (range(400), rng.permutation(400))}
    assert counts == {300}


def test_one_image_and_what_cannot_be_measured():
    assert unique(np.ones((1, 3))).n_unique_near == 1
    for wrong in ({"bits": -1}, {"bits": 17}, {"near": 0}, {"near": 1.5}):
        with pytest.raises(UsageError):
            unique(np.ones((2, 3)), **wrong)
    with pytest.raises(SourceError, match="is zero"):
        unique(np.zeros((2, 3)), near=0.9)
    with pytest.raises(SourceError, match="not finite"):
        unique(np.full((2, 3), np.nan))
    with pytest.raises(EncoderMismatchError):
        unique([np.ones((2, 3)), np.ones((2, 2))])
