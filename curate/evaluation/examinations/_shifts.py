"""The same task under other conditions: labeled images of another style, plant or season, given by the user.

    shift NAME    linear    accuracy of the linear head; resamples of these images and their groups, the same for every
                            arm, so that the difference to the frozen encoder is paired
                  drop      accuracy on the test part minus that; both are drawn, independently of each other

Labels are matched by class name. Left out and counted: images without a label, of classes that the head does not know,
and copies of training images. The head, its penalty and its scaling stay those of the training part. Class shares may
differ from the test part's, and with them the drop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate.evaluation._intervals import Measured, Resamples, accuracy
from curate.evaluation._view import Figure, View
from curate.results import Estimate
from embeddings.encoders import Encoder
from embeddings.moments import block_names
from embeddings.pipeline import as_store
from embeddings.store import EmbeddingStore

OTHER_DRAWS = 1_000  # added to the seed: draws of these images are independent of those of the test part
ACCURACY = "linear accuracy"
DROP = "linear accuracy lost against the test part"


def shifted(view: View, encoder: Encoder) -> list[Figure]:
    """Figures of every shift set, embedded by the arm's encoder.

    Raises:
        SourceError: nothing at an address.
    """
    found: list[Figure] = []
    for name, source in view.settings.shifts.items():
        store = as_store(source, name=name, encoder=encoder, **vars(view.embedding))
        found += _figures(view, f"shift {name}", ShiftSet.of(view, store))
    return found


@dataclass(frozen=True)
class ShiftSet:
    """What of a shift set counts, and why the rest does not."""

    features: np.ndarray  # [k, d]
    labels: np.ndarray  # int64 [k] class numbers of the split
    units: np.ndarray  # int64 [k]
    left_out: dict[str, int]  # reason -> images

    @classmethod
    def of(cls, view: View, store: EmbeddingStore) -> ShiftSet:
        """The images of a store whose class the head knows and on which it was not trained."""
        split, rows = view.comparison.split, store.rows()
        trained = view.images.rows.take(pa.array(split.train))
        names, known = split.facts["class_names"], set(np.unique(split.labels[split.train]).tolist())
        number = {name: i for i, name in enumerate(names) if i in known}
        given = store.column("label")
        labels = np.array([number.get(label, -1) for label in given], np.int64)
        unlabeled = np.array([label is None for label in given], bool)
        copied = _copies(rows, trained) & (labels >= 0)
        kept = np.flatnonzero((labels >= 0) & ~copied)
        units = np.unique(block_names(rows), return_inverse=True)[1]
        left_out = {
            "without a label": int(unlabeled.sum()),
            "of classes without training images": int(((labels < 0) & ~unlabeled).sum()),
            "copies of training images": int(copied.sum()),
        }
        return cls(store.vectors()[kept], labels[kept], units[kept], left_out)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def told(self) -> str:
        """What was left out, in words."""
        reasons = [f"{count:,} {reason}" for reason, count in self.left_out.items() if count]
        return f"left out: {', '.join(reasons)}" if reasons else "none left out"


def _figures(view: View, condition: str, images: ShiftSet) -> list[Figure]:
    resamples = Resamples(
        units=images.units, n_train=len(view.comparison.split.train), seed=view.comparison.seed + OTHER_DRAWS
    )
    shared = {"condition": condition, "note": images.told, "resamples": resamples}
    drop = {**shared, "metric": "drop", "unit": DROP, "is_share": False, "lower_is_better": True}
    linear = {**shared, "metric": "linear", "unit": ACCURACY}
    if not len(images):
        lacking = Estimate(value=None, reason=f"no image of a known class; {images.told}", **resamples.facts())
        return [Figure(found=lacking, **kind) for kind in (linear, drop)]  # type: ignore[arg-type]
    said = view.probed.classify(images.features, np.zeros(len(images), np.int64))
    there = resamples.measure({"linear": accuracy(said.argmax(axis=1) == images.labels)})["linear"]
    here = view.probed.measured["linear"]
    lost = Measured(value=here.value - there.value, draws=here.draws - there.draws)
    return [Figure(found=there, **linear), Figure(found=lost, **drop)]  # type: ignore[arg-type]


def _copies(rows: pa.Table, trained: pa.Table) -> np.ndarray:
    """Rows, as bool [n], whose bytes or pixels are those of a training image."""
    copied = np.zeros(len(rows), bool)
    for column in ("sha256", "pixels"):
        known = {value for value in trained[column].to_pylist() if value is not None}
        copied |= np.array([value in known for value in rows[column].to_pylist()], bool)
    return copied
