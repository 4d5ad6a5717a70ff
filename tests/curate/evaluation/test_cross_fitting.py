"""Cross-fitting: every image is told once, by a probe that saw neither it nor its fold's labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from test_split import rows_of

from curate.eval_report import ArmScore, EvalReport
from curate.evaluation import _label_equivalents as curves
from curate.evaluation import _linear, linear_probe, split_labeled
from curate.evaluation._comparison import Comparison
from curate.evaluation._cross_fitting import remarks_on_folds, require_foldable, sizes_in_words
from curate.evaluation._intervals import accuracy
from curate.evaluation._knn import knn_probe
from curate.evaluation._label_equivalents import Lesson, joint_curve, joint_sizes, learning_curve, nested_order
from curate.evaluation._linear import PENALTIES, ROUGHLY, Scaler, standardized
from curate.evaluation._linear import fitted as fitted_to
from curate.evaluation._logistic import predictions_along
from curate.evaluation.settings import Settings, read_settings
from embeddings.errors import UsageError

N, D, CLASSES = 130, 12, 3


def sample(n=N, noise=1.5, seed=0):
    """Features about the center of their class, and class numbers."""
    rng = np.random.default_rng(seed)
    labels, centers = rng.integers(CLASSES, size=n), np.random.default_rng(99).standard_normal((CLASSES, D))
    return (centers[labels] + noise * rng.standard_normal((n, D))).astype(np.float32), labels


def compared(features, labels, *, folds=5, groups=None):
    split = split_labeled(rows_of([f"c{label}" for label in labels], groups=groups), folds=folds)
    return Comparison(split=split, frozen_features=features)


@pytest.fixture(scope="module")
def fitted():
    features, labels = sample()
    return compared(features, labels), features, labels


def chosen_by_hand(features, labels, held_out):
    """The penalty that is most often right, each fit standardized by its own mean and deviation."""
    right = np.zeros(len(PENALTIES))
    for fit, held in held_out:
        train, asked = (part.astype(np.float32) for part in standardized(features[fit], features[held]))
        said = predictions_along(train, labels[fit], PENALTIES, asked, tolerance=ROUGHLY)
        right += (said == labels[held]).sum(axis=1)
    return PENALTIES[int(right.argmax())]


def test_every_image_is_told_by_the_probe_of_the_other_folds(fitted):
    """A plain loop over the folds: the penalty chosen by hand, and scikit-learn under it."""
    comparison, features, labels = fitted
    frozen, hits = comparison.frozen, {"linear": np.zeros(N), "knn": np.zeros(N)}
    tested = np.zeros(N, int)
    for number, fold in enumerate(comparison.split.folds):
        train, test = fold.train, fold.test
        assert np.union1d(train, test).tolist() == list(range(N))
        penalty = chosen_by_hand(features[train], labels[train], fold.held_out)
        assert frozen.chosen["linear"]["penalty"][number] == penalty
        scaler = StandardScaler().fit(features[train].astype(np.float64))
        theirs = LogisticRegression(C=1 / (len(train) * penalty), tol=1e-8, max_iter=5_000)
        theirs.fit(scaler.transform(features[train]), labels[train])
        said = theirs.predict_proba(scaler.transform(features[test]))
        np.testing.assert_allclose(frozen.probabilities[test], said, atol=5e-3)
        near = knn_probe(features[train], labels[train], features[test], fold.held_out, n_classes=CLASSES)
        hits["linear"][test], hits["knn"][test] = (p == labels[test] for p in (said.argmax(axis=1), near.predicted))
        tested[test] += 1
    assert (tested == 1).all()
    np.testing.assert_array_equal(frozen.correct, hits["linear"])
    for name, right in hits.items():
        assert frozen.measured[name].value == pytest.approx(right.mean())


@pytest.mark.parametrize(("folds", "fits"), [(1, 5), (3, 3 * 5), (5, 10), (10, 45)])
def test_every_model_that_chooses_is_fitted_once_and_asked_about_held_out_images_alone(monkeypatch, folds, fits):
    features, labels = sample()
    comparison, asked = compared(features, labels, folds=folds), []

    def told(train, labels, penalties, others, **options):
        asked.append(len(others))
        return predictions_along(train, labels, penalties, others, **options)

    monkeypatch.setattr(_linear, "predictions_along", told)
    comparison.probe(features)
    assert len(asked) == fits
    assert sum(asked) == sum(len(part.train) for part in comparison.split.parts)


def test_a_classifier_asks_the_probe_of_the_image_s_fold(fitted):
    comparison, features, _ = fitted
    at = np.random.default_rng(0).permutation(N)[:50]
    told = comparison.frozen.classify(features[at], at)
    np.testing.assert_allclose(told, comparison.frozen.probabilities[at], atol=1e-12)


def test_labels_of_a_fold_decide_nothing_of_its_own_probe(fitted):
    """Permuted within a fold they change the other folds' probes, but neither its settings nor what it says."""
    comparison, features, labels = fitted
    test, permuted = comparison.split.folds[2].test, labels.copy()
    permuted[test] = np.random.default_rng(0).permutation(labels[test])
    after = compared(features, permuted).frozen
    before = comparison.frozen
    np.testing.assert_array_equal(after.probabilities[test], before.probabilities[test])
    assert after.chosen["linear"]["penalty"][2] == before.chosen["linear"]["penalty"][2]
    assert after.chosen["knn"]["k"][2] == before.chosen["knn"]["k"][2]
    assert (after.probabilities != before.probabilities).any()
    assert after.measured["linear"].value < before.measured["linear"].value


def test_labels_that_say_nothing_read_chance():
    """Where each image's own label reached its probe, this would be far above a third."""
    features, labels = sample(300)
    read = compared(features, np.random.default_rng(1).permutation(labels)).frozen.measured["linear"].value
    assert abs(read - 1 / CLASSES) < 0.1


def test_images_of_a_group_stay_together_and_count_once():
    """Copies of a third of the points, in groups: read as points of their own they would be told from their copies."""
    features, labels = sample(120, noise=8.0)
    rows = np.repeat(np.arange(40), 3)
    comparison = compared(features[rows], labels[rows], groups=[f"g{row:02d}" for row in rows])
    frozen = comparison.metrics(comparison.frozen)["linear"]
    assert frozen.value < 0.6 < compared(features[rows], labels[rows]).frozen.measured["linear"].value
    assert comparison.resamples.n_units == 40
    drawn = "40 test units of 5 folds, 32 at a time"
    assert frozen.method == f"percentile bootstrap over {drawn}, 2,000 draws, not stratified"
    assert frozen.n == (96, 120)


def test_intervals_shrink_since_all_images_are_tested(fitted):
    """As four fifths of all images would have it, which train each other's probes; not as the 39 of one split."""
    comparison, features, labels = fitted
    one = compared(features, labels, folds=1)
    for found, n, drawn in ((one, (91, 39), 39), (comparison, (104, 130), 104)):
        linear = found.metrics(found.frozen)["linear"]
        assert linear.n == n
        assert linear.se == pytest.approx(np.sqrt(linear.value * (1 - linear.value) / drawn), rel=0.05)
        assert all(weights.sum(axis=1).tolist() == [drawn] * len(weights) for weights in found.resamples)
    others = [features + np.random.default_rng(i).standard_normal(features.shape).astype(np.float32) for i in range(2)]
    gains = [[found.gains(found.probe(other))["linear"] for other in others] for found in (one, comparison)]
    wide, narrow = (sum(gain.high - gain.low for gain in found) for found in gains)
    assert narrow < 0.8 * wide


def test_all_right_is_as_sure_as_the_images_drawn():
    drawn = compared(*sample(60)).resamples
    sure = drawn.estimate(drawn.measure({"a": accuracy(np.ones(60))})["a"], "")
    assert (sure.low, sure.high) == (pytest.approx(0.025 ** (1 / 48)), 1)


def test_the_curve_is_that_of_every_fold_by_itself(fitted, monkeypatch):
    monkeypatch.setattr(curves, "SUBSETS", 2)
    comparison, features, labels = fitted
    curve, rng = dataclasses.replace(comparison).curve, np.random.default_rng([0, 1])
    right = np.zeros((len(curve.sizes), 2))
    for fold, penalty in zip(comparison.split.folds, comparison.frozen.chosen["linear"]["penalty"], strict=True):
        scaler, told = Scaler.of(features[fold.train]), labels[fold.test]
        for draw in range(2):
            order = fold.train[nested_order(labels[fold.train], rng)]
            for place, size in enumerate([*curve.sizes[:-1], len(order)]):
                rows = np.sort(order[:size])
                model = fitted_to(scaler(features[rows]), labels[rows], penalty)
                right[place, draw] += (model.predict(scaler(features[fold.test])) == told).sum()
    assert (curve.sizes[0], curve.sizes[-1]) == (10, 104)
    np.testing.assert_allclose(curve.accuracy, right / N)
    assert curve.accuracy[-1] == pytest.approx(comparison.frozen.measured["linear"].value)
    assert comparison.label_equivalents(comparison.frozen).n == (104, 130)


def test_lessons_are_joined_by_image():
    """Of two lessons the first is always right, the second only with all labels."""
    drawn = compared(*sample(40), folds=2).resamples
    truth, at = np.zeros(20, int), np.arange(40).reshape(20, 2).T
    lessons = [
        Lesson(fit=lambda rows: np.zeros(20, int), labels=np.arange(20) % 2, truth=truth, at=at[0]),
        Lesson(fit=lambda rows: np.full(20, len(rows) < 22), labels=np.arange(22) % 2, truth=truth, at=at[1]),
    ]
    curve = joint_curve(lessons, joint_sizes([20, 22]), drawn)
    assert curve.sizes.tolist() == [10, 21]
    np.testing.assert_array_equal(curve.accuracy, [[0.5] * curves.SUBSETS, [1.0] * curves.SUBSETS])
    weights = np.concatenate(list(drawn))
    np.testing.assert_allclose(curve.draws[:, 0, 0], weights[:, at[0]].sum(axis=1) / weights.sum(axis=1))


def test_one_lesson_is_the_learning_curve():
    drawn = compared(*sample(40), folds=2).resamples
    labels, truth = np.arange(30) % 3, np.arange(40) % 3

    def fit(rows):
        return np.resize(labels[rows], 40)

    one = learning_curve(fit, labels, truth, drawn)
    same = joint_curve([Lesson(fit=fit, labels=labels, truth=truth, at=np.arange(40))], joint_sizes([30]), drawn)
    assert one.sizes.tolist() == [10, 17, 30]
    np.testing.assert_array_equal(one.draws, same.draws)


def test_a_class_with_one_image_is_wrong_and_told():
    features, labels = sample(60)
    labels[7] = CLASSES
    comparison = compared(features, labels)
    facts = comparison.split.facts
    assert (facts["classes"], facts["classes_missing_in_train"]) == (4, 1)
    assert comparison.frozen.probabilities.shape == (60, 4)
    assert not comparison.frozen.correct[7]
    assert comparison.frozen.probabilities[7, 3] == 0


@pytest.mark.parametrize("text", ["0", "-1", "21", "1000", "1.5", "five", ""])
def test_numbers_of_folds_that_are_none(text):
    with pytest.raises(UsageError, match="folds") as caught:
        read_settings([f"folds={text}"])
    assert caught.value.hint.startswith("Wanted: ")


def test_folds_that_are_no_whole_number():
    assert [read_settings([f"folds={n}"]).folds for n in (1, 2, 20)] == [1, 2, 20]
    with pytest.raises(UsageError, match=r"folds is 1\.5"):
        Settings(folds=1.5)


@pytest.mark.parametrize("thing", ["train::test", ("train", "test")])
def test_a_test_part_of_its_own_is_refused(thing):
    with pytest.raises(UsageError, match="folds=5 tests every labeled image, but kinds has a test part") as caught:
        require_foldable(5, {"plain": "train", "kinds": thing}, ())
    assert "Leave out folds" in caught.value.hint
    require_foldable(1, {"kinds": thing}, ("references", "finetune"))


def test_networks_trained_on_the_labels_are_refused():
    with pytest.raises(UsageError, match="folds=5 and references and finetune do not go together") as caught:
        require_foldable(5, {"kinds": "train"}, ("references", "finetune", "labels"))
    assert "evaluate twice" in caught.value.hint
    require_foldable(5, {"kinds": "train"}, ("labels", "robustness"))


def report_of(kinds=("frozen",), **sets):
    scores = tuple(ArmScore(arm=kind, labeled=next(iter(sets)), kind=kind, metrics={}) for kind in kinds)
    return EvalReport(scores=scores, labeled=sets)


SMALL = {"n_train": 105, "n_test": 45, "classes": 9, "folds": 1}
CROSS_FITTED = {"n_train": 120, "n_test": 150, "classes": 9, "folds": 5}


def test_few_test_images_of_a_split_made_here_have_a_hint():
    given = {name: value for name, value in SMALL.items() if name != "folds"}
    hint = "Test images are few (a 45, b 99); --set folds=5 tests every labeled image, once."
    sets = {"a": SMALL, "b": {**SMALL, "n_test": 99}, "c": {**SMALL, "n_test": 100}, "d": given}
    assert remarks_on_folds(report_of(**sets)) == [hint]
    assert remarks_on_folds(report_of(("frozen", "supervised"), a=SMALL)) == []
    assert remarks_on_folds(report_of(d=given)) == []


def test_cross_fitted_runs_have_a_reminder():
    (line,) = remarks_on_folds(report_of(("frozen", "run"), a=CROSS_FITTED))
    assert line.endswith("pretrained on none of them.")
    assert remarks_on_folds(report_of(a=CROSS_FITTED)) == []


def test_examinations_on_fewer_images_are_told():
    (line,) = remarks_on_folds(report_of(a={**CROSS_FITTED, "examined": SMALL}))
    assert line == "Further examinations have one split: their test images are fewer (a 45)."


def test_sizes_in_words():
    assert sizes_in_words(SMALL) == "105 training and 45 test images, 9 classes"
    assert sizes_in_words(CROSS_FITTED) == "150 images, each tested by probes of about 120 others, 9 classes"


def by_centroid(features, labels, fold):
    """The nearest of the class means, the cheapest probe there is."""
    x, y = features[fold.train], labels[fold.train]
    means = np.stack([x[y == c].mean(axis=0) for c in range(CLASSES)])
    return lambda points: (points @ means.T - (means**2).sum(axis=1) / 2).argmax(axis=1)


def by_linear_probe(features, labels, fold):
    x, y = features[fold.train], labels[fold.train]
    probe = linear_probe(x, y, features[fold.test], fold.held_out, n_classes=CLASSES)
    return lambda points: probe.classify(points).argmax(axis=1)


def seen_by_two(n, seed):
    """Two encoders' features of the same images, the second one's noisier; and class numbers."""
    first, labels = sample(n, seed=seed)
    return (first, first + np.random.default_rng([seed, 1]).standard_normal(first.shape)), labels


def coverage(probe, times, n):
    """How often the intervals of accuracy, and of the difference of two encoders, hold what the probes' true ones are.

    The true accuracy is the mean of the folds' probes on 4,000 other images.
    """
    comparison = compared(*sample(n))
    drawn, others, truth = comparison.resamples, *seen_by_two(4_000, 10**6)
    held = {"accuracy": 0, "difference": 0}
    for seed in range(1, times + 1):
        encoders, labels = seen_by_two(n, seed)
        right, true = np.zeros((2, n)), np.zeros(2)
        for arm, (features, population) in enumerate(zip(encoders, others, strict=True)):
            for fold in comparison.split.folds:
                predict = probe(features, labels, fold)
                right[arm, fold.test] = predict(features[fold.test]) == labels[fold.test]
                true[arm] += (predict(population) == truth).mean() * len(fold.test) / n
        measured = drawn.measure({str(arm): accuracy(row) for arm, row in enumerate(right)})
        found = drawn.estimate(measured["0"], ""), drawn.difference(measured["1"], measured["0"], "")
        for name, estimate, value in zip(held, found, (true[0], true[1] - true[0]), strict=True):
            held[name] += estimate.low <= value <= estimate.high
    return {name: count / times for name, count in held.items()}


def test_intervals_cover():
    """Of 95%: within what 60 draws allow; ``test_intervals_cover_closely`` asks more."""
    assert min(coverage(by_centroid, 60, 100).values()) >= 0.88


@pytest.mark.slow
@pytest.mark.parametrize("n", [60, 120])
def test_intervals_cover_closely(n):
    found = coverage(by_linear_probe, 120, n)
    assert 0.92 <= found["accuracy"] <= 0.99
    assert found["difference"] >= 0.92


def test_images_without_a_label_are_counted_in_words():
    facts = {"n_train": 70, "n_test": 30, "classes": 3, "unlabeled_left_out": 1_200}
    assert sizes_in_words(facts) == "70 training and 30 test images, 3 classes, 1,200 left out without a label"
    assert sizes_in_words({**facts, "unlabeled_left_out": 0}) == "70 training and 30 test images, 3 classes"
