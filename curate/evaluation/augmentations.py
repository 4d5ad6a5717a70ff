"""The invariance audit: how much of what labels say would a network lose that learns to ignore an augmentation.

Self-supervision pulls the views of an image together, so what one view does not tell is lost. The label that an ideal
network can still read is the label that one view tells:

    lost = accuracy(probe on images, tested on images) - accuracy(probe on views, tested on views)

both cross-fitted on the same frozen features and the same images, all views of an image (or group) on one side of a
fold, the figure of an image the mean over its views. With least squares instead of accuracy this is the part of the
label's variance that the views of an image do not share, which bounds what a contrastive loss can keep. A mean over
many views would be too kind: it collects from all of them what a single one, such as a crop beside the defect, lacks.

Beside it stands ``unadapted``: the accuracy on views of the probe that was fitted on images, which tells how far the
frozen encoder ignores the augmentation as it is.

What augmentation does for a network, to tell it what to ignore, is not measured here: the strongest preset that
leaves the labels alone is recommended, not the mildest.

Source: Tian et al., "What makes for good views", NeurIPS 2020 (arXiv 2005.10243); HaoChen et al., "Provable guarantees
for self-supervised deep learning with spectral contrastive loss", NeurIPS 2021 (arXiv 2106.04156).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curate.evaluation._images import Embedding, LabeledImages
from curate.evaluation._intervals import NORMAL_95
from curate.evaluation._invariance import FEWEST, Eye, Judge, Sample
from curate.pretraining.augment.operations import NOTHING, Operation, operations
from curate.pretraining.augment.presets import preset
from curate.results import Estimate
from embeddings.encoders import get_encoder
from embeddings.errors import UsageError
from embeddings.pipeline import Embeddable
from embeddings.pipeline.batches import core_count
from embeddings.progress import Progress, silent

STRONGEST_FIRST = ("natural", "gray-small", "inspection")
IMAGES, VIEWS = 400, 2  # how many are looked at, and views of each under each operation
TOO_MUCH = 1 / 3  # of the signal
DESTROYS, COSTS, KEEPS, UNCLEAR = "destroys", "costs", "keeps", "unclear"


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What one operation, or one whole preset, does to the labels."""

    name: str
    strength: str  # in words; "" where there is only one
    within: tuple[str, ...]  # presets that it is a part of; none for a whole preset
    accuracy: float  # of a probe on its views, 0..1
    unadapted: float  # accuracy on its views of the probe on images
    lost: Estimate  # accuracy on images less ``accuracy``, in 0..1; higher destroys more
    share: float  # lost, of what the labels have above the largest class
    verdict: str  # destroys, costs, keeps, unclear

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return {**asdict(self), "within": list(self.within), "lost": self.lost.to_json()}

    def row(self) -> list[str]:
        """One line of the table."""
        figures = [f"{self.accuracy:.3f}", f"{self.unadapted:.3f}", _points(self.lost), f"{self.share:.0%}"]
        return [f"{self.name} {self.strength}".strip(), *figures, self.verdict, ", ".join(self.within)]


@dataclass(frozen=True, kw_only=True)
class AugmentationAudit:
    """What augmentations would destroy of one labeled set."""

    name: str
    encoder: str
    size: int  # edge of the views in pixels
    n: int
    classes: int
    left_out: int  # sampled images that could not be read
    largest_class: float  # share of the images
    accuracy: Estimate  # on images as they are
    operations: tuple[Effect, ...]
    presets: tuple[Effect, ...]  # strongest first
    recommended: str | None
    reason: str
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        nested = {
            "accuracy": self.accuracy.to_json(),
            "operations": [effect.to_json() for effect in self.operations],
            "presets": [effect.to_json() for effect in self.presets],
        }
        return {**asdict(self), **nested}

    def lines(self) -> list[str]:
        """What was found, for people."""
        gone = f"; {self.left_out} more could not be read" if self.left_out else ""
        first = (
            f"{self.name}: frozen {self.encoder} at {self.size} pixels is right on {self.accuracy.value:.0%} of "
            f"{self.n} images ({self.classes} classes, the largest {self.largest_class:.0%}{gone})."
        )
        told = [
            f"{' '.join((effect.name, effect.strength)).strip()} would cost {_points(effect.lost)} points, "
            f"{effect.share:.0%} of the label signal ({', '.join(effect.within)})."
            for effect in sorted(self.operations, key=lambda effect: -effect.share)
            if effect.verdict == DESTROYS
        ]
        return [first, *told, self.reason]

    def rows(self) -> list[list[str]]:
        """The operations, then the whole presets."""
        return [effect.row() for effect in (*self.operations, *self.presets)]

    @staticmethod
    def header() -> list[str]:
        """What the columns of ``rows`` hold."""
        return ["views", "accuracy", "unadapted", "points lost", "of the signal", "verdict", "part of"]


def audit_augmentations(  # noqa: PLR0913 (the settings all commands share, and four of its own)
    labeled: Embeddable,
    *,
    name: str = "labeled",
    encoder: str = "lite0",
    presets: Sequence[str] = STRONGEST_FIRST,
    images: int = IMAGES,
    seed: int = 0,
    work: Path | str | None = Path(".curate"),
    device: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
) -> AugmentationAudit:
    """Measures what each augmentation would destroy of the labels of some images.

    Args:
        labeled: Source with labels, or its store; of ``TRAIN::TEST`` only the first part is looked at.
        name: Its name in messages.
        encoder: The frozen encoder that looks at the views, at its own size.
        presets: Augmentation presets, strongest first; their operations are measured too.
        images: How many are looked at, those with the lowest key hash.
        seed: Draws the views.
        work: Where embeddings are kept and reused; None keeps them in memory.
        device: Where to embed: auto, cpu, cuda.
        workers: Threads that decode and embed.
        progress: Told of each operation.

    Returns:
        AugmentationAudit; accuracies lie in 0..1.

    Raises:
        UnknownNameError: no such encoder or preset.
        UsageError: no labels, one class only, vectors without images, or a sample under 40.
        TooFewImagesError: fewer than 40 labeled images that can be read.
    """
    if images < FEWEST:
        raise UsageError(f"An audit of {images} images, wanted {FEWEST} or more.", hint=f"Leave it at {IMAGES}.")
    parts, wholes = operations(presets), [Operation(found, "", preset(found), ()) for found in presets]
    embedding = Embedding(work=Path(work) if work else None, device=device, workers=workers, progress=progress)
    train = labeled.partition("::")[0] if isinstance(labeled, str) else labeled
    store = LabeledImages.of(name, train, embedding, encoder).stores[0]
    eye = Eye(get_encoder(encoder, device=device.partition(",")[0]), seed=seed, workers=workers or core_count())
    sample = Sample.read(store, size=eye.encoder.spec.size, limit=images, workers=eye.workers)
    judge = Judge(eye.features(sample, NOTHING, views=1), sample.labels, sample.units)
    effects: list[Effect] = []
    for operation in (*parts, *wholes):
        progress("audit", len(effects), len(parts) + len(wholes), f"{operation.name} {operation.strength}".strip())
        effects.append(_effect(judge, operation, *judge.hits_on(eye.features(sample, operation.preset, views=VIEWS))))
    progress("audit", len(effects), len(effects))
    of_presets = tuple(effects[len(parts) :])
    recommended, reason = _recommended(judge, of_presets)
    facts = {"name": name, "encoder": encoder, "size": eye.encoder.spec.size, "seed": seed}
    found = {"operations": tuple(effects[: len(parts)]), "presets": of_presets}
    told = {"recommended": recommended, "reason": reason, "left_out": sample.left_out}
    return AugmentationAudit(**facts, **found, **told, **judge.facts())  # type: ignore[arg-type]


def _effect(judge: Judge, operation: Operation, hits: np.ndarray, unadapted: np.ndarray) -> Effect:
    lost = judge.lost(hits)
    share = (lost.value or 0.0) / judge.signal if judge.has_signal else 0.0
    return Effect(
        name=operation.name,
        strength=operation.strength,
        within=operation.within,
        accuracy=float(hits.mean()),
        unadapted=float(unadapted.mean()),
        lost=lost,
        share=share,
        verdict=_verdict(lost, judge),
    )


def _verdict(lost: Estimate, judge: Judge) -> str:
    """Destroys or costs: it surely takes some, a third of the signal or less; keeps: surely less than a third."""
    low, high, limit = lost.low or 0.0, lost.high or 0.0, TOO_MUCH * judge.signal
    if not judge.has_signal or (low <= 0 and high >= limit):
        return UNCLEAR
    return DESTROYS if (lost.value or 0.0) >= limit else COSTS if low > 0 else KEEPS


def _recommended(judge: Judge, wholes: Sequence[Effect]) -> tuple[str | None, str]:
    """The strongest preset that leaves two thirds of the signal, or none; and why."""
    if not judge.has_signal:
        return None, "The frozen encoder hardly tells the labels better than chance: use another, or more images."
    costs = ", ".join(f"{effect.name} {effect.share:.0%}" for effect in wholes)
    best = next((effect.name for effect in wholes if effect.share < TOO_MUCH), None)
    if best is None:
        return None, f"No preset leaves two thirds of the label signal ({costs}): leave out the operations above."
    return best, f"Use augmentation={best}: the strongest preset that leaves two thirds of the label signal ({costs})."


def _points(lost: Estimate) -> str:
    """Percentage points with the error of 95%."""
    return f"{100 * (lost.value or 0.0):.1f} ± {100 * NORMAL_95 * (lost.se or 0.0):.1f}"
