"""The rare examination on features that are made here: figures, an honest threshold, and odd sets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from curate.evaluation._comparison import Comparison
from curate.evaluation._images import Embedding
from curate.evaluation._intervals import Measured
from curate.evaluation._linear import Scaler, fitted
from curate.evaluation._split import Split, hold_out
from curate.evaluation._view import View
from curate.evaluation.examinations import rare as _rare
from curate.evaluation.settings import Settings
from curate.results import Estimate
from embeddings.errors import UnknownNameError

NAMES = ("dent", "good", "scratch")
ALL = "all but good"


def inspection(n=600, seed=0, share=0.06):
    """Features [n, 12] and class numbers: mostly good, some defects that lie apart."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=[share / 2, 1 - share, share / 2])
    centers = 1.3 * np.eye(3, 12)
    return (centers[labels] + rng.standard_normal((n, 12))).astype(np.float32), labels


def view_of(features, labels, *, n_train=None, names=NAMES, kind="frozen", **settings):
    n_train = n_train or len(labels) // 2
    rows, units = np.arange(len(labels)), np.arange(len(labels))
    split = Split(
        train=rows[:n_train],
        test=rows[n_train:],
        labels=labels.astype(np.int64),
        units=units,
        held_out=hold_out(units[:n_train]),
        separable=units[:n_train],
        facts={"class_names": list(names)},
    )
    comparison = Comparison(split=split, frozen_features=features)
    return View(
        arm="x",
        kind=kind,
        saw_labels=kind != "frozen",
        eye=lambda: None,
        features=features,
        comparison=comparison,
        probed=comparison.probe(features),
        images=None,
        embedding=Embedding(),
        settings=Settings(**settings),
    )


def by_place(view):
    return {(f.condition, f.metric): f.found for f in _rare.examine(view)}


def test_figures_are_those_of_scikit_learn():
    view = view_of(*inspection())
    found, said, truth = by_place(view), view.probed.probabilities, view.comparison.split.labels[300:]
    for number, name in enumerate(NAMES):
        assert found[name, "auroc"].value == pytest.approx(roc_auc_score(truth == number, said[:, number]))
        precision = average_precision_score(truth == number, said[:, number])
        assert found[name, "average_precision"].value == pytest.approx(precision)
    assert found[ALL, "auroc"].value == pytest.approx(roc_auc_score(truth != 1, 1 - said[:, 1]))
    assert ("good", "recall") not in found


def test_recall_and_false_rejects_are_counted_against_held_out_images():
    view = view_of(*inspection(), reject=0.1)
    split, truth = view.comparison.split, view.comparison.split.labels[300:]
    standard = Scaler.of(view.features[:300])(view.features)
    as_high, good = np.zeros(300), 0
    for fit, held in split.held_out:
        model = fitted(standard[fit], split.labels[fit], view.probed.chosen["linear"]["penalty"], n_classes=3)
        known = 1 - model.probabilities(standard[held[split.labels[held] == 1]])[:, 1]
        as_high += (known[:, None] >= 1 - model.probabilities(standard[300:])[:, 1]).sum(axis=0)
        good += len(known)
    above = (as_high + 1) / (good + 1) <= 0.1
    found = by_place(view)
    assert found[ALL, "recall"].value == pytest.approx(above[truth != 1].mean())
    assert found[ALL, "false_reject"].value == pytest.approx(above[truth == 1].mean())
    for number, name in ((0, "dent"), (2, "scratch")):
        assert found[name, "recall"].value == pytest.approx(above[truth == number].mean())


def test_false_rejects_are_at_most_what_was_asked_over_many_sets():
    """Fewer where models of few defects disagree, none where nothing is learned."""
    rates = []
    for seed in range(12):
        view = view_of(*inspection(n=400, seed=seed))
        rates.append(_rare._rejected(view, 1)[view.comparison.split.labels[200:] == 1].mean())
    assert 0.01 < np.mean(rates) < 0.06


def test_test_labels_change_figures_and_no_threshold():
    features, labels = inspection()
    permuted = labels.copy()
    permuted[300:] = np.random.default_rng(0).permutation(labels[300:])
    plain, other = (view_of(features, truth) for truth in (labels, permuted))
    np.testing.assert_array_equal(_rare._rejected(plain, 1), _rare._rejected(other, 1))
    before, after = by_place(plain), by_place(other)
    assert before.keys() == after.keys()
    assert before[ALL, "auroc"].value > 0.85
    assert after[ALL, "auroc"].value < 0.7


def test_too_few_good_images_for_the_threshold():
    found = by_place(view_of(*inspection(n=100, share=0.3), reject=0.005))
    for place in ((ALL, "recall"), (ALL, "false_reject"), ("dent", "recall")):
        assert isinstance(found[place], Estimate)
        assert "takes 199" in found[place].reason
    assert isinstance(found[ALL, "auroc"], Measured)


@pytest.mark.parametrize("kind", ["finetuned", "supervised"])
def test_heads_that_saw_all_training_images_have_no_threshold(kind):
    found = by_place(view_of(*inspection(), kind=kind))
    assert kind in found[ALL, "recall"].reason
    assert found[ALL, "auroc"].value > 0.8


def test_classes_missing_in_either_part():
    features, labels = inspection()
    labels[:300][labels[:300] == 0] = 1  # no dent to learn from
    labels[300:][labels[300:] == 2] = 1  # no scratch to find
    found = by_place(view_of(features, labels))
    for metric in ("auroc", "average_precision"):  # its probability is 0 throughout
        assert (found["dent", metric].value, found["dent", metric].reason) == (None, "no training image of this class")
    assert isinstance(found["dent", "recall"], Measured)
    for metric in ("auroc", "average_precision", "recall"):
        assert found["scratch", metric].reason == "the test part has no image of this class"


def test_classes_with_few_test_images_and_those_beyond_eight_are_details():
    """Which ones they are depends on the test images alone; what sums all classes up stays."""
    sizes = [30, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0]  # of the test part
    train = np.repeat(np.arange(11), 10)
    labels = np.concatenate([train, np.repeat(np.arange(11), sizes)])
    features = np.random.default_rng(0).standard_normal((len(labels), 4)).astype(np.float32)
    found = _rare.examine(view_of(features, labels, n_train=len(train), names=list("abcdefghijk"), normal="a"))
    shown = dict.fromkeys(figure.condition for figure in found if not figure.detail)
    assert list(shown) == ["a", "d", "e", "f", "g", "h", "i", "j", "all but a"]  # c has fewer than the other eight
    assert {figure.condition for figure in found if figure.detail} == {"b", "c", "k"}
    assert len(found) == 2 + 10 * 3 + 4


def test_no_defect_in_the_test_part():
    features, labels = inspection()
    labels[300:] = 1
    found = by_place(view_of(features, labels))
    assert found[ALL, "recall"].reason == "the test part has no image that is not in order"
    assert found["good", "auroc"].reason == "the test part has no image but of good"
    assert found[ALL, "false_reject"].value < 0.15


def test_normal_is_chosen_by_name_or_size():
    features, labels = inspection()
    assert ("all but dent", "recall") in by_place(view_of(features, labels, normal="dent"))
    with pytest.raises(UnknownNameError, match="fine"):
        by_place(view_of(features, labels, normal="fine"))


def test_a_normal_class_without_training_images():
    features, labels = inspection()
    labels[:300][labels[:300] == 0] = 1
    found = by_place(view_of(features, labels, normal="dent"))
    assert found["all but dent", "recall"].reason.startswith("0 images in order were held out")


def test_constant_features_rank_nothing():
    found = by_place(view_of(np.ones((200, 3), np.float32), np.arange(200) % 4 % 3))
    assert found["dent", "auroc"].value == 0.5
    assert found["dent", "average_precision"].value == pytest.approx(0.5)


def test_costs_stand_beside_the_classes(tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text(",dent,good,scratch\ndent,0,20,1\ngood,1,0,1\nscratch,1,20,0\n")
    view = view_of(*inspection(), costs=str(path))
    found = by_place(view)
    places = [metric for condition, metric in found if condition == "costs"]
    assert places == [
        "cost", "cost_most_probable", "cost_accepting_all", "saved_over_most_probable", "saved_over_accepting_all",
    ]  # fmt: skip
    truth = view.comparison.split.labels[300:]
    assert found["costs", "cost_accepting_all"].value == pytest.approx(20 * (truth != 1).mean())
    assert found["costs", "saved_over_accepting_all"].value > 0
    plain = replace(view, settings=Settings())
    assert {place for place in found if place[0] != "costs"} == set(by_place(plain))
