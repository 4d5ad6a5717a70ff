"""Which labeled images train a probe and which test it, and on which part of the training images settings are chosen.

Images that belong together (one group, exact copies of a file or of its pixels) form a unit, and a unit is never cut.
Without a test part, units in the order of sha256 of their name (group, else key) go to the training part until it holds
about 70% of the images: the same images whatever the file order and whatever the encoder. A given test part stays as it
is; training images that are copies of test images are left out.

Cross-fitting (``folds``) deals the units out in the same order, each to the smallest fold so far. Every labeled image
is then tested once, by what was fitted to the other folds. Settings are chosen inside these: of 5 to 10 folds on each
of the others by what is fitted to the rest, which serves two folds (``_probe``); else on parts that are held out anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embeddings.errors import TooFewImagesError, UsageError
from embeddings.moments import block_names
from embeddings.store import EmbeddingStore

TRAIN_SHARE = 0.7
MIN_IMAGES = 10  # labeled images in each part
MOST_STRANGE = 0.5  # of the test images, of classes that no training image has
FOLDS = 5
HELD_OUT = 1_000  # images settle the choice; folds beyond them are not used
NESTED = (5, 10)  # folds: at least three are left to fit to, and pairs of them are fewer than five times the folds

Parts = list[tuple[np.ndarray, np.ndarray]]  # (rows to fit on, rows held out), as positions in the training part


@dataclass(frozen=True, kw_only=True)
class Split:
    """A labeled set cut into a training and a test part; cross-fitted, its test part is cut into those of the folds."""

    train: np.ndarray  # int64 row numbers, ascending; none where it is cross-fitted
    test: np.ndarray
    labels: np.ndarray  # int64 [n] class number of every row, -1 where there is no label
    units: np.ndarray  # int64 [n] unit of every row, numbered in hash order
    held_out: Parts
    separable: np.ndarray  # int64 [len(train)] what may not be cut in the training part: units, or copies alone
    facts: dict[str, Any]  # n_train, n_test, classes, how, what was left out
    folds: tuple[Split, ...] = ()  # cross-fitting: every test image is in the test part of one of them

    @property
    def n_classes(self) -> int:
        """Classes in either part."""
        return len(self.facts["class_names"])

    @property
    def parts(self) -> tuple[Split, ...]:
        """What is fitted and tested: the folds, else the split itself."""
        return self.folds or (self,)


def split_labeled(rows: pa.Table, n_train: int | None = None, *, folds: int = 1, grouped_by: str = "group") -> Split:
    """Cuts labeled rows into a training and a test part, or into folds.

    Args:
        rows: Rows of a store [n], schema ROWS; with a given test part, the training rows followed by the test rows.
        n_train: How many of them are the given training part; None splits here.
        folds: Two or more cross-fit: every labeled row is tested once.
        grouped_by: What the column is called that the rows' groups come from, for the facts.

    Raises:
        TooFewImagesError: fewer than 10 labeled images in a part, no class with two training images, one unit only, or
            fewer of them than folds.
        UsageError: no labels, one class only, a test part of which most is of classes that training lacks, or folds
            with a given test part.
    """
    if folds > 1:
        return _cross_fitted(rows, n_train, folds, _basis(rows, grouped_by))
    labels, names = _class_numbers(rows["label"].to_pylist())
    units = _in_hash_order(block_names(rows if n_train is None else _with_part_in_key(rows, n_train)))
    labeled = np.flatnonzero(labels >= 0)
    if n_train is None:
        train, test = _cut(labeled, units)
        facts: dict[str, Any] = {
            "how": f"{TRAIN_SHARE:.0%} of the images train, by {_basis(rows, grouped_by)}",
            "folds": 1,
        }
    else:
        given, test = labeled[labeled < n_train], labeled[labeled >= n_train]
        train = given[~np.isin(given, _copies_of(rows, given, test))]
        facts = {
            "how": "the test part was given",
            "copies_left_out": len(given) - len(train),
            "groups_in_both": len(_groups(rows, train) & _groups(rows, test)),
        }
    facts = {**_counts(labels, names, train, test), "unlabeled_left_out": len(labels) - len(labeled), **facts}
    _check_size(train, "The training part has")
    _check_size(test, "The test part has")
    _check_classes(labels, train)
    _check_strange([(labels[train], labels[test])])
    facts["test_units"] = len(np.unique(units[test]))
    return _split(rows, labels, units, (train, test), facts)


def split_store(store: EmbeddingStore, *, folds: int = 1) -> tuple[EmbeddingStore, EmbeddingStore]:
    """Training and test part of one labeled store, as ``evaluate`` would cut it; with folds all images are tested.

    Raises:
        TooFewImagesError: fewer than 10 labeled images in a part, no class with two training images, one unit only, or
            fewer of them than folds.
        UsageError: no labels, or one class only.
    """
    split = split_labeled(store.rows(), folds=folds)
    return store.take(split.train), store.take(split.test)


def _cross_fitted(rows: pa.Table, n_train: int | None, folds: int, basis: str) -> Split:
    """All labeled rows as the test part, and the folds that it is made of."""
    if n_train is not None:
        raise with_test_part(folds, "the labeled set")
    labels, names = _class_numbers(rows["label"].to_pylist())
    units, labeled = _in_hash_order(block_names(rows)), np.flatnonzero(labels >= 0)
    _check_size(labeled, "There are")
    fold = _dealt(units[labeled], _possible(folds, units[labeled]))
    cuts = [(labeled[fold != number], labeled[fold == number]) for number in range(folds)]
    for train, _ in cuts:
        _check_size(train, "All folds but one have")
        _check_classes(labels, train)
    strange = _check_strange([(labels[train], labels[test]) for train, test in cuts])
    facts: dict[str, Any] = {
        "n_train": round(float(np.mean([len(train) for train, _ in cuts]))),
        "n_test": len(labeled),
        "classes": len(names),
        "classes_missing_in_train": len(strange),
        "classes_missing_in_test": 0,
        "class_names": names,
        "unlabeled_left_out": len(labels) - len(labeled),
        "how": f"every image is tested once, in {folds} folds by {basis}; the other folds train",
        "folds": folds,
        "test_units": len(np.unique(units[labeled])),
    }
    none = labeled[:0]
    return Split(
        train=none,
        test=labeled,
        labels=labels,
        units=units,
        held_out=[],
        separable=none,
        facts=facts,
        folds=tuple(_split(rows, labels, units, cut, facts, others=fold[fold != n]) for n, cut in enumerate(cuts)),
    )


def with_test_part(folds: int, name: str) -> UsageError:
    """The refusal of folds where a test part was given."""
    return UsageError(
        f"folds={folds} tests every labeled image, but {name} has a test part of its own.",
        hint="Leave out folds, or give all labeled images as one source, without ::TEST.",
    )


def _possible(folds: int, units: np.ndarray) -> int:
    """As many folds, if there are units for them."""
    found = len(np.unique(units))
    if found < folds:
        raise TooFewImagesError(
            f"{len(units):,} labeled images in {found:,} units (a group, copies of one image, else an image) cannot be "
            f"divided into {folds} folds.",
            hint=f"Give at most {found:,} folds." if found > 1 else "Give a test part of its own: TRAIN::TEST.",
        )
    return folds


def _split(
    rows: pa.Table,
    labels: np.ndarray,
    units: np.ndarray,
    cut: tuple[np.ndarray, np.ndarray],
    facts: dict[str, Any],
    *,
    others: np.ndarray | None = None,
) -> Split:
    """One cut; ``others`` are the folds that its training rows are of."""
    train, test = cut
    separable = _separable(rows, units, train)
    return Split(
        train=train,
        test=test,
        labels=labels,
        units=units,
        held_out=_nested(others, units[train]) or hold_out(separable),
        separable=separable,
        facts=facts,
    )


def _with_part_in_key(rows: pa.Table, n_train: int) -> pa.Table:
    """Rows of two sources: an image of one is not the image of the other that has the same key."""
    keys = [f"{'train' if i < n_train else 'test'}/{key}" for i, key in enumerate(rows["key"].to_pylist())]
    return rows.set_column(rows.schema.get_field_index("key"), "key", pa.array(keys))


def _groups(rows: pa.Table, part: np.ndarray) -> set[str]:
    return {group for group in rows["group"].take(pa.array(part)).to_pylist() if group is not None}


def hold_out(units: np.ndarray, *, enough: int = HELD_OUT) -> Parts:
    """Parts to choose settings on: fifths, of which as many are used as hold 1,000 images together; units stay whole.

    Up to 1,000 training images this is five-fold cross-validation; from 5,000 on it is one held-out fifth.

    Args:
        units: int [n], numbered in hash order.
        enough: Images held out together beyond which no more folds are used.

    Returns:
        (rows to fit on, rows held out) per fold, balanced in size.
    """
    return _each_held_out(_dealt(units, FOLDS), enough)


def _nested(fold: np.ndarray | None, units: np.ndarray) -> Parts:
    """The other folds int [n] as parts to choose settings on; none if they are too few, or more than are worth it.

    None either where units int [n] are few: with that of one fold and that of another a class would often be gone.
    """
    if fold is None or not NESTED[0] <= len(np.unique(fold)) + 1 <= NESTED[1] or len(np.unique(units)) < FOLDS:
        return []
    return _each_held_out(fold, HELD_OUT)


def _each_held_out(fold: np.ndarray, enough: int) -> Parts:
    """The parts that hold each fold out, in the order of their numbers; no more once so many images are held out."""
    numbers, load = np.unique(fold, return_counts=True)
    used = 1 + int(np.searchsorted(np.cumsum(load), enough))
    return [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in numbers[:used]]


def _dealt(units: np.ndarray, folds: int) -> np.ndarray:
    """Fold int64 [n] of every image: units in their order, each to the fold that holds the fewest images so far."""
    _, unit, sizes = np.unique(units, return_inverse=True, return_counts=True)
    load, fold_of_unit = np.zeros(folds, np.int64), np.empty(len(sizes), np.int64)
    for number, size in enumerate(sizes):
        fold_of_unit[number] = load.argmin()
        load[fold_of_unit[number]] += size
    return np.asarray(fold_of_unit[unit])


def _class_numbers(labels: list[str | None]) -> tuple[np.ndarray, list[str]]:
    """Class number of every row, -1 without a label, and names of the classes; an empty label is none."""
    names = sorted({label for label in labels if label})
    if not names:
        raise UsageError(
            "No image has a label.", hint="Sort images into class folders, or name the column: SOURCE#label:COLUMN."
        )
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[label] if label else -1 for label in labels], np.int64), names


def _in_hash_order(blocks: np.ndarray) -> np.ndarray:
    unique, inverse = np.unique(blocks, return_inverse=True)
    order = sorted(range(len(unique)), key=lambda i: hashlib.sha256(f"split:{unique[i]}".encode()).digest())
    rank = np.empty(len(unique), np.int64)
    rank[order] = np.arange(len(unique))
    return np.asarray(rank[inverse])


def _cut(labeled: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the first units in hash order that come closest to the share, and the others; neither is empty."""
    numbers, sizes = np.unique(units[labeled], return_counts=True)
    if len(numbers) < 2:
        raise TooFewImagesError(
            f"All {len(labeled)} labeled images belong to one group, or are copies of one image.",
            hint="Give a test part of its own: TRAIN::TEST.",
        )
    trained = np.cumsum(sizes)[:-1]
    last = numbers[np.abs(trained - TRAIN_SHARE * len(labeled)).argmin()]
    is_train = units[labeled] <= last
    return labeled[is_train], labeled[~is_train]


def _copies_of(rows: pa.Table, given: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Given training rows whose file, bytes or pixels are those of a test row."""
    copied = np.zeros(len(given), bool)
    for column in (pc.coalesce(rows["file"], rows["sha256"]), rows["sha256"], rows["pixels"]):
        values = np.array(column.to_pylist(), dtype=object)
        known = {value for value in values[test] if value is not None}
        copied |= np.array([value in known for value in values[given]], dtype=bool)
    return given[copied]


def _separable(rows: pa.Table, units: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Units of the training rows; copies alone where groups are too few to hold some out."""
    if len(np.unique(units[train])) >= FOLDS:
        return np.asarray(units[train])
    ungrouped = rows.set_column(rows.schema.get_field_index("group"), "group", pa.nulls(len(rows), pa.string()))
    return np.asarray(_in_hash_order(block_names(ungrouped))[train])


def _basis(rows: pa.Table, grouped_by: str) -> str:
    return grouped_by if rows["group"].null_count < len(rows) else "key"


def _counts(labels: np.ndarray, names: list[str], train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    in_train, in_test = (set(np.unique(labels[part]).tolist()) for part in (train, test))
    return {
        "n_train": len(train),
        "n_test": len(test),
        "classes": len(names),
        "classes_missing_in_train": len(in_test - in_train),
        "classes_missing_in_test": len(in_train - in_test),
        "class_names": names,
    }


def _check_size(part: np.ndarray, what: str) -> None:
    if len(part) < MIN_IMAGES:
        raise TooFewImagesError(
            f"{what} {len(part)} labeled images; at least {MIN_IMAGES} are needed.",
            hint="Label more images, or give parts of your own: TRAIN::TEST.",
        )


def _check_classes(labels: np.ndarray, train: np.ndarray) -> None:
    sizes = np.bincount(labels[train])
    if (sizes > 0).sum() < 2:
        raise UsageError(
            f"All {len(train)} training images have one label.",
            hint="Name another label column (SOURCE#label:COLUMN), or add images of a second class.",
        )
    if sizes.max() < 2:
        raise TooFewImagesError(
            f"{len(train)} training images have {len(train)} different labels; no class can be learned from one image.",
            hint="Name a coarser label column: SOURCE#label:COLUMN.",
        )


def _check_strange(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Classes tested without a training image, of pairs (training labels, test labels); refused if most images are."""
    tested = np.concatenate([test for _, test in parts])
    strange = np.concatenate([~np.isin(test, train) for train, test in parts])
    if strange.mean() > MOST_STRANGE:
        raise UsageError(
            f"{strange.sum():,} of {len(tested):,} test images are of classes without a training image.",
            hint="Where the label follows from the group, leave the group out or group by another column; else give "
            "parts of your own: TRAIN::TEST.",
        )
    return np.unique(tested[strange])
