import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.selection._strata import strata


@given(st.integers(0, 300), st.integers(1, 20), st.integers(1, 4))
def test_parts_hold_every_row_once_and_are_of_like_size(n, size, kinds):
    points = np.random.default_rng(n).integers(0, kinds, (400, 3)).astype(np.float32)
    rows = np.random.default_rng(size).permutation(400)[:n]
    parts = strata(points, rows, size)
    assert sorted(np.concatenate([*parts, []]).tolist()) == sorted(rows.tolist())
    assert all(len(part) <= size for part in parts)
    assert n <= size or all(2 * len(part) >= size - 1 for part in parts)


def test_four_heaps_are_four_parts():
    heaps = np.repeat(np.array([[0, 0], [0, 9], [30, 0], [30, 9.0]]), 8, axis=0)
    points = heaps + np.random.default_rng(0).random((32, 2))
    order = np.random.default_rng(1).permutation(32)
    parts = strata(points, order, 8)
    assert sorted(sorted(part.tolist()) for part in parts) == [list(range(i, i + 8)) for i in range(0, 32, 8)]


@pytest.mark.parametrize("n", [10, 3000])
def test_one_point_of_every_part_varies_less_than_a_plain_draw(n):
    rng = np.random.default_rng(2)
    points, parts = rng.normal(size=(n, 2)), []
    parts = strata(points, np.arange(n), 10)
    means = [points[[rng.choice(part) for part in parts]].mean(axis=0) for _ in range(200)]
    plain = [points[rng.permutation(n)[: len(parts)]].mean(axis=0) for _ in range(200)]
    assert np.var(means) < (0.2 if n > 10 else 1.5) * np.var(plain)
