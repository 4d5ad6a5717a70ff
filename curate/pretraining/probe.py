"""How much a run's features say of the target's labels while it trains, beside the frozen public encoder.

The probe is linear: ridge regression on one-hot labels behind a batch norm without weights (features standardized over
all images; MAE's need it), cross-fitted (``ridge``): every image is named by a classifier that saw neither it, nor its
copies, nor its group.

It is read before training and at TIMES equal shares of C, on at most MOST images. It watches a run and does not
judge it: these are training images, and ``curate evaluate`` has test images and tunes its classifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.numerals import counted
from curate.pretraining.augment.draws import image_hash
from curate.pretraining.features import features_of
from curate.pretraining.images import load_images
from curate.pretraining.ridge import cross_fitted
from embeddings import files
from embeddings.encoders.networks import Network
from embeddings.encoders.torch_encoder import Placement
from embeddings.errors import SourceError, TooFewImagesError, UsageError
from embeddings.moments import fold_of
from embeddings.pipeline import as_store, listed_store
from embeddings.progress import Progress
from embeddings.sources import holds_vectors, open_source, parse_address

FROZEN = "lite0"
NAME = "probe"
TIMES = 10
MOST = 2_000  # images
LEAST = 20


@dataclass(frozen=True)
class Reading:
    """Share of n images that are named rightly."""

    accuracy: float
    n: int

    @property
    def se(self) -> float:
        """Binomial standard error."""
        return float(np.sqrt(self.accuracy * (1 - self.accuracy) / self.n))

    def to_json(self) -> dict[str, float]:
        """Plain JSON object."""
        return {"accuracy": self.accuracy, "se": self.se}


class Probe:
    """Labeled images, and what the frozen public encoder makes of them."""

    def __init__(self, address: str, *, placement: Placement, progress: Progress) -> None:
        """Embeds the images with the frozen encoder.

        Raises:
            SourceError, UsageError, TooFewImagesError: as ``require_probe``, also for images that cannot be read.
        """
        require_probe(address)
        device = str(placement.device)
        store = as_store(address, name=NAME, encoder=FROZEN, work=None, device=device, progress=progress)
        kept = _kept(store.rows())
        self._rows = store.rows().take(kept)
        self._source, self._placement, self._progress = open_source(store.source), placement, progress
        self._labels = np.unique(self._rows["label"].to_pylist(), return_inverse=True)[1]
        self._folds = fold_of(self._rows) // 2
        _require_enough(address, self._labels, self._folds)
        self.frozen = self._reading(store.vectors()[kept])

    def read(self, network: Network, *, size: int, folder: Path) -> Reading:
        """The accuracy on the features of a network at this edge in pixels; ``folder`` keeps the decoded images.

        Raises:
            SourceError: an image has changed since it was embedded.
        """
        place = folder / f"{NAME}-{files.digest(self._rows['key'].to_pylist())[:16]}"
        table = _table(self._rows)
        block = load_images(table, {NAME: self._source}, place, edge=size, progress=lambda *_: None)
        if len(block.errors):
            first = block.errors.slice(0, 1).to_pylist()[0]
            raise SourceError(
                f"{first['key']} of the probe's source does not read as it did: {first['reason']}.",
                hint="Leave the probe's images alone while a run is on, or go on without a probe.",
            )
        return self._reading(features_of(network, block.read(np.arange(len(block))), self._placement))

    def facts(self) -> dict[str, Any]:
        """What was probed, without its place."""
        columns = [self._rows[name].to_pylist() for name in ("key", "sha256", "label")]
        digest = files.digest(list(zip(*columns, strict=True)))
        classes = int(self._labels.max()) + 1
        return {"images": len(self._rows), "classes": classes, "digest": digest, "encoder": FROZEN}

    def _reading(self, features: np.ndarray) -> Reading:
        hits = cross_fitted(features, self._labels, self._folds) == self._labels
        return Reading(float(hits.mean()), len(hits))


def require_probe(address: str) -> None:
    """Refuses labeled images that no probe can be made of; lists them, reads and embeds none.

    Raises:
        SourceError: no such source, or nothing in it.
        UsageError: vectors instead of images, no labels, or labels of a single class.
        TooFewImagesError: fewer than LEAST labeled images, or all in one fold.
    """
    try:
        store = listed_store(address, name=NAME, encoder=FROZEN)
    except SourceError as error:
        raise SourceError(f"The probe's source: {error.message}", hint=error.hint) from error
    was_embedded = bool(store.facts)
    lacks_images = not (store.source and store.spec.size) if was_embedded else holds_vectors(parse_address(address))
    if lacks_images:
        raise UsageError(
            f"{_called(address)} holds vectors; the probe needs images.",
            hint="Give labeled images: a folder with a sub-folder for each class, or a table.",
        )
    rows = store.rows()
    if rows["label"].null_count == len(rows):
        raise UsageError(
            f"{_called(address)}: none of its {len(rows):,} images has a label, and the probe needs labels.",
            hint="Name their column: probe=SOURCE#label:COLUMN; or leave out the probe.",
        )
    rows = rows.take(_kept(rows))
    _require_enough(address, rows["label"].to_numpy(), fold_of(rows) // 2)


def _require_enough(address: str, labels: np.ndarray, folds: np.ndarray) -> None:
    """Refuses labels [n] in folds int [n] of which no classifier can be fitted and tried."""
    n, parts = len(labels), len(np.unique(folds))
    if n < LEAST or parts < 2:
        raise TooFewImagesError(
            f"{_called(address)} has {n} labeled images in {counted(parts, 'part')} that can be left out; wanted are "
            f"{LEAST} in 2.",
            hint="Label more images, or leave out the probe.",
        )
    if len(np.unique(labels)) < 2:
        raise UsageError(
            f"{_called(address)} has one label only; wanted are two or more.",
            hint="Add images of another class, or leave out the probe.",
        )


def _called(address: str) -> str:
    return f"The probe's source {address!r}"


def _kept(rows: pa.Table) -> np.ndarray:
    """Row numbers of at most MOST labeled images, the same ones whatever the order of the files; ascending."""
    labeled = np.flatnonzero(pc.is_valid(rows["label"]).to_numpy(zero_copy_only=False))
    hashes: Sequence[int] = [image_hash(NAME, key) for key in rows["key"].take(pa.array(labeled)).to_pylist()]
    return np.sort(labeled[np.argsort(hashes, kind="stable")[:MOST]])


def _table(rows: pa.Table) -> pa.Table:
    """The rows as those of a selection."""
    n = len(rows)
    columns = {"source": pa.array([NAME] * n)} | {name: rows[name] for name in ("key", "uri", "sha256")}
    return pa.table({**columns, "repeats": pa.array([1] * n), "stage": pa.array([0] * n)})
