"""evaluate(arms, labeled): the frozen public encoder, its untrained twin and every run, on the same labeled images.

Every arm embeds every labeled set once; split, resamples and grids are the same for all. Settings are chosen on
held-out training images; test images are looked at once, for the final figures.

Few labels are cross-fitted (``Settings.folds``): each is then a test label once; see ``_cross_fitting``.

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

from curate.eval_report import PREDICTIONS, ArmScore, EvalReport, Finding, Pair
from curate.evaluation._arm_result import KINDS, RUN, ArmResult, arm_document, set_document
from curate.evaluation._comparison import UNITS, Comparison, Probed
from curate.evaluation._cross_fitting import require_foldable
from curate.evaluation._images import Embedding, Labeled, LabeledImages
from curate.evaluation._kept import Memory, remembered
from curate.evaluation._label_equivalents import label_cost
from curate.evaluation._leaks import check_leaks
from curate.evaluation._pairs import METRIC, Contestant, compare_pairs, left_out
from curate.evaluation._pretrained_on import SEEN, count_pretrained_on, require_mostly_new
from curate.evaluation._split import split_labeled
from curate.evaluation._view import Figure, View
from curate.evaluation.examinations import (
    FINETUNE,
    REFERENCES,
    ROWS,
    as_findings,
    examine,
    find_examinations,
    require_normal,
)
from curate.evaluation.examinations.labels import lists_table
from curate.evaluation.settings import Settings
from curate.results import Estimate, Run
from embeddings.encoders import get_encoder
from embeddings.errors import UsageError
from embeddings.progress import Progress, silent

LABELS = "labels"
COMPARED = ("run", "finetuned")  # kinds of arms that are compared with each other
RESERVED = ("frozen:", "untrained:", "finetuned:", "supervised:")


def evaluate(  # noqa: PLR0913 (the settings all commands share, and six of its own)
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
    kept: Path | str | None = None,
) -> EvalReport:
    """Compares runs with the frozen public encoder by linear and k-NN accuracy.

    Args:
        arms: Name -> run, or its folder.
        labeled: Name -> source with labels (30% of it is held out by group, else by key), ``TRAIN::TEST``, or a pair
            of sources. A store serves too if it knows its images, since every arm embeds those itself.
        encoder: The frozen public encoder.
        also: Further examinations, or all: see ``EXAMINATIONS``; ``references`` and ``finetune`` add arms.
        settings: Knobs of the evaluation (``folds``) and of the examinations.
        split_by: Column whose values (a part, a lot, a camera) are never cut by a split.
        allow_unequal: Compare runs that saw unequal numbers of samples.
        seed: Draws test images and label subsets.
        work: Where embeddings are kept and reused; None keeps them in memory.
        device: Where to embed: auto, cpu, cuda.
        workers: Threads that decode.
        progress: Told how far the work is.
        kept: Folder of what is finished: the same call does the rest, and measures again what has changed. None: all.
            It belongs to one request: what another one kept there is deleted at the end.

    Returns:
        EvalReport: for every labeled set ``frozen:ENCODER``, ``untrained:ENCODER``, then the runs in their order.
        Accuracies lie in 0..1, higher is better; ``n`` is (training labels, test images).

    Raises:
        UsageError: unequal samples seen, not a run, an arm named as the encoder, no labels, one class only,
            vectors without images, near duplicates on both sides of a split that was made here, a run that was
            pretrained on most test images, or folds with a given test part or with arms that are trained on the labels.
        UnknownNameError: an examination that there is not, or a label named as normal that no labeled set has.
        TooFewImagesError: fewer than 10 labeled images in a part, or fewer units than folds.
        ForeignFolderError: another process is at work in the folder ``kept``.
    """
    names, settings = find_examinations(also), settings or Settings()
    require_foldable(settings.folds, labeled, names)
    if {FINETUNE, REFERENCES} & {*names}:
        _require_tunable(encoder, device)
    compared = [*_references(encoder), *_runs(arms, encoder, allow_unequal)]
    if not labeled:
        raise UsageError("No labeled set was given.", hint="Give at least one: NAME=TRAIN[::TEST].")
    folder = None if work is None else Path(work)
    embedding = Embedding(work=folder, device=device, workers=workers, progress=progress)
    benches: list[_Bench] = []
    done = 0
    total = len(labeled) * sum(2 if _is_tuned(arm, names) else 1 for arm in compared)
    with remembered(None if kept is None else Path(kept), KINDS, progress) as memory:
        for name, thing in labeled.items():
            images = LabeledImages.of(name, thing, embedding, encoder, split_by=split_by)
            depends = partial(set_document, images, settings, names, seed=seed, encoder=encoder, embedding=embedding)
            benches.append(_Bench.of(images, embedding, settings, names, seed=seed, memory=memory.on(depends)))
        require_normal(names, settings.normal, {bench.images.name: bench.class_names for bench in benches})
        for bench in benches:
            for arm in [bench.told(arm) for arm in compared]:
                progress("evaluate", done, total, f"{arm.name} on {bench.images.name}")
                done += bench.measure(arm)
        progress("evaluate", done, done)
    return _report(benches, seed)


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
    examined: Comparison  # the same, or one split for the examinations of what is cross-fitted
    embedding: Embedding
    settings: Settings
    names: tuple[str, ...]  # of the examinations
    memory: Memory  # of what was measured on the set
    results: list[ArmResult] = field(default_factory=list)  # of the arms so far
    _frozen: dict[tuple[str, str, str], Figure] | None = None  # the frozen encoder's

    @classmethod
    def of(
        cls,
        images: LabeledImages,
        embedding: Embedding,
        settings: Settings,
        names: tuple[str, ...],
        *,
        seed: int,
        memory: Memory,
    ) -> _Bench:
        """The set, split and searched for test images that are known from training."""
        comparison = _comparison(images, settings.folds, seed, memory)
        is_examined = settings.folds > 1 and bool(names)
        examined = _comparison(images, 1, seed, memory) if is_examined else comparison
        return cls(images, comparison, examined, embedding, settings, names, memory)

    def told(self, arm: _Arm) -> _Arm:
        """The arm with the number of test images that it was pretrained on; refused where it knows most of them."""
        if not arm.encoder.startswith(RUN):
            return arm
        test = self.images.rows.take(pa.array(self.comparison.split.test))
        count = count_pretrained_on(Path(arm.encoder.removeprefix(RUN)), test)
        require_mostly_new(arm.name, self.images.name, count, len(test))
        return replace(arm, facts={**arm.facts, SEEN: count})

    def measure(self, arm: _Arm) -> int:
        """Takes up the arm as it is, and fine-tuned: as it was kept, else measured; says how many results that are."""
        memory = self.memory.on(lambda: arm_document(arm.name, arm.kind, arm.encoder, arm.facts))
        found = memory("arm", lambda: list(self._measured(arm)))
        self.results += found
        if arm.kind == "frozen":
            self._frozen = found[0].figures
        return len(found)

    def pairs(self) -> list[Pair]:
        """Every two runs, compared."""
        return compare_pairs(self.images.name, self._contestants, UNITS[METRIC])

    @property
    def class_names(self) -> list[str]:
        """Labels of the set."""
        names: list[str] = self.comparison.split.facts["class_names"]
        return names

    def facts(self) -> dict[str, Any]:
        """Of the set, of the split that was examined if it is another one, of what was left out, of what was named."""
        examined = {name: self.examined.split.facts[name] for name in ("n_train", "n_test", "how")}
        found = {} if self.examined is self.comparison else {"examined": examined}
        named = {} if self.settings.normal is None else {"normal": self.settings.normal}
        return {**self.comparison.facts(), **found, **left_out(self._contestants), **named}

    @property
    def _contestants(self) -> list[Contestant]:
        return [result.contestant for result in self.results if result.contestant]

    def _measured(self, arm: _Arm) -> Iterator[ArmResult]:
        view, facts = self._seen(arm)
        yield self._result(view, {**facts, **arm.facts})
        if _is_tuned(arm, self.names):
            yield self._tuned(view, arm)

    def _seen(self, arm: _Arm) -> tuple[View, dict[str, Any]]:
        is_frozen = arm.kind == "frozen"
        images, comparison = self.images, self.comparison
        spec, features = images.own_features() if is_frozen else images.features(self.embedding, arm.encoder)
        probed = comparison.frozen if is_frozen else comparison.probe(features)
        eye = partial(get_encoder, arm.encoder, device=self.embedding.device.partition(",")[0])
        view = self._view(arm.name, arm.kind, eye, features, probed)
        return view, {"encoder": spec.name, "fingerprint": spec.fingerprint}

    def _tuned(self, view: View, arm: _Arm) -> ArmResult:
        """The untrained network, trained on the labels alone; others fine-tuned on them."""
        from curate.evaluation.finetuning.finetune import finetune

        is_scratch = arm.kind == "untrained"
        kind = "supervised" if is_scratch else "finetuned"
        tuned = finetune(view, arm.encoder, from_scratch=is_scratch)
        name = f"{kind}:{tuned.network if is_scratch else arm.name.removeprefix('frozen:')}"
        seen = self._view(name, kind, tuned.eye, tuned.features, tuned.probed)
        seen = replace(seen, saw_labels=tuned.saw_labels)
        return self._result(seen, {**tuned.facts, **arm.facts})

    def _view(self, arm: str, kind: str, eye: Callable[[], Any], features: np.ndarray, probed: Probed) -> View:
        shared = {name: getattr(self, name) for name in ("comparison", "images", "embedding", "settings")}
        return View(arm=arm, kind=kind, eye=eye, features=features, probed=probed, **shared)

    def _result(self, view: View, facts: dict[str, Any]) -> ArmResult:
        examined = self._examined(view)
        figures = examine([name for name in self.names if name not in ROWS], examined)
        if is_frozen := view.kind == "frozen":
            self._frozen = figures
        others = None if is_frozen else self._frozen
        findings = as_findings(figures, others, examined.comparison.resamples)
        return ArmResult(
            score=self._score(view, findings, facts),
            predictions=self._predictions(view),
            contestant=self._contestant(view) if view.kind in COMPARED else None,
            figures=figures if is_frozen else None,
            label_lists=lists_table(examined) if is_frozen and LABELS in self.names else None,
        )

    def _score(self, view: View, findings: tuple[Finding, ...], facts: dict[str, Any]) -> ArmScore:
        comparison, probed, is_frozen = view.comparison, view.probed, view.kind == "frozen"
        equivalents = None if is_frozen else comparison.label_equivalents(probed)
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

    def _examined(self, view: View) -> View:
        """The arm on the one split of the further examinations."""
        examined = self.examined
        if examined is view.comparison:
            return view
        probed = examined.frozen if view.kind == "frozen" else examined.probe(view.features)
        return replace(view, comparison=examined, probed=probed)

    def _cost(self, comparison: Comparison, equivalents: Estimate | None) -> Estimate | None:
        price = self.settings.label_price
        return None if equivalents is None or price is None else label_cost(equivalents, comparison.curve, price)

    def _predictions(self, view: View) -> pa.Table:
        """What the arm says of every test image."""
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
        return pa.table(columns, schema=PREDICTIONS).combine_chunks()

    def _contestant(self, view: View) -> Contestant:
        """Its part in the comparison of runs."""
        return Contestant(
            arm=view.arm,
            kind=view.kind,
            linear=view.probed.measured[METRIC],
            correct=view.probed.correct,
            resamples=view.comparison.resamples,
        )


def _report(benches: Sequence[_Bench], seed: int) -> EvalReport:
    """All labeled sets together."""
    results = [result for bench in benches for result in bench.results]
    lists = [result.label_lists for result in results if result.label_lists is not None]
    return EvalReport(
        scores=tuple(result.score for result in results),
        labeled={bench.images.name: bench.facts() for bench in benches},
        pairs=tuple(pair for bench in benches for pair in bench.pairs()),
        predictions=pa.concat_tables([result.predictions for result in results]),
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


def _comparison(images: LabeledImages, folds: int, seed: int, memory: Memory) -> Comparison:
    """The set, split, and searched for test images that are known from training."""
    memory = memory.on(lambda: {"folds": folds})
    split = split_labeled(images.rows, images.n_train, folds=folds, grouped_by=images.grouped_by)
    leaks = memory("leaks", lambda: check_leaks(images, split))
    split = replace(split, facts={**split.facts, **leaks})
    return Comparison(split=split, frozen_features=images.own_features()[1], seed=seed, memory=memory)


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
