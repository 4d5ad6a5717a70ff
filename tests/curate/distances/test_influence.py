import numpy as np
import pytest
from scipy import linalg
from scipy.stats import rankdata

from curate.distances import frechet, influence, influence_by
from curate.distances._frechet import DIRECTIONS, TargetFrame, gaussian_distance
from curate.distances._influence import transport
from curate.distances._samples import as_moments
from embeddings.errors import EncoderMismatchError, SourceError, TooFewImagesError, UsageError
from embeddings.store import EmbeddingStore


def sample(n, d, rng, scale=1.0, shift=0.0):
    return scale * rng.normal(size=(n, d)) / np.sqrt(np.arange(1, d + 1)) + shift


def distance(frame, pool):
    """F of a pool, by numpy's own covariance and not by fold."""
    total = 0.0
    for direction in (d for half in frame.halves for d in half):
        basis, target = direction.basis, direction.target.gaussian(direction.folds)
        mean, covariance = pool.mean(axis=0), np.cov(pool.T)
        inside = basis.T @ covariance @ basis
        outer = pool.mean(axis=0) - basis @ (basis.T @ mean)
        theirs = type(target)(basis.T @ mean, outer, inside, max(np.trace(covariance) - np.trace(inside), 0.0))
        total += direction.weight / 2 * gaussian_distance(target, theirs)
    return total


def left_out(target, pool, k=DIRECTIONS):
    frame = TargetFrame.of(as_moments(target), k)
    whole = distance(frame, pool)
    return np.array([whole - distance(frame, np.delete(pool, i, axis=0)) for i in range(len(pool))])


@pytest.mark.parametrize(("n", "m"), [(1000, 400), (300, 300), (100, 100), (60, 60), (60, 400)])
def test_agrees_with_leaving_each_image_out(n, m):
    rng = np.random.default_rng(n)
    x, y = sample(n, 32, rng), sample(m, 32, rng, 1.1, 0.05)
    y[: m // 10] += 0.5
    found, truth = influence(x, y), left_out(x, y)
    assert found.dtype == np.float64
    assert found.shape == (m,)
    assert np.corrcoef(found, truth)[0, 1] > 0.99
    assert 0.98 < np.polyfit(truth, found, 1)[0] < 1.08


def test_a_planted_subgroup_is_found_and_its_removal_foretold():
    rng = np.random.default_rng(1)
    x, y = sample(1000, 32, rng), sample(1000, 32, rng, shift=0.3)  # at no distance all is of second order
    y[:40] += 0.5
    found = influence(x, y)
    ranks = rankdata(found)[:40].sum() - 40 * 41 / 2
    assert ranks / (40 * 960) > 0.98
    frame = TargetFrame.of(as_moments(x))
    truth = distance(frame, y) - distance(frame, y[40:])
    by = influence_by(found, ["planted"] * 40 + ["rest"] * 960)
    assert list(by) == ["planted", "rest"]
    assert by["planted"] == pytest.approx(truth, rel=0.3)
    assert frechet(x, y[np.argsort(found)[:900]]).value < frechet(x, y).value


def test_slices_sum_their_images_largest_first():
    values = np.array([1.0, -2.0, 4.0, 8.0, 0.5])
    assert influence_by(values, ["b", "a", "b", None, "c"]) == {"b": 5.0, "c": 0.5, "a": -2.0}
    assert influence_by(values, [None] * 5) == {}
    with pytest.raises(UsageError, match="5 influences with 2 slice names"):
        influence_by(values, ["a", "b"])


def test_the_whole_pool_adds_up_to_about_nothing():
    rng = np.random.default_rng(2)
    found = influence(sample(200, 16, rng), sample(500, 16, rng, 1.3, 0.2))
    assert abs(found.sum()) < 0.02 * np.abs(found).sum()


def test_rows_keep_their_order_rotation_and_offset_change_nothing_and_scale_is_squared():
    rng = np.random.default_rng(3)
    x, y = sample(120, 12, rng), sample(150, 12, rng, 1.2, 0.3)
    q, order = np.linalg.qr(rng.normal(size=(12, 12)))[0], rng.permutation(150)
    base = influence(x, y)
    np.testing.assert_allclose(influence(x, y[order]), base[order], atol=1e-9)
    np.testing.assert_allclose(influence(3 * x @ q, 3 * y @ q), 9 * base, atol=1e-7)
    offset = influence((x + 100).astype(np.float32), (y + 100).astype(np.float32))
    np.testing.assert_allclose(offset, base, atol=2e-4 * np.abs(base).max() + 1e-6)
    half = influence(x.astype(np.float16), y.astype(np.float16))
    assert np.corrcoef(half, base)[0, 1] > 0.999


def test_a_store_keeps_its_own_row_order_across_blocks():
    rng = np.random.default_rng(4)
    x, y = sample(60, 4, rng), sample(5000, 4, rng, 1.1)
    keys = [f"{i:05d}" for i in range(5000)]
    np.testing.assert_allclose(influence(x, EmbeddingStore.from_vectors(y, keys=keys)), influence(x, y), atol=1e-10)


def test_the_map_carries_one_covariance_to_the_other():
    rng = np.random.default_rng(5)
    a, b = (np.cov(rng.normal(size=(5, 40))) for _ in range(2))
    t = transport(b, a)
    np.testing.assert_allclose(t @ b @ t, a, atol=1e-10)
    root = linalg.sqrtm(a)
    np.testing.assert_allclose(t, root @ np.linalg.inv(linalg.sqrtm(root @ b @ root)) @ root, atol=1e-8)
    np.testing.assert_allclose(transport(np.diag([4.0, 0]), np.diag([9.0, 1])), np.diag([1.5, 0]), atol=1e-12)
    assert not transport(np.zeros((2, 2)), np.eye(2)).any()


def test_singular_covariances_agree_with_leaving_images_out():
    rng = np.random.default_rng(6)
    x, y = np.zeros((200, 10)), np.zeros((300, 10))
    x[:, :3], y[:, 2:5] = rng.normal(size=(200, 3)), rng.normal(size=(300, 3))
    assert np.corrcoef(influence(x, y), left_out(x, y))[0, 1] > 0.99


def test_fewer_images_than_dimensions():
    rng = np.random.default_rng(7)
    x, y = sample(80, 300, rng), sample(90, 300, rng, 1.2, 0.1)
    assert np.corrcoef(influence(x, y), left_out(x, y))[0, 1] > 0.98


def test_a_constant_pool_and_the_target_itself():
    rng = np.random.default_rng(8)
    x = sample(100, 6, rng)
    np.testing.assert_allclose(influence(x, np.ones((50, 6))), 0.0, atol=1e-12)
    scale = np.abs(influence(x, x + 1)).mean()
    assert np.abs(influence(x, x)).mean() < 0.1 * scale
    often = influence(x, np.repeat(x + 1, 7, axis=0)).reshape(100, 7)
    np.testing.assert_allclose(often, np.repeat(often[:, :1], 7, axis=1), atol=1e-12)


def test_what_cannot_be_compared_is_refused():
    x = sample(50, 4, np.random.default_rng(9))
    with pytest.raises(TooFewImagesError, match="pool has 1 image;"):
        influence(x, x[:1])
    with pytest.raises(TooFewImagesError, match="target has 1 image;"):
        influence(x[:1], x)
    with pytest.raises(EncoderMismatchError):
        influence(x, x[:, :3])
    bad = x.copy()
    bad[7, 0] = np.nan
    with pytest.raises(SourceError, match="'7' is not finite"):
        influence(x, bad)
