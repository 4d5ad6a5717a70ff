"""What an evaluation found: every arm on every labeled set, the frozen public encoder first.

EvalReport.scores     one ArmScore per arm and labeled set
ArmScore.metrics      its figures on the test images;  .against_frozen  what it gains, paired, image by image
ArmScore.findings     the figures of further examinations (``--also``), one Finding each
EvalReport.pairs      every two runs compared with each other, up to a dozen runs
EvalReport.predictions, .label_lists   tables: what every arm says of every test image; which labels were few

On disk: evaluate.json, predictions.parquet and, where label fractions were examined, labels.parquet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.result_cards import estimate_words
from curate.results import Estimate, read_document
from embeddings import files
from embeddings.cards import Card

PREDICTIONS = pa.schema(
    [
        ("labeled", pa.string()),
        ("arm", pa.string()),
        ("key", pa.string()),
        ("unit", pa.int64()),  # images of one unit (a group, copies) are drawn together
        ("truth", pa.string()),
        ("predicted", pa.string()),  # by the linear head
        ("confidence", pa.float64()),  # its probability
    ]
)
LABEL_LISTS = pa.schema(
    [("labeled", pa.string()), ("seed", pa.int64()), ("rank", pa.int64()), ("key", pa.string())]
)  # the first k ranks of a seed are its list of k labels
TABLES = {"predictions": "predictions.parquet", "label_lists": "labels.parquet"}
SHOWN = ("linear", "knn")  # metrics, where a report shows itself in small


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One figure of a further examination: of what, under which condition, and what came out."""

    about: str  # the examination: labels, robustness, rare, anomaly, groups, ...
    condition: str  # "5%", "gaussian-noise 3", "scratch"
    metric: str  # linear, auroc, gap, ...
    estimate: Estimate
    against_frozen: Estimate | None = None  # paired difference; None for the frozen encoder and where there is none
    detail: bool = False  # one of many that another finding sums up

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        paired = self.against_frozen.to_json() if self.against_frozen else None
        return {**vars(self), "estimate": self.estimate.to_json(), "against_frozen": paired}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Finding:
        """Reads what ``to_json`` wrote."""
        paired = document["against_frozen"]
        estimates = {
            "estimate": Estimate.from_json(document["estimate"]),
            "against_frozen": Estimate.from_json(paired) if paired else None,
        }
        return cls(**{**document, **estimates})


@dataclass(frozen=True, kw_only=True)
class ArmScore:
    """One arm on one labeled set."""

    arm: str
    labeled: str
    kind: str  # frozen, finetuned, supervised, untrained or run
    metrics: dict[str, Estimate]  # linear (of a fine-tuned network: its own head), knn, ...
    against_frozen: dict[str, Estimate] = field(default_factory=dict)  # paired differences, same keys
    label_equivalents: Estimate | None = None  # labels the frozen encoder needs for this linear accuracy
    label_cost: Estimate | None = None  # what they cost, where a label has a price
    findings: tuple[Finding, ...] = ()  # of further examinations, in their order
    facts: dict[str, Any] = field(default_factory=dict)  # chosen settings, encoder fingerprint, samples_seen

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        estimates = {
            "metrics": {k: v.to_json() for k, v in self.metrics.items()},
            "against_frozen": {k: v.to_json() for k, v in self.against_frozen.items()},
            **{name: _optional(getattr(self, name)) for name in ("label_equivalents", "label_cost")},
            "findings": [finding.to_json() for finding in self.findings],
        }
        return {"arm": self.arm, "labeled": self.labeled, "kind": self.kind, "facts": self.facts, **estimates}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ArmScore:
        """Reads what ``to_json`` wrote."""
        labels = {name: document.get(name) for name in ("label_equivalents", "label_cost")}
        estimates = {
            k: {name: Estimate.from_json(e) for name, e in document[k].items()} for k in ("metrics", "against_frozen")
        }
        nested = {
            **estimates,
            **{name: Estimate.from_json(found) if found else None for name, found in labels.items()},
            "findings": tuple(Finding.from_json(finding) for finding in document.get("findings", ())),
        }
        return cls(**{**document, **nested})


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two runs on one labeled set, test image by test image."""

    labeled: str
    first: str
    second: str
    metric: str
    difference: Estimate  # first minus second, paired
    first_only: int  # test units on which the first is more often right
    second_only: int
    p: float  # exact McNemar test: the binomial one on these units, two-sided
    p_holm: float  # corrected for all pairs of the set

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return {**vars(self), "difference": self.difference.to_json()}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Pair:
        """Reads what ``to_json`` wrote."""
        return cls(**{**document, "difference": Estimate.from_json(document["difference"])})


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """Accuracies with intervals: the frozen public encoder first, its untrained twin second, then the runs."""

    scores: tuple[ArmScore, ...]
    labeled: dict[str, dict[str, Any]]  # per labeled set: n train, n test, classes, how it was split
    pairs: tuple[Pair, ...] = ()  # of runs, and of fine-tuned networks
    predictions: pa.Table | None = None  # schema PREDICTIONS; None in folders of earlier versions
    label_lists: pa.Table | None = None  # schema LABEL_LISTS; None where label fractions were not examined
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object, schema curate.evaluate/1; tables stay outside."""
        nested = {name: [part.to_json() for part in getattr(self, name)] for name in ("scores", "pairs")}
        return {"schema": "curate.evaluate/1", **nested, "labeled": self.labeled, "seed": self.seed}

    def save(self, folder: Path) -> None:
        """Writes the tables there are, and evaluate.json last."""
        for name, file in TABLES.items():
            if getattr(self, name) is None:
                (folder / file).unlink(missing_ok=True)
            else:
                files.write_table(folder / file, getattr(self, name))
        files.write_json(folder / "evaluate.json", self.to_json())

    @classmethod
    def open(cls, folder: Path | str) -> EvalReport:
        """Reads what ``save`` wrote.

        Raises:
            CorruptError: missing, or of an unknown schema.
        """
        report = cls.from_json(read_document(Path(folder) / "evaluate.json", "curate.evaluate/1"))
        tables = {name: Path(folder) / file for name, file in TABLES.items()}
        return replace(report, **{name: files.read_table(path) for name, path in tables.items() if path.is_file()})

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> EvalReport:
        """Reads what ``to_json`` wrote."""
        scores = tuple(ArmScore.from_json(s) for s in document["scores"])
        pairs = tuple(Pair.from_json(pair) for pair in document.get("pairs", ()))
        return cls(scores=scores, pairs=pairs, labeled=document["labeled"], seed=document["seed"])

    def __repr__(self) -> str:
        return self._card().text()

    def _repr_html_(self) -> str:
        return self._card().html()

    def _card(self) -> Card:
        metrics = [name for name in SHOWN if any(name in score.metrics for score in self.scores)]
        sizes = [f"{name}, {facts.get('n_test', 0):,} test images" for name, facts in self.labeled.items()]
        return Card(
            title=f"EvalReport({'; '.join(sizes) or 'nothing labeled'})",
            columns=("arm", *metrics, "against frozen", "worth labels"),
            rows=[self._row(score, metrics) for score in self.scores],
            then="curate.evaluation.verdicts(report); .scores .pairs .predictions",
        )

    def _row(self, score: ArmScore, metrics: Sequence[str]) -> list[str]:
        """What is shown of an arm: accuracies, the paired difference, what it is worth in labels."""
        name = f"{score.labeled} / {score.arm}" if len(self.labeled) > 1 else score.arm
        read = [score.metrics.get(metric) for metric in metrics]
        gain = next((score.against_frozen[m] for m in metrics if m in score.against_frozen), None)
        labels = score.label_equivalents
        return [
            name,
            *("" if figure is None else estimate_words(figure, decimals=3) for figure in read),
            "" if gain is None else estimate_words(gain, decimals=3, plus=True),
            "" if labels is None else estimate_words(labels, decimals=0),
        ]


def _optional(estimate: Estimate | None) -> dict[str, Any] | None:
    return estimate.to_json() if estimate else None
