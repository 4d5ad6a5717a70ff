"""Cross-fitted ridge classification against fits without each fold."""

import numpy as np
import pytest

from curate.pretraining.ridge import Ridge, cross_fitted


def leave_one_fold_out(x, labels, folds, penalty):
    """The same ridge classifier, fitted anew without each fold."""
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    hot, found = np.eye(labels.max() + 1)[labels], np.empty(len(x), int)
    for fold in np.unique(folds):
        fit, held = folds != fold, folds == fold
        mean, center = hot[fit].mean(axis=0), x[fit].mean(axis=0)
        a = x[fit] - center
        w = np.linalg.solve(a.T @ a + len(x) * penalty * np.eye(x.shape[1]), a.T @ (hot[fit] - mean))
        found[held] = ((x[held] - center) @ w + mean).argmax(axis=1)
    return found


@pytest.mark.parametrize("shape", [(60, 5), (30, 80)])
def test_cross_fitting_in_closed_form_equals_fits_without_each_fold(shape):
    rng = np.random.default_rng(1)
    x, labels, folds = rng.normal(size=shape), rng.integers(0, 3, shape[0]), rng.integers(0, 4, shape[0])
    x[:, :2] += labels[:, None]
    for penalty in (1.0, 0.01):
        wanted = leave_one_fold_out(x, labels, folds, penalty)
        assert np.array_equal(cross_fitted(x, labels, folds, penalties=(penalty,)), wanted)


def test_the_penalty_of_a_fold_is_the_one_that_serves_the_others_best():
    rng = np.random.default_rng(2)
    labels, folds = np.arange(40) % 2, np.arange(40) // 10
    x = rng.normal(size=(40, 60)) + 0.5 * labels[:, None]
    weak, strong = (cross_fitted(x, labels, folds, penalties=(p,)) for p in (1e-3, 1e3))
    wanted = np.empty(40, int)
    for fold in range(4):
        others = folds != fold
        better = weak if (weak == labels)[others].sum() > (strong == labels)[others].sum() else strong
        wanted[~others] = better[~others]
    assert np.array_equal(cross_fitted(x, labels, folds, penalties=(1e3, 1e-3)), wanted)


def test_cross_fitting_learns_nothing_from_labels_that_mean_nothing():
    rng = np.random.default_rng(0)
    hits = [
        np.mean(cross_fitted(rng.normal(size=(200, 30)), labels, rng.integers(0, 5, 200)) == labels)
        for labels in rng.integers(0, 2, (20, 200))
    ]
    assert np.mean(hits) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("d", [4, 50])
def test_a_fit_without_a_penalty_to_speak_of_names_its_own_rows(d):
    rng = np.random.default_rng(3)
    labels = np.arange(30) % 3
    x = 7 + rng.normal(size=(30, d)) * np.logspace(0, 6, d)
    x[:, :3] += 5 * np.eye(3)[labels] * np.logspace(0, 6, d)[:3]
    named = Ridge.fit(x, labels, 3, penalties=(1e9, 1e-6)).predict(x.reshape(10, 3, d))
    assert named.shape == (2, 10, 3)
    assert (named[1].ravel() == labels).mean() > 0.9
