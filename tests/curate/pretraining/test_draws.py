import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from curate.pretraining.augment.draws import VIEW_DRAWS, draw, image_hash, philox, uniforms
from curate.pretraining.augment.presets import PRESETS, Preset, per_view, preset
from embeddings.errors import UnknownNameError, UsageError

PI = ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0))
ONES = 0xFFFFFFFF
KNOWN_ANSWERS = [  # published with Random123
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (*PI, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


def philox_in_plain_integers(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & ONES, (p0 >> 32) ^ c[3] ^ k[1], p0 & ONES]
        k = [(k[0] + 0x9E3779B9) & ONES, (k[1] + 0xBB67AE85) & ONES]
    return c


@pytest.mark.parametrize(("counter", "key", "bits"), KNOWN_ANSWERS)
def test_published_vectors(counter, key, bits):
    assert philox(np.array([counter], np.uint32), key)[0].tolist() == list(bits)


word = st.integers(0, ONES)


@given(st.lists(st.tuples(word, word, word, word), min_size=1, max_size=5), st.tuples(word, word))
def test_a_batch_of_counters_equals_plain_integer_arithmetic(counters, key):
    found = philox(np.array(counters, np.uint32), key)
    assert found.tolist() == [philox_in_plain_integers(c, key) for c in counters]


def hashes(n):
    return np.array([image_hash("pool", f"{i}.png") for i in range(n)], np.uint64)


def test_uniforms_are_uniform_and_uncorrelated():
    u = uniforms(3, hashes(4000), np.zeros(4000, int), stream=1, count=8)
    assert u.min() > 0
    assert u.max() < 1
    assert min(stats.kstest(column, "uniform").pvalue for column in u.T) > 1e-3
    assert np.abs(np.corrcoef(u.T) - np.eye(8)).max() < 0.07  # 4.4 standard errors


@given(st.permutations(range(12)), st.integers(1, 11))
def test_what_an_image_draws_depends_neither_on_its_batch_nor_on_its_place(order, cut):
    images, visits = hashes(12), np.arange(12) % 3
    whole = uniforms(0, images, visits, stream=2, count=VIEW_DRAWS)
    order = np.array(order)
    parts = [uniforms(0, images[rows], visits[rows], stream=2, count=VIEW_DRAWS) for rows in np.split(order, [cut])]
    assert np.array_equal(np.concatenate(parts), whole[order])


def test_seed_image_visit_and_stream_all_count():
    image, visit = hashes(1), np.zeros(1, int)
    rows = [uniforms(0, image, visit, stream=1, count=4)]
    rows += [uniforms(1, image, visit, stream=1, count=4), uniforms(1 << 40, image, visit, stream=1, count=4)]
    rows += [uniforms(0, hashes(2)[1:], visit, stream=1, count=4), uniforms(0, image, visit + 1, stream=1, count=4)]
    rows += [uniforms(0, image, visit, stream=2, count=4)]
    assert len({tuple(row[0]) for row in rows}) == 6


def test_image_hash_separates_source_from_key():
    assert image_hash("a", "b/c") != image_hash("a/b", "c")
    assert image_hash("ab", "c") != image_hash("a", "bc")


def drawn(which, n=4000, stored=40, size=32):
    u = uniforms(0, hashes(n), np.zeros(n, int), stream=1, count=VIEW_DRAWS)
    return draw(which, u, stored=stored, size=size)


def test_boxes_lie_inside_and_have_the_asked_areas_and_shapes():
    top, left, height, width = drawn(PRESETS["natural"]).box.T
    assert (np.minimum(top, left) >= 0).all()
    assert (np.maximum(top + height, left + width) <= 40).all()
    area, shape = height * width / 1600, width / height
    assert area.min() > 0.08 * 0.85  # edges are rounded to whole pixels
    assert shape.min() > 0.75 * 0.9
    assert shape.max() < 4 / 3 / 0.9
    assert area.mean() == pytest.approx(0.52, abs=0.03)  # slightly under .54: large slanted boxes do not fit
    assert np.log(shape).mean() == pytest.approx(0, abs=0.01)


def test_every_corner_is_reached():
    box = drawn(Preset(crop_area=(0.25, 0.25), crop_ratio=(1, 1)), stored=8).box
    assert set(box[:, 0]) == set(box[:, 1]) == {0, 1, 2, 3, 4}
    assert (box[:, 2:] == 4).all()


def test_a_box_that_never_fits_becomes_the_whole_image():
    box = drawn(Preset(crop_area=(1, 1), crop_ratio=(3, 4)), n=10).box
    assert (box == [0, 0, 40, 40]).all()


def test_probabilities_and_ranges():
    draws = drawn(PRESETS["natural"], size=64)
    for share, p in ((draws.flip, 0.5), (draws.gray, 0.2), (draws.sigma > 0, 0.5), (draws.order[:, 0] >= 0, 0.8)):
        assert share.mean() == pytest.approx(p, abs=0.03)
    low, high = draws.jitter.min(axis=0), draws.jitter.max(axis=0)
    assert low == pytest.approx([0.2, 0.2, 0.2, -0.2], abs=0.01)
    assert high == pytest.approx([1.8, 1.8, 1.8, 0.2], abs=0.01)
    sigma = draws.sigma[draws.sigma > 0] * 224 / 64
    assert (sigma.min(), sigma.max()) == pytest.approx((0.1, 2.0), abs=0.01)


def test_turns_and_solarization_are_as_frequent_as_asked():
    draws = drawn(Preset(quarter_turns=0.75, solarize=0.2))
    assert np.bincount(draws.turns) / len(draws) == pytest.approx([0.25] * 4, abs=0.03)
    assert draws.solarize.mean() == pytest.approx(0.2, abs=0.03)
    assert not drawn(PRESETS["natural"]).turns.any()


@pytest.mark.parametrize(("size", "edge"), [(224, 96), (96, 40), (64, 24), (32, 16), (8, 8)])
def test_local_views_are_smaller_and_blurred_as_whole_ones(size, edge):
    assert PRESETS["dino-local"].edge(size) == edge
    assert PRESETS["natural"].edge(size) == size
    local, whole = drawn(PRESETS["dino-local"], size=224), drawn(PRESETS["natural"], size=224)
    assert (local.sigma[local.sigma > 0].max(), whole.sigma.max()) == pytest.approx((2.0, 2.0), abs=0.01)


def test_presets_per_view():
    assert per_view(("natural",), 2) == (PRESETS["natural"],) * 2
    assert per_view(("natural-first", "natural-second"), 2) == (PRESETS["natural-first"], PRESETS["natural-second"])
    with pytest.raises(UsageError, match="2 augmentation presets"):
        per_view(("natural", "natural"), 3)
    with pytest.raises(UnknownNameError):
        per_view(("natural", "natral"), 2)


def test_jitter_orders_are_permutations_and_all_occur():
    order = drawn(PRESETS["natural"]).order
    applied = order[order[:, 0] >= 0]
    assert (np.sort(applied, axis=1) == np.arange(4)).all()
    assert len({tuple(row) for row in applied}) == 24
    assert (order[order[:, 0] < 0] == -1).all()


def test_small_views_are_not_blurred():
    assert not drawn(PRESETS["natural"], size=32).sigma.any()


def test_unknown_preset_names_the_nearest():
    with pytest.raises(UnknownNameError, match="natural"):
        preset("naturel")


@pytest.mark.parametrize(
    "wrong", [{"flip": 1.5}, {"hue": 0.6}, {"crop_area": (0.0, 1.0)}, {"crop_area": (0.9, 0.5)}, {"scale": 0}]
)
def test_impossible_presets_are_refused(wrong):
    with pytest.raises(UsageError):
        Preset(**wrong)
