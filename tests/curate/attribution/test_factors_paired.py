import numpy as np
import pytest

from curate.attribution._paired import Frame
from curate.distances._frechet import TargetFrame, frechet_to
from embeddings.errors import TooFewImagesError
from embeddings.moments import FOLDS, Moments


def sample(n, d, rng, shift=0.0, scale=1.0):
    folds = rng.integers(0, FOLDS, n).astype(np.uint8)
    return scale * rng.normal(size=(n, d)) / np.sqrt(np.arange(1, d + 1)) + shift, folds


def relative(frame, y, folds):
    return frame.to(y, folds).over(frame.variance)


@pytest.mark.parametrize(("n", "m", "d"), [(120, 90, 40), (100, 150, 300)])
def test_agrees_with_the_headline_distance_and_nearly_with_its_error(n, m, d):
    rng = np.random.default_rng(0)
    (x, x_folds), (y, y_folds) = sample(n, d, rng), sample(m, d, rng, 0.2, 1.3)
    frame = Frame.of(x, x_folds)
    found = frame.to(y, y_folds).measured()
    wanted = frechet_to(TargetFrame.of(Moments.from_vectors(x, x_folds)), Moments.from_vectors(y, y_folds))
    assert frame.variance.total == pytest.approx(np.trace(np.cov(x.T)), rel=1e-12)
    assert found.value == pytest.approx(wanted.value, rel=1e-8)
    assert wanted.se * 0.95 < found.se < wanted.se * 1.2  # which counts what two folds do together once, not twice


def test_a_common_offset_and_scale_change_nothing():
    rng = np.random.default_rng(1)
    (x, x_folds), (y, y_folds) = sample(80, 30, rng), sample(70, 30, rng, 0.3)
    plain = relative(Frame.of(x, x_folds), y, y_folds).measured()
    moved = relative(Frame.of(7 * x + 100, x_folds), 7 * y + 100, y_folds).measured()
    assert moved == pytest.approx(plain, rel=1e-8)


def test_the_difference_of_a_distance_to_itself_is_zero_without_error():
    rng = np.random.default_rng(2)
    (x, x_folds), (y, y_folds) = sample(80, 30, rng), sample(70, 30, rng, 0.3)
    r = Frame.of(x, x_folds).to(y, y_folds)
    assert r.combined(r, own=1, others=-1).measured() == (0.0, 0.0)
    halved = r.combined(r, own=0.25, others=0.25).measured()
    assert halved == pytest.approx([figure / 2 for figure in r.measured()], rel=1e-12)


def test_the_error_of_a_paired_fall_is_its_spread_and_below_that_of_unpaired_ones():
    falls, errors, unpaired = [], [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        (x, x_folds), (y, y_folds) = sample(120, 20, rng), sample(120, 20, rng, 0.25)
        frame = Frame.of(x, x_folds)
        before, after = relative(frame, y, y_folds), relative(frame, y - 0.15, y_folds)
        fall = before.combined(after, own=1, others=-1).measured()
        falls.append(fall.value)
        errors.append(fall.se)
        unpaired.append(np.hypot(before.measured().se, after.measured().se))
    assert 0.85 < np.mean(errors) / np.std(falls) < 1.4
    assert np.mean(errors) < 0.9 * np.mean(unpaired)


def test_sets_that_cannot_be_measured_are_refused():
    rng = np.random.default_rng(3)
    x, folds = sample(40, 10, rng)
    with pytest.raises(TooFewImagesError, match="too few independent groups"):
        Frame.of(x, np.zeros(40, np.uint8))
    with pytest.raises(TooFewImagesError, match="look all the same"):
        Frame.of(np.ones((40, 10)), folds)
    with pytest.raises(TooFewImagesError, match="form one group"):
        Frame.of(x, folds).to(x, np.zeros(40, np.uint8))


def test_a_pool_of_equal_images_is_at_the_distance_of_a_point():
    rng = np.random.default_rng(4)
    x, folds = sample(200, 10, rng)
    frame = Frame.of(x, folds)
    r = relative(frame, np.zeros((50, 10)), np.arange(50, dtype=np.uint8) % FOLDS).measured()
    assert r.value == pytest.approx(1.0, abs=0.1)  # E |x|^2 over tr S
