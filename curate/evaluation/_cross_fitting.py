"""Cross-fitting where labels are few: every labeled image is tested once, by probes of the other folds (``folds=5``).

The headline is cross-fitted: linear and k-NN accuracy, gains, label-equivalents, runs against each other, predictions.
What costs a training or an embedding for every fold is not. Further examinations keep one split, on which every arm is
examined; their figures say its numbers of images. Networks that are trained on the labels (``references``,
``finetune``) are refused: they would stand in one table with figures of other test images.

Every labeled image is then a test image, and none may be pretrained on. A run's folder tells its images; where it does
not, being of an earlier version, the report reminds of it. A study keeps them out of every selection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from curate.eval_report import EvalReport
from curate.evaluation._pretrained_on import SEEN
from curate.evaluation._split import with_test_part
from curate.evaluation.examinations import ROWS
from embeddings.errors import UsageError

FEW = 100  # test images, below which folds are worth a hint
FOLDS = 5  # that the hint names
TRAINED = ("finetuned", "supervised")  # kinds of arms that are refused with folds


def require_foldable(folds: int, labeled: Mapping[str, object], names: Sequence[str]) -> None:
    """Refuses what folds cannot be combined with, before anything is embedded.

    Args:
        folds: 1 allows everything.
        labeled: Name -> what an evaluation takes as a labeled set.
        names: Of the further examinations.

    Raises:
        UsageError: a labeled set with a test part of its own, or arms that are trained on the labels.
    """
    if folds == 1:
        return
    for name, thing in labeled.items():
        if isinstance(thing, tuple) or (isinstance(thing, str) and "::" in thing):
            raise with_test_part(folds, name)
    trained = [name for name in ROWS if name in names]
    if trained:
        raise UsageError(
            f"folds={folds} and {' and '.join(trained)} do not go together: networks are trained on the labels of one "
            "split, and would stand beside figures of other test images.",
            hint=f"Leave out folds or {' and '.join(trained)}; or evaluate twice, into two folders.",
        )


def sizes_in_words(facts: Mapping[str, Any]) -> str:
    """How many images of a labeled set train and test, from its facts, and how many have no label."""
    unlabeled = facts.get("unlabeled_left_out") or 0
    classes = f"{facts['classes']:,} classes" + (f", {unlabeled:,} left out without a label" if unlabeled else "")
    if facts.get("folds", 1) > 1:
        return f"{facts['n_test']:,} images, each tested by probes of about {facts['n_train']:,} others, {classes}"
    return f"{facts['n_train']:,} training and {facts['n_test']:,} test images, {classes}"


def remarks_on_folds(report: EvalReport) -> list[str]:
    """A hint where test images are few, and where all are tested what to mind."""
    made = {name: facts for name, facts in report.labeled.items() if facts.get("folds")}  # not given, not of old
    few = {n: f["n_test"] for n, f in made.items() if f["folds"] == 1 and f["n_test"] < FEW}
    examined = {n: f["examined"]["n_test"] for n, f in made.items() if "examined" in f}
    kinds = {score.kind for score in report.scores}
    lines = []
    if few and not kinds & {*TRAINED}:
        lines.append(f"Test images are few ({_listed(few)}); --set folds={FOLDS} tests every labeled image, once.")
    if examined:
        lines.append(f"Further examinations have one split: their test images are fewer ({_listed(examined)}).")
    unknown = {score.labeled for score in report.scores if score.kind == "run" and score.facts.get(SEEN) is None}
    if any(made[name]["folds"] > 1 for name in unknown & made.keys()):
        lines.append("Every labeled image was tested: figures hold for runs that were pretrained on none of them.")
    return lines


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
