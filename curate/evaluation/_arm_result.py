"""What an arm leaves on a labeled set, and what decides it: who finds it again need not measure it again.

The code, which decides it too, is in every digest already: see ``_kept``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.eval_report import ArmScore, Finding
from curate.evaluation._images import Embedding, LabeledImages
from curate.evaluation._intervals import Measured, Resamples
from curate.evaluation._kept import digest_array
from curate.evaluation._label_equivalents import Curve
from curate.evaluation._pairs import Contestant
from curate.evaluation._ranking_intervals import RankingResamples
from curate.evaluation._view import Figure
from curate.evaluation.settings import Settings
from curate.results import Estimate
from embeddings import files
from embeddings.encoders import registry
from embeddings.store import ROWS, digest_columns

CONTENT = [name for name in ROWS.names if name not in ("uri", "stamp")]  # what an image is, not where it lies
RUN = "run:"
RUN_FILES = ("run.json", "backbone.json", "backbone.safetensors")
SEEDED = ("lite0:untrained", "random")  # twins of frozen encoders
SHIFTED, COSTED = "robustness", "rare"  # examinations that read sources and files of the user


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One arm on one labeled set, as it is or fine-tuned."""

    score: ArmScore
    predictions: pa.Table  # schema PREDICTIONS
    contestant: Contestant | None  # for the comparison of runs
    figures: dict[tuple[str, str, str], Figure] | None = None  # the frozen encoder's, which others are compared with
    label_lists: pa.Table | None = None


KINDS = (ArmResult, ArmScore, Contestant, Curve, Estimate, Figure, Finding, Measured, RankingResamples, Resamples)


def set_document(
    images: LabeledImages,
    settings: Settings,
    names: Sequence[str],
    *,
    seed: int,
    encoder: str,
    embedding: Embedding,
) -> dict[str, Any]:
    """What every result on a labeled set depends on: images, labels, the frozen features, and what is asked of them."""
    spec, features = images.own_features()
    shifts = settings.shifts if SHIFTED in names else {}
    costs = settings.costs if COSTED in names else None
    read = {
        "shifts": {name: _rows_digest(embedding.store(at, name, encoder).rows()) for name, at in shifts.items()},
        "costs": costs and files.digest_bytes(files.read_bytes(costs)),
    }
    return {
        "set": images.name,
        "rows": _rows_digest(images.rows),
        "training": images.n_train,
        "frozen": [encoder, spec.fingerprint, digest_array(features)],
        "also": list(names),
        "settings": {**asdict(settings), **read},
        "seed": seed,
    }


def arm_document(name: str, kind: str, encoder: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What an arm's result depends on besides; a run's folder may be moved."""
    return {"arm": name, "kind": kind, "encoder": _identity(encoder), "facts": dict(facts)}


def _identity(encoder: str) -> str | dict[str, str]:
    """The digest of a network, without building it where it is a run's; the name of one that the code alone makes."""
    if encoder.partition("@")[0] in SEEDED:
        return encoder
    if not encoder.startswith(RUN):
        return registry.encoder_spec(encoder).fingerprint
    places = [Path(encoder.removeprefix(RUN)) / name for name in RUN_FILES]
    return {place.name: files.digest_file(place) for place in places if place.exists()}


def _rows_digest(rows: pa.Table) -> str:
    return digest_columns(rows, CONTENT)
