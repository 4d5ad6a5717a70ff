"""The headline distance from exported moments is the one from the stores they were made of."""

from __future__ import annotations

import numpy as np
import pytest

from curate.distances import frechet, mmd
from curate.distances._frechet import TargetFrame, frechet_to
from embeddings.moments_export import export_moments
from embeddings.moments_file import read_moments
from embeddings.store import EmbeddingStore

D = 150


def store(n, seed, shift=0.0):
    """A falling spectrum in directions that all sets share; a shift moves the mean and turns the main directions."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D)) * 6 / np.arange(1, D + 1)
    x[:, :40] += shift * x[:, np.arange(40)[::-1]] + shift
    return EmbeddingStore.from_vectors(x, keys=[f"{seed}-{i:05d}" for i in range(n)], name="v")


def exported(made, path, **options):
    return read_moments(export_moments(made, path, **options).path).moments


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_from_all_dimensions_it_is_the_same(tmp_path, shift):
    target, pool = store(3800, 0), store(3700, 1, shift)
    ours, theirs = exported(target, tmp_path / "t"), exported(pool, tmp_path / "p")
    assert (ours.rank, theirs.rank) == (None, None)
    assert frechet(ours, theirs) == frechet(target, pool)
    assert frechet(target, theirs) == frechet(target, pool)
    assert mmd(ours, theirs).value == pytest.approx(mmd(target, theirs).value)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_from_main_directions_it_is_well_within_its_error(tmp_path, shift):
    target, pool = store(800, 0), store(900, 1, shift)
    full = frechet(target, pool)
    ours, theirs = exported(target, tmp_path / "t"), exported(pool, tmp_path / "p")
    assert ours.rank < 45
    assert theirs.rank < 45
    for a, b in ((ours, pool), (target, theirs), (ours, theirs)):
        assert frechet(a, b).value == pytest.approx(full.value, abs=0.3 * full.se)
        assert frechet(a, b).se == pytest.approx(full.se, rel=0.15)


def test_a_floor_comes_from_the_halves_of_an_export(tmp_path):
    floors = []
    for seed in range(6):
        a, b = exported(store(1500, seed), tmp_path / str(seed)).halves()
        floors.append(frechet_to(TargetFrame.of(a), b))
        assert floors[-1].n == (len(b), len(a))
    assert sum(f.low <= 0 <= f.high for f in floors) >= 5
    assert abs(np.mean([f.value for f in floors])) < 2 * np.mean([f.se for f in floors])
