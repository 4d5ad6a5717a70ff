"""Near duplicates and decontamination: a naive oracle, chains, clumps, cameras, pictures, and what must not matter."""

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from threadpoolctl import threadpool_limits

from curate.selection import _near_duplicates, _near_pairs
from curate.selection._near_duplicates import ALIKE, SAME, near_duplicates
from curate.selection._near_pairs import Areas, Images, Limits, NearPairs
from curate.selection._small_pictures import SmallPictures, colors, contrast
from embeddings.files import digest_bytes
from embeddings.spec import EncoderSpec
from embeddings.store import ROWS, EmbeddingStore
from embeddings.vectors import ShardedVectors

NOTHING = np.zeros(0, np.int64)


def store_of(vectors, hashes=None, *, shards=1):
    """A store of vectors that have no pictures; hashes as integers."""
    plain = EmbeddingStore.from_vectors(np.asarray(vectors, np.float32), keys=[f"{i:06d}" for i in range(len(vectors))])
    texts = [None if h is None else f"{h:016x}" for h in (hashes if hashes is not None else [None] * len(vectors))]
    rows = plain.rows().set_column(ROWS.get_field_index("phash"), "phash", pa.array(texts, pa.string()))
    parts = ShardedVectors(np.array_split(np.asarray(plain.vectors()), shards))
    return EmbeddingStore(spec=plain.spec, rows=rows, vectors=parts)


def run(*stores, order=None, evaluation=NOTHING, **kwargs):
    origin = np.repeat(np.arange(len(stores)), [len(store) for store in stores])
    place = np.concatenate([np.arange(len(store)) for store in stores])
    order = np.setdiff1d(np.arange(len(place)), evaluation) if order is None else order
    return near_duplicates(stores, (origin, place), order, evaluation=evaluation, **kwargs)


def copies(vectors, rows, size=1e-3, seed=9):
    """Some rows again, moved a little."""
    moves = np.random.default_rng(seed).normal(size=(len(rows), vectors.shape[1]))
    return vectors[rows] + size * moves / np.linalg.norm(moves, axis=1, keepdims=True) * np.linalg.norm(vectors[rows])


def clumpy(n=600, d=24, seed=0):
    """Points of which a third come several times, a little moved each time."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    for _ in range(2):
        rows = rng.choice(n, n // 3, replace=False)
        x[rows] = x[rng.choice(n, n // 3)] + 0.03 * rng.normal(size=(n // 3, d))
    return x


def naive(pairs, order):
    """The independent set, by comparing each image with every kept one."""
    kept, kept_for = [], {}
    for row in order.tolist():
        others = np.array(kept, np.int64)
        same, distance = pairs.confirm(others, np.full(len(others), row))
        kept_for[row] = int(others[same][np.argmin(distance[same])]) if same.any() else row
        kept += [row] if kept_for[row] == row else []
    return np.array([kept_for[row] for row in order.tolist()])


def pairs_of(store, rule=SAME):
    return NearPairs.of(Images(stores=[store], origin=np.zeros(len(store), int), place=np.arange(len(store))), rule)


@pytest.mark.parametrize("leaf", [1, 16, 5_000])
def test_the_independent_set_is_that_of_a_naive_walk(leaf, monkeypatch):
    monkeypatch.setattr(_near_duplicates, "LEAF", leaf)
    pairs, order = pairs_of(store_of(clumpy(300))), np.random.default_rng(1).permutation(300)
    ours, theirs = _near_duplicates.independent_set(pairs, order), naive(pairs, order)
    kept = order[theirs == order]
    assert 100 < len(kept) < 250
    np.testing.assert_array_equal(order[ours == order], kept)
    assert np.isin(ours, kept).all()  # an image only goes because of one that stays
    a, b = pairs.among(kept)
    assert not pairs.confirm(a, b)[0].any()


def test_a_chain_loses_every_second_link_not_all_but_one():
    angle = np.arange(9) * 0.04
    chain = np.stack([np.cos(angle), np.sin(angle), np.zeros(9)], axis=1)
    store = store_of(np.vstack([chain, -chain.mean(axis=0) * np.ones((9, 3))]))
    pairs = pairs_of(store)
    near = np.array([(i, i + 1) for i in range(8)]).T
    pairs.among = lambda rows: tuple(near)
    pairs.confirm = lambda a, b: (np.ones(len(a), bool), np.full(len(a), 0.04))
    kept_for = _near_duplicates.independent_set(pairs, np.arange(9))
    np.testing.assert_array_equal(np.flatnonzero(kept_for == np.arange(9)), [0, 2, 4, 6, 8])


def test_priority_decides_which_of_two_copies_stays():
    x = np.random.default_rng(0).normal(size=(200, 16))
    target, pool = store_of(x), store_of(copies(x, np.arange(50)))
    first, last = run(target, pool), run(target, pool, order=np.arange(250)[::-1])
    np.testing.assert_array_equal(first.kept_for, np.r_[np.arange(200), np.arange(50)])
    np.testing.assert_array_equal(last.kept_for, np.r_[np.arange(200, 250), np.arange(50, 250)])
    assert first.facts["near_duplicates"] == 50


@pytest.mark.parametrize("d", [1, 2, 3, 12, 64])
def test_points_without_copies_stay_in_any_number_of_dimensions(d):
    x = np.random.default_rng(d).normal(size=(3_000, d))
    found = run(store_of(x))
    assert (found.kept_for != np.arange(3_000)).mean() < 0.01


def test_hashes_help_where_vectors_are_near_and_never_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 32))
    hashes = [int(h) for h in rng.integers(0, 2**63, 300)]
    moved = copies(x, np.arange(40), size=0.09 / np.sqrt(40))  # beyond what vectors alone may tell
    same, other = hashes[:20], [h ^ 0xFFF for h in hashes[20:40]]
    found = run(store_of(x, hashes), store_of(moved, same + other))
    lost = np.flatnonzero(found.kept_for != np.arange(340))
    distance = pairs_of(store_of(np.vstack([x, moved]))).distances(np.arange(40), np.arange(300, 340))
    assert SAME.unseen.near < distance.min()
    assert distance.max() < SAME.unseen.far
    np.testing.assert_array_equal(lost, np.arange(300, 320))
    blank = run(store_of(x, [0] * 300))
    np.testing.assert_array_equal(blank.kept_for, np.arange(300))


def test_one_camera_is_not_one_picture():
    rng = np.random.default_rng(0)
    web, parts = rng.normal(size=(1_600, 32)), 6 + 0.02 * rng.normal(size=(1_600, 32))
    hashes = [int(h) for h in rng.integers(0, 2**63, 1_600)] + [7] * 1_600
    store = store_of(np.vstack([web, parts]), hashes)
    pairs = pairs_of(store)
    assert pairs.telling[:1_600].all()
    assert not pairs.telling[1_600:].any()
    assert (run(store).kept_for != np.arange(3_200)).mean() < 0.01
    again = run(store, store_of(parts[:20] + 1e-5, [7] * 20))
    assert (again.kept_for[3_200:] < 3_200).all()  # copies among them are found all the same


def test_what_resembles_an_evaluation_image_goes_with_all_its_duplicates():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 24))
    pairs = pairs_of(store_of(x))
    step = 0.04 * np.linalg.norm(x[:1] - x.mean(axis=0))
    move = np.eye(24)[:1] * step
    chain = np.vstack([x[:1] + i * move for i in range(1, 6)])  # 5 images, each nearly the one before
    found = run(store_of(x[1:]), store_of(chain), store_of(x[:1]), evaluation=np.array([404]))
    assert SAME.unseen.near < 5 * 0.04  # the last is no duplicate of the evaluation image itself
    np.testing.assert_array_equal(np.flatnonzero(found.cause == 404), np.arange(399, 404))
    assert found.facts["contaminated"] == 5
    np.testing.assert_array_equal(found.kept_for[399:404], np.arange(399, 404))
    assert pairs.rule is SAME


def test_evaluation_is_looser_than_deduplication():
    for loose, strict in ((ALIKE.seen, SAME.seen), (ALIKE.unseen, SAME.unseen)):
        assert loose.near > strict.near
        assert loose.far > strict.far
        assert loose.bits > strict.bits
    assert ALIKE.contrast > SAME.contrast
    x = np.random.default_rng(0).normal(size=(300, 24))
    moved = copies(x, np.arange(20), size=0.065 / np.sqrt(20))
    distance = pairs_of(store_of(np.vstack([x, moved]))).distances(np.arange(20), np.arange(300, 320))
    between = np.flatnonzero((distance > SAME.unseen.near + 0.005) & (distance < ALIKE.unseen.near - 0.005))
    moved, count = moved[between], len(between)
    assert count > 10
    assert (run(store_of(x), store_of(moved)).kept_for == np.arange(300 + count)).all()
    found = run(store_of(x), store_of(moved), evaluation=np.arange(300, 300 + count))
    np.testing.assert_array_equal(np.flatnonzero(found.cause >= 0), between)
    np.testing.assert_array_equal(found.cause[between], np.arange(300, 300 + count))


def test_rows_that_are_no_candidates_are_checked_but_push_nobody_out():
    x = np.random.default_rng(0).normal(size=(100, 16))
    target, pool, test = store_of(x), store_of(copies(x, np.arange(10))), store_of(x[5:6])
    found = run(target, pool, test, order=np.arange(100, 110), checked=np.arange(100), evaluation=np.array([110]))
    np.testing.assert_array_equal(np.flatnonzero(found.cause >= 0), [5, 105])
    np.testing.assert_array_equal(found.kept_for, np.arange(111))


@pytest.mark.parametrize("vectors", [np.ones((500, 8)), np.zeros((500, 3)), np.ones((1, 5))])
def test_identical_vectors_are_one_image(vectors):
    assert (run(store_of(vectors)).kept_for == 0).all()


def test_a_large_clump_costs_little(monkeypatch):
    monkeypatch.setattr(_near_duplicates, "LEAF", 256)
    x = np.random.default_rng(0).normal(size=(4_000, 16))
    x[500:] = x[3]
    pairs = pairs_of(store_of(x))
    confirmed, confirm = [], pairs.confirm
    pairs.confirm = lambda a, b: confirmed.append(len(a)) or confirm(a, b)
    kept_for = _near_duplicates.independent_set(pairs, np.arange(4_000))
    assert (kept_for[500:] == 3).all()
    assert sum(confirmed) < 2 * 4_000


def areas_only(monkeypatch, area=100):
    monkeypatch.setattr(_near_pairs, "EXACT", 0)
    monkeypatch.setattr(_near_pairs, "AREA", area)
    monkeypatch.setattr(_near_duplicates, "LEAF", 32)


def test_areas_find_what_all_pairs_find_and_say_how_much(monkeypatch):
    store = store_of(clumpy(3_000, seed=4))
    exact = run(store)
    areas_only(monkeypatch)
    found = run(store)
    kept = [r.kept_for == np.arange(3_000) for r in (exact, found)]
    assert (kept[0] != kept[1]).mean() < 0.02
    assert found.facts["recall"] >= 0.95
    assert found.facts["recall_pairs"] > 100
    assert found.facts["compared_share"] < 0.6 * exact.facts["compared_share"] + 1024 / 1500
    assert exact.facts["recall"] == 1


def test_a_low_recall_widens_the_search(monkeypatch):
    areas_only(monkeypatch, area=30)
    monkeypatch.setattr(_near_duplicates, "WANTED", 1.1)
    assert run(store_of(clumpy(900, seed=4))).facts["areas"] == Areas.MOST


def test_shards_threads_and_tiles_do_not_matter(monkeypatch):
    areas_only(monkeypatch)
    x = clumpy(1_500, seed=2)
    plain = run(store_of(x), evaluation=np.arange(1_450, 1_500))
    monkeypatch.setattr(_near_pairs, "PAIR_BYTES", 10_000)
    with threadpool_limits(2):
        again = run(store_of(x, shards=7), evaluation=np.arange(1_450, 1_500))
    np.testing.assert_array_equal(plain.kept_for, again.kept_for)
    np.testing.assert_array_equal(plain.cause, again.cause)
    assert (plain.cause >= 0).any()


def test_distances_are_those_of_the_formula():
    x = np.random.default_rng(0).normal(size=(50, 100)) + 3
    pairs = pairs_of(store_of(x))
    wide = x.astype(np.float32).astype(float)
    units = wide - wide.mean(axis=0)
    length = np.linalg.norm(units, axis=1)
    units /= length[:, None]
    a, b = np.triu_indices(50, 1)
    wanted = np.hypot(np.linalg.norm(units[a] - units[b], axis=1), np.log(length[a] / length[b]))
    np.testing.assert_allclose(pairs.distances(a, b), wanted, atol=1e-6)


def test_no_pair_within_the_limits_escapes_the_projection():
    x = clumpy(400, d=200)
    pairs = pairs_of(store_of(x), SAME)
    a, b = np.triu_indices(400, 1)
    wanted = Limits(near=0.05, far=0.15, bits=2).hold(pairs.distances(a, b), np.full(len(a), 64))
    found = set(zip(*(side.tolist() for side in pairs.among(np.arange(400))), strict=True))
    assert wanted.sum() > 50
    assert set(zip(a[wanted].tolist(), b[wanted].tolist(), strict=True)) <= found


def face(color, size=64):
    """A disk of one color with two eyes, on white."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    pixels = np.full((size, size, 3), 255, np.uint8)
    pixels[x**2 + y**2 < 0.16] = color
    for side in (-0.15, 0.15):
        pixels[(x - side) ** 2 + (y + 0.1) ** 2 < 0.004] = 0
    return Image.fromarray(pixels)


def test_contrast_tells_skin_tones_from_copies(tmp_path):
    light, dark = face((250, 220, 190)), face((190, 140, 100))
    light.save(tmp_path / "light.jpg", quality=50)
    again, smaller, cut = Image.open(tmp_path / "light.jpg"), light.resize((40, 40)), light.crop((1, 1, 63, 63))
    for copy in (again, smaller, cut):
        assert contrast(colors(light), colors(copy)) == contrast(colors(copy), colors(light)) <= SAME.contrast
    assert contrast(colors(light), colors(dark)) > ALIKE.contrast


def picture_store(folder, images, vectors):
    """A store in memory of pictures on disk."""
    columns = {field.name: pa.nulls(len(images), field.type) for field in ROWS}
    names = sorted(images)
    for name in names:
        images[name].save(folder / name)
    columns["key"] = columns["uri"] = pa.array(names)
    columns["sha256"] = pa.array([digest_bytes((folder / name).read_bytes()) for name in names])
    columns["phash"] = pa.array(["00000000000000ff"] * len(names))
    spec = EncoderSpec(name="x", dim=vectors.shape[1], size=32, preprocessing="none", weights="")
    return EmbeddingStore(
        spec=spec, rows=pa.table(columns, schema=ROWS), vectors=vectors, facts={"source": str(folder)}
    )


def test_pictures_decide_where_they_can_be_seen(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 24))
    far = [int(h) << 8 for h in rng.integers(0, 2**54, 400)]
    tones = {"0.png": face((250, 220, 190)), "1.jpg": face((250, 220, 190)), "2.png": face((190, 140, 100))}
    vectors = np.vstack([x[:1], copies(x, np.arange(1), 0.4), copies(x, np.arange(1), 0.1, seed=1)])
    store = picture_store(tmp_path, tones, vectors)
    found = run(store_of(x[1:], far[1:]), store)
    np.testing.assert_array_equal(found.kept_for[399:], [399, 399, 401])  # the nearer one is another picture
    (tmp_path / "1.jpg").write_bytes(b"")  # what has changed or gone cannot be seen
    np.testing.assert_array_equal(run(store_of(x[1:], far[1:]), store).kept_for[399:], [399, 400, 401])
    assert np.isnan(SmallPictures([store]).contrast([(0, 0)], [(0, 1)])[0])
