"""What an evaluation found: every arm on every labeled set, the frozen public encoder first.

EvalReport.scores     one ArmScore per arm and labeled set
ArmScore.metrics      its figures on the test images;  .against_frozen  what it gains, paired, image by image
ArmScore.findings     the figures of further examinations (``--also``), one Finding each
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.results import Estimate, read_document
from embeddings import files


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One figure of a further examination: of what, under which condition, and what came out."""

    about: str  # the examination: labels, robustness, rare, anomaly, groups, ...
    condition: str  # "5%", "gaussian-noise 3", "scratch"
    metric: str  # linear, auroc, gap, ...
    estimate: Estimate
    against_frozen: Estimate | None = None  # paired difference; None for the frozen encoder and where there is none

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
    findings: tuple[Finding, ...] = ()  # of further examinations, in their order
    facts: dict[str, Any] = field(default_factory=dict)  # chosen settings, encoder fingerprint, samples_seen

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        estimates = {
            "metrics": {k: v.to_json() for k, v in self.metrics.items()},
            "against_frozen": {k: v.to_json() for k, v in self.against_frozen.items()},
            "label_equivalents": self.label_equivalents.to_json() if self.label_equivalents else None,
            "findings": [finding.to_json() for finding in self.findings],
        }
        return {"arm": self.arm, "labeled": self.labeled, "kind": self.kind, "facts": self.facts, **estimates}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ArmScore:
        """Reads what ``to_json`` wrote."""
        equivalents = document["label_equivalents"]
        estimates = {
            k: {name: Estimate.from_json(e) for name, e in document[k].items()} for k in ("metrics", "against_frozen")
        }
        nested = {
            **estimates,
            "label_equivalents": Estimate.from_json(equivalents) if equivalents else None,
            "findings": tuple(Finding.from_json(finding) for finding in document.get("findings", ())),
        }
        return cls(**{**document, **nested})


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """Accuracies with intervals: the frozen public encoder first, its untrained twin second, then the runs."""

    scores: tuple[ArmScore, ...]
    labeled: dict[str, dict[str, Any]]  # per labeled set: n train, n test, classes, how it was split
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object, schema curate.evaluate/1."""
        scores = [s.to_json() for s in self.scores]
        return {"schema": "curate.evaluate/1", "scores": scores, "labeled": self.labeled, "seed": self.seed}

    def save(self, folder: Path) -> None:
        """Writes evaluate.json."""
        files.write_json(folder / "evaluate.json", self.to_json())

    @classmethod
    def open(cls, folder: Path | str) -> EvalReport:
        """Reads what ``save`` wrote.

        Raises:
            CorruptError: missing, or of an unknown schema.
        """
        return cls.from_json(read_document(Path(folder) / "evaluate.json", "curate.evaluate/1"))

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> EvalReport:
        """Reads what ``to_json`` wrote."""
        scores = tuple(ArmScore.from_json(s) for s in document["scores"])
        return cls(scores=scores, labeled=document["labeled"], seed=document["seed"])

    def __repr__(self) -> str:
        lines = [f"{s.labeled} {s.arm}: " + ", ".join(f"{k} {v}" for k, v in s.metrics.items()) for s in self.scores]
        return "\n".join([f"EvalReport({len(self.scores)} scores)", *lines[:6]])
