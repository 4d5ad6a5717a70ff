"""How accurate an arm is with few labels: 1, 5 and 10 of 100, in several lists of them.

The lists are a pure function of the training images' keys and labels and of a seed, so every arm has the same, and so
has whoever reads labels.parquet: a list's first k images are its list of k labels. They are nested, and every one holds
about each class's share of the labels: one image of every class comes first, then the others of each class at even
steps. Features are standardized with all training images, since only labels are counted.

Penalty, k and T are chosen anew on held-out parts of a list when it has 5 labels a class on average; below that those
chosen on all labels are used, and the figure says so. The interval draws test units and lists together (see
``_over_draws``).

Cost: with the default fractions about two more linear fits than the arm itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from curate.eval_report import LABEL_LISTS
from curate.evaluation._comparison import UNITS
from curate.evaluation._knn import knn_predict, knn_probe
from curate.evaluation._linear import Scaler, fitted, linear_probe
from curate.evaluation._split import FOLDS, hold_out
from curate.evaluation._view import Figure, View
from curate.evaluation.examinations._over_draws import over_draws
from curate.results import Estimate

METRICS = ("linear", "knn")
FEWEST = 2  # labels that can be of two classes
ENOUGH = 5  # labels a class, on average, to choose settings on


def examine(view: View) -> list[Figure]:
    """Linear and k-NN accuracy at every fraction of the labels."""
    n, orders = len(view.comparison.split.train), [order for _, order in _orders(view)]
    sizes = {fraction: round(fraction / 100 * n) for fraction in sorted(view.settings.fractions)}
    return [figure for fraction, size in sizes.items() for figure in _figures(view, f"{fraction:g}%", size, orders)]


def label_lists(keys: Sequence[str], labels: np.ndarray, seed: int) -> np.ndarray:
    """Rows [n] in an order whose first k are the list of k labels.

    Args:
        keys: Of the training images [n], unique.
        labels: Their class numbers int [n].
        seed: Another one gives another order.
    """
    by_hash = np.array(sorted(range(len(keys)), key=lambda i: _hash(seed, keys[i])), np.int64)
    place = np.empty(len(keys))
    for number in np.unique(labels):
        rows = by_hash[labels[by_hash] == number]
        start = (
            int.from_bytes(_hash(seed, f"{keys[rows[0]]} begins")[:4], "big") / 2**32
        )  # where between its steps a class begins
        place[rows] = (np.arange(len(rows)) + start) / len(rows)
        place[rows[0]] = start - 1
    return by_hash[np.argsort(place[by_hash], kind="stable")]


def list_seeds(seed: int, draws: int) -> range:
    """Seeds of the lists of an evaluation."""
    return range(seed, seed + draws)


def lists_table(view: View) -> pa.Table:
    """All lists of a labeled set, schema LABEL_LISTS."""
    keys, parts = _keys(view), []
    for seed, order in _orders(view):
        columns = {"labeled": [view.images.name] * len(order), "seed": [seed] * len(order)}
        ranked = {"rank": np.arange(len(order)), "key": [keys[i] for i in order]}
        parts.append(pa.table({**columns, **ranked}, schema=LABEL_LISTS))
    return pa.concat_tables(parts)


def _hash(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"labels:{seed}:{key}".encode()).digest()


def _keys(view: View) -> list[str]:
    keys: list[str] = view.images.rows["key"].take(pa.array(view.comparison.split.train)).to_pylist()
    return keys


def _orders(view: View) -> Iterator[tuple[int, np.ndarray]]:
    split, keys = view.comparison.split, _keys(view)
    for seed in list_seeds(view.comparison.seed, view.settings.seeds):
        yield seed, label_lists(keys, split.labels[split.train], seed)


def _figures(view: View, condition: str, size: int, orders: Sequence[np.ndarray]) -> list[Figure]:
    """Both accuracies with so many labels of every list."""
    n = len(view.comparison.split.train)
    if size == n:
        return [_with_all(view, condition, metric) for metric in METRICS]
    reason = "the network was trained on all labels" if view.saw_labels else ""
    if size < FEWEST:
        reason = f"{condition} of {n:,} labels is fewer than {FEWEST}"
    if reason:
        missing = Estimate(value=None, reason=reason, lower_is_closer=False)
        return [Figure(condition=condition, metric=metric, found=missing) for metric in METRICS]
    lists = [np.sort(order[:size]) for order in orders]
    is_enough, resamples = _is_enough(view, lists), view.comparison.resamples
    correct = _correct(view, lists, is_enough)
    drawn, note = replace(resamples, n_train=size), _note(view, size, is_enough)
    return [
        Figure(
            condition=condition,
            metric=metric,
            found=over_draws(correct[:, i], resamples),
            unit=UNITS[metric],
            resamples=drawn,
            note=note,
        )
        for i, metric in enumerate(METRICS)
    ]


def _with_all(view: View, condition: str, metric: str) -> Figure:
    """The figure with all labels, which is measured already."""
    missing = Estimate(value=None, reason="this arm has no such head", lower_is_closer=False)
    found = view.probed.measured.get(metric, missing)
    return Figure(condition=condition, metric=metric, found=found, unit=UNITS[metric])


def _note(view: View, size: int, is_enough: bool) -> str:
    """How the lists were used, and what they lack."""
    basis = "each list" if is_enough else "all labels, a list being too short"
    classes = _n_classes(view)
    ending = f"; {classes - size} of {classes} classes without a label" if size < classes else ""
    return f"and over {view.settings.seeds} lists of labels; settings chosen on {basis}{ending}"


def _n_classes(view: View) -> int:
    """Classes in the training part."""
    split = view.comparison.split
    return len(np.unique(split.labels[split.train]))


def _is_enough(view: View, lists: Sequence[np.ndarray]) -> bool:
    """Whether settings can be chosen on so many labels."""
    separable = view.comparison.split.separable
    fewest = min(len(np.unique(separable[rows])) for rows in lists)
    return len(lists[0]) >= ENOUGH * _n_classes(view) and fewest >= FOLDS


def _correct(view: View, lists: Sequence[np.ndarray], is_enough: bool) -> np.ndarray:
    """Which test images are right, bool [lists, METRICS, m]."""
    split = view.comparison.split
    predict = _chosen_anew if is_enough else _as_chosen
    scaler = Scaler.of(view.features[split.train])
    predicted = [predict(view, rows, scaler) for rows in lists]
    return np.asarray(np.array(predicted) == split.labels[split.test])


def _chosen_anew(view: View, rows: np.ndarray, scaler: Scaler) -> list[np.ndarray]:
    """What both heads say of the test images, settings chosen on these labels."""
    split = view.comparison.split
    data = view.features[split.train[rows]], split.labels[split.train[rows]], view.features[split.test]
    held_out, n_classes = hold_out(split.separable[rows]), split.n_classes
    linear = linear_probe(*data, held_out, n_classes=n_classes, scaler=scaler)
    return [linear.predicted, knn_probe(*data, held_out, n_classes=n_classes).predicted]


def _as_chosen(view: View, rows: np.ndarray, scaler: Scaler) -> list[np.ndarray]:
    """The same under the settings chosen on all labels."""
    split, chosen = view.comparison.split, view.probed.chosen
    train, labels, test = view.features[split.train[rows]], split.labels[split.train[rows]], view.features[split.test]
    model = fitted(scaler(train), labels, chosen["linear"]["penalty"], n_classes=split.n_classes)
    k, temperature = int(chosen["knn"]["k"]), chosen["knn"]["temperature"]
    near = knn_predict(train, labels, test, k, temperature, n_classes=split.n_classes)
    return [model.predict(scaler(test)), near]
