"""evaluate(arms, labeled): the frozen public encoder, its untrained twin and every run, on the same labeled images.

Every arm embeds every labeled set once; split, resamples and grids are the same for all. Settings are chosen on
held-out training images; test images are looked at once, for the final figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.evaluation._comparison import Comparison
from curate.evaluation._images import Embedding, Labeled, LabeledImages
from curate.evaluation._split import split_labeled
from curate.results import ArmScore, EvalReport, Run
from embeddings.errors import UsageError
from embeddings.progress import Progress, silent


def evaluate(  # noqa: PLR0913 (the settings all commands share, and one of its own)
    arms: Mapping[str, Run | str | Path],
    labeled: Mapping[str, Labeled],
    *,
    encoder: str = "lite0",
    allow_unequal: bool = False,
    seed: int = 0,
    work: Path | str | None = Path(".curate"),
    device: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
) -> EvalReport:
    """Compares runs with the frozen public encoder by linear and k-NN accuracy.

    Args:
        arms: Name -> run, or its folder.
        labeled: Name -> source with labels (30% of it is held out by group, else by key), ``TRAIN::TEST``, or a pair
            of sources. A store serves too if it knows its images, since every arm embeds those itself.
        encoder: The frozen public encoder.
        allow_unequal: Compare runs that saw unequal numbers of samples.
        seed: Draws test images and label subsets.
        work: Where embeddings are kept and reused; None keeps them in memory.
        device: Where to embed: auto, cpu, cuda.
        workers: Threads that decode.
        progress: Told how far the work is.

    Returns:
        EvalReport: for every labeled set ``frozen:ENCODER``, ``untrained:ENCODER``, then the runs in their order.
        Accuracies lie in 0..1, higher is better; ``n`` is (training labels, test images).

    Raises:
        UsageError: unequal samples seen, not a run, no labels, one class only, or vectors without images.
        TooFewImagesError: fewer than 10 labeled images in a part.
    """
    compared = [*_references(encoder), *_runs(arms, allow_unequal)]
    if not labeled:
        raise UsageError("No labeled set was given.", hint="Give at least one: NAME=TRAIN[::TEST].")
    folder = None if work is None else Path(work)
    embedding = Embedding(work=folder, device=device, workers=workers, progress=progress)
    scores: list[ArmScore] = []
    facts: dict[str, dict[str, Any]] = {}
    for name, thing in labeled.items():
        images = LabeledImages.of(name, thing, embedding, encoder)
        split = split_labeled(images.rows, images.n_train)
        comparison = Comparison(split=split, frozen_features=images.own_features()[1], seed=seed)
        for arm in compared:
            progress("evaluate", len(scores), len(labeled) * len(compared), f"{arm.name} on {name}")
            scores.append(_score(arm, images, comparison, embedding))
        facts[name] = comparison.facts()
    progress("evaluate", len(scores), len(scores))
    return EvalReport(scores=tuple(scores), labeled=facts, seed=seed)


@dataclass(frozen=True, kw_only=True)
class _Arm:
    name: str
    kind: str  # frozen, untrained or run
    encoder: str
    facts: dict[str, Any] = field(default_factory=dict)


def _score(arm: _Arm, images: LabeledImages, comparison: Comparison, embedding: Embedding) -> ArmScore:
    is_frozen = arm.kind == "frozen"
    spec, features = images.own_features() if is_frozen else images.features(embedding, arm.encoder)
    probed = comparison.frozen if is_frozen else comparison.probe(features)
    return ArmScore(
        arm=arm.name,
        labeled=images.name,
        kind=arm.kind,
        metrics=comparison.metrics(probed),
        against_frozen={} if is_frozen else comparison.gains(probed),
        label_equivalents=None if is_frozen else comparison.label_equivalents(probed),
        facts={"encoder": spec.name, "fingerprint": spec.fingerprint, "chosen": probed.chosen, **arm.facts},
    )


def _references(encoder: str) -> list[_Arm]:
    """The frozen encoder and its untrained twin; an untrained ResNet-18 stands in where there is no twin."""
    family, _, size = encoder.partition("@")
    has_twin = family == "lite0"
    twin = f"lite0:untrained{'@' * bool(size)}{size}" if has_twin else "random"
    return [
        _Arm(name=f"frozen:{encoder}", kind="frozen", encoder=encoder),
        _Arm(name=f"untrained:{encoder if has_twin else twin}", kind="untrained", encoder=twin),
    ]


def _runs(arms: Mapping[str, Run | str | Path], allow_unequal: bool) -> list[_Arm]:
    runs = {name: arm if isinstance(arm, Run) else _open_run(Path(arm)) for name, arm in arms.items()}
    for name in runs:
        if not name.strip() or name.startswith(("frozen:", "untrained:")):
            raise UsageError(f"{name!r} cannot name an arm.", hint="'frozen:' and 'untrained:' name the references.")
    seen = {name: int(run.facts["samples_seen"]) for name, run in runs.items()}
    if len(set(seen.values())) > 1 and not allow_unequal:
        counts = ", ".join(f"{name} {count:,}" for name, count in seen.items())
        raise UsageError(
            f"The runs saw unequal numbers of samples: {counts}.",
            hint="Pretrain them at the same --samples, or compare them all the same with --allow-unequal.",
        )
    return [
        _Arm(name=name, kind="run", encoder=f"run:{run.path}", facts={"samples_seen": seen[name]})
        for name, run in runs.items()
    ]


def _open_run(folder: Path) -> Run:
    if not (folder / "run.json").is_file():
        raise UsageError(
            f"{folder} is not a finished pretraining run: it has no run.json.",
            hint="Give the folder that `curate pretrain --out` wrote.",
        )
    return Run.open(folder)
