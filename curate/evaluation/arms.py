"""evaluate(arms, labeled): the frozen public encoder, its untrained twin and every run, on the same labeled images.

Every arm embeds every labeled set once; split, resamples and grids are the same for all. Settings are chosen on
held-out training images; test images are looked at once, for the final figures.

Further examinations are asked for by name: ``also=("labels", "robustness")``. Two add arms instead: ``references`` the
frozen encoder fine-tuned and a network trained on the labels alone, ``finetune`` also every run fine-tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.eval_report import PREDICTIONS, ArmScore, EvalReport, Pair
from curate.evaluation._comparison import UNITS, Comparison, Probed
from curate.evaluation._images import Embedding, Labeled, LabeledImages
from curate.evaluation._label_equivalents import label_cost
from curate.evaluation._leaks import check_leaks
from curate.evaluation._pairs import METRIC, Contestant, compare_pairs, left_out
from curate.evaluation._split import split_labeled
from curate.evaluation._view import View
from curate.evaluation.examinations import FINETUNE, REFERENCES, ROWS, as_findings, examine, find_examinations
from curate.evaluation.examinations.labels import lists_table
from curate.evaluation.settings import Settings
from curate.results import Estimate, Run
from embeddings.encoders import get_encoder
from embeddings.errors import UsageError
from embeddings.progress import Progress, silent

LABELS = "labels"
COMPARED = ("run", "finetuned")  # kinds of arms that are compared with each other
RESERVED = ("frozen:", "untrained:", "finetuned:", "supervised:")


def evaluate(  # noqa: PLR0913 (the settings all commands share, and five of its own)
    arms: Mapping[str, Run | str | Path],
    labeled: Mapping[str, Labeled],
    *,
    encoder: str = "lite0",
    also: Sequence[str] = (),
    settings: Settings | None = None,
    split_by: str | None = None,
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
        also: Further examinations, or all: see ``EXAMINATIONS``; ``references`` and ``finetune`` add arms.
        settings: Knobs of the examinations.
        split_by: Column whose values (a part, a lot, a camera) are never cut by a split.
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
        UsageError: unequal samples seen, not a run, an arm named as the encoder, no labels, one class only,
            vectors without images, or near duplicates on both sides of a split that was made here.
        TooFewImagesError: fewer than 10 labeled images in a part.
    """
    names = find_examinations(also)
    if {FINETUNE, REFERENCES} & {*names}:
        _require_tunable(encoder, device)
    compared = [*_references(encoder), *_runs(arms, encoder, allow_unequal)]
    if not labeled:
        raise UsageError("No labeled set was given.", hint="Give at least one: NAME=TRAIN[::TEST].")
    folder = None if work is None else Path(work)
    embedding = Embedding(work=folder, device=device, workers=workers, progress=progress)
    benches: list[_Bench] = []
    scores: list[ArmScore] = []
    total = len(labeled) * sum(2 if _is_tuned(arm, names) else 1 for arm in compared)
    for name, thing in labeled.items():
        images = LabeledImages.of(name, thing, embedding, encoder, split_by=split_by)
        bench = _Bench(images, _comparison(images, seed), embedding, settings or Settings(), names)
        for arm in compared:
            progress("evaluate", len(scores), total, f"{arm.name} on {name}")
            scores += bench.scores(arm)
        benches.append(bench)
    progress("evaluate", len(scores), len(scores))
    return _report(scores, benches, seed)


@dataclass(frozen=True, kw_only=True)
class _Arm:
    name: str
    kind: str  # frozen, untrained or run
    encoder: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Bench:
    """One labeled set, on which arm after arm is measured, the frozen encoder first."""

    images: LabeledImages
    comparison: Comparison
    embedding: Embedding
    settings: Settings
    names: tuple[str, ...]  # of the examinations
    predictions: list[pa.Table] = field(default_factory=list)  # of the arms so far
    label_lists: pa.Table | None = None
    _contestants: list[Contestant] = field(default_factory=list)
    _frozen: dict[tuple[str, str, str], Any] | None = None  # its figures

    def scores(self, arm: _Arm) -> Iterator[ArmScore]:
        """The arm as it is, and fine-tuned."""
        view, facts = self._seen(arm)
        yield self._score(view, {**facts, **arm.facts})
        if _is_tuned(arm, self.names):
            yield from self._tuned(view, arm)

    def pairs(self) -> list[Pair]:
        """Every two runs, compared."""
        return compare_pairs(self.images.name, self._contestants, UNITS[METRIC])

    def facts(self) -> dict[str, Any]:
        """Of the set, and of what was left out."""
        return {**self.comparison.facts(), **left_out(self._contestants)}

    def _seen(self, arm: _Arm) -> tuple[View, dict[str, Any]]:
        is_frozen = arm.kind == "frozen"
        images, comparison = self.images, self.comparison
        spec, features = images.own_features() if is_frozen else images.features(self.embedding, arm.encoder)
        probed = comparison.frozen if is_frozen else comparison.probe(features)
        eye = partial(get_encoder, arm.encoder, device=self.embedding.device.partition(",")[0])
        view = self._view(arm.name, arm.kind, eye, features, probed)
        return view, {"encoder": spec.name, "fingerprint": spec.fingerprint}

    def _tuned(self, view: View, arm: _Arm) -> Iterator[ArmScore]:
        """The untrained network, trained on the labels alone; others fine-tuned on them."""
        from curate.evaluation.finetuning.finetune import finetune

        is_scratch = arm.kind == "untrained"
        kind = "supervised" if is_scratch else "finetuned"
        tuned = finetune(view, arm.encoder, from_scratch=is_scratch)
        name = f"{kind}:{tuned.network if is_scratch else arm.name.removeprefix('frozen:')}"
        seen = self._view(name, kind, tuned.eye, tuned.features, tuned.probed)
        seen = replace(seen, saw_labels=tuned.saw_labels)
        yield self._score(seen, {**tuned.facts, **arm.facts})

    def _view(self, arm: str, kind: str, eye: Callable[[], Any], features: np.ndarray, probed: Probed) -> View:
        shared = {name: getattr(self, name) for name in ("comparison", "images", "embedding", "settings")}
        return View(arm=arm, kind=kind, eye=eye, features=features, probed=probed, **shared)

    def _score(self, view: View, facts: dict[str, Any]) -> ArmScore:
        comparison, probed, is_frozen = view.comparison, view.probed, view.kind == "frozen"
        equivalents = None if is_frozen else comparison.label_equivalents(probed)
        self._keep(view)
        figures = examine([name for name in self.names if name not in ROWS], view)
        findings = as_findings(figures, self._frozen, comparison.resamples)
        if is_frozen:
            self._frozen = figures
            self.label_lists = lists_table(view) if LABELS in self.names else None
        return ArmScore(
            arm=view.arm,
            labeled=self.images.name,
            kind=view.kind,
            metrics=comparison.metrics(probed),
            against_frozen={} if is_frozen else comparison.gains(probed),
            label_equivalents=equivalents,
            label_cost=self._cost(comparison, equivalents),
            findings=findings,
            facts={**facts, "chosen": probed.chosen},
        )

    def _cost(self, comparison: Comparison, equivalents: Estimate | None) -> Estimate | None:
        price = self.settings.label_price
        return None if equivalents is None or price is None else label_cost(equivalents, comparison.curve, price)

    def _keep(self, view: View) -> None:
        """What the arm says of every test image, and its part in the comparison of runs."""
        split, said = view.comparison.split, view.probed.probabilities
        names = np.array(split.facts["class_names"], dtype=object)
        predicted, truth = said.argmax(axis=1), split.labels[split.test]
        columns = {
            "labeled": [self.images.name] * len(said),
            "arm": [view.arm] * len(said),
            "key": self.images.rows["key"].take(pa.array(split.test)),
            "unit": split.units[split.test],
            "truth": names[truth],
            "predicted": names[predicted],
            "confidence": said.max(axis=1).astype(np.float64),
        }
        self.predictions.append(pa.table(columns, schema=PREDICTIONS))
        if view.kind in COMPARED:
            self._contestants.append(
                Contestant(
                    arm=view.arm,
                    kind=view.kind,
                    linear=view.probed.measured[METRIC],
                    correct=view.probed.correct,
                    resamples=view.comparison.resamples,
                )
            )


def _report(scores: Sequence[ArmScore], benches: Sequence[_Bench], seed: int) -> EvalReport:
    """All labeled sets together."""
    lists = [bench.label_lists for bench in benches if bench.label_lists is not None]
    return EvalReport(
        scores=tuple(scores),
        labeled={bench.images.name: bench.facts() for bench in benches},
        pairs=tuple(pair for bench in benches for pair in bench.pairs()),
        predictions=pa.concat_tables([table for bench in benches for table in bench.predictions]),
        label_lists=pa.concat_tables(lists) if lists else None,
        seed=seed,
    )


def _is_tuned(arm: _Arm, names: Sequence[str]) -> bool:
    """Whether the arm is also trained on the labels."""
    return FINETUNE in names or (REFERENCES in names and arm.kind != "run")


def _require_tunable(encoder: str, device: str) -> None:
    """Refuses the frozen encoder, before anything is embedded, if it cannot be fine-tuned."""
    from curate.evaluation.finetuning.starts import require_tunable

    require_tunable(encoder, get_encoder(encoder, device=device.partition(",")[0]))


def _comparison(images: LabeledImages, seed: int) -> Comparison:
    """The set, split, and searched for test images that are known from training."""
    split = split_labeled(images.rows, images.n_train)
    split = replace(split, facts={**split.facts, **check_leaks(images, split)})
    return Comparison(split=split, frozen_features=images.own_features()[1], seed=seed)


def _references(encoder: str) -> list[_Arm]:
    """The frozen encoder and its untrained twin; an untrained ResNet-18 stands in where there is no twin."""
    family, _, size = encoder.partition("@")
    has_twin = family == "lite0"
    twin = f"lite0:untrained{'@' * bool(size)}{size}" if has_twin else "random"
    return [
        _Arm(name=f"frozen:{encoder}", kind="frozen", encoder=encoder),
        _Arm(name=f"untrained:{encoder if has_twin else twin}", kind="untrained", encoder=twin),
    ]


def _runs(arms: Mapping[str, Run | str | Path], encoder: str, allow_unequal: bool) -> list[_Arm]:
    runs = {name: arm if isinstance(arm, Run) else _open_run(Path(arm)) for name, arm in arms.items()}
    for name in runs:
        if not name.strip() or name.startswith(RESERVED):
            raise UsageError(f"{name!r} cannot name an arm.", hint=f"{', '.join(RESERVED)} name the references.")
        if name == encoder:
            raise UsageError(
                f"{name!r} cannot name an arm: 'finetuned:{name}' is the encoder, fine-tuned.",
                hint="Name the run otherwise: NAME=FOLDER.",
            )
    seen = {name: int(run.facts["samples_seen"]) for name, run in runs.items()}
    if len(set(seen.values())) > 1 and not allow_unequal:
        counts = ", ".join(f"{name} {count:,}" for name, count in seen.items())
        raise UsageError(
            f"The runs saw unequal numbers of samples: {counts}.",
            hint="Pretrain them at the same --samples, or compare them all the same with --allow-unequal.",
        )
    return [
        _Arm(
            name=name,
            kind="run",
            encoder=f"run:{run.path}",
            facts={"samples_seen": seen[name], "seconds": run.facts.get("seconds")},
        )
        for name, run in runs.items()
    ]


def _open_run(folder: Path) -> Run:
    if not (folder / "run.json").is_file():
        raise UsageError(
            f"{folder} is not a finished pretraining run: it has no run.json.",
            hint="Give the folder that `curate pretrain --out` wrote.",
        )
    return Run.open(folder)
