"""What studies wrote, made with the dataclasses that write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from report_examples import arm_score, eval_report, frozen_scores, pool_score, shift_report

from curate.experiments.analysis import Analysis
from curate.experiments.claims import Claim
from curate.experiments.prediction import Predictor
from curate.experiments.protocol import Contrast, Protocol
from curate.experiments.statistics import Effect
from curate.results import Estimate
from embeddings import files

PROTOCOL = Protocol(
    primary=("near", "random"),
    labeled=("emoji",),
    where={"init": ("public",)},
    secondary=(("near", "own"),),
    contrasts=(Contrast(name="order", first={"arm": ("near",)}, second={"arm": ("own",), "images": (500,)}),),
)


def effect_of(value: float = 0.03, half: float | None = 0.009, **rest: Any) -> Effect:
    ends = {} if half is None else {"low": value - half, "high": value + half}
    told = {"p": 0.004, "power": 0.64, "detectable": 0.012, "seeds": 3, "units": 600, "conditions": 2}
    return Effect(value=value, **{**ends, **told, **rest})


def claim_of(question: str = "primary", status: str = "supported", arm: str = "near", **rest: Any) -> Claim:
    """``near`` against what the question says."""
    facts = {
        "statement": f"{arm} is better by {question}",
        "family": "" if question == "primary" else question,
        "sides": (arm, "other"),
        "means": (0.69, 0.66),
        "effect": effect_of(),
        "p_adjusted": 0.008,
        "notes": ("2 settings are averaged",),
    }
    return Claim(question=question, status=status, **{**facts, **rest})  # type: ignore[arg-type]


def point(arm: str, images: int, value: float | None, **rest: Any) -> dict[str, Any]:
    ends = {"low": None, "high": None} if value is None else {"low": value - 0.02, "high": value + 0.02}
    setting = {"images": images, "samples": 10_000, "method": "simclr", "init": "public", "diversity": images / 10_000}
    return {"arm": arm, **setting, "value": value, **ends, "seeds": 3, "units": 600, **rest}


def figures_of(arms: tuple[str, ...] = ("near", "random"), sizes: tuple[int, ...] = (500, 2_000)) -> dict[str, Any]:
    series = [point(arm, n, 0.7 - 0.03 * i + n / 1e5) for i, arm in enumerate(arms) for n in sizes]
    levels = {"untrained": 0.3, "frozen": 0.6, "finetuned": 0.75, "supervised": 0.5}
    references = [{"kind": kind, "value": value, "low": None, "high": None} for kind, value in levels.items()]
    curves = [{"arm": arm, "samples": 10_000, "points": [p for p in series if p["arm"] == arm]} for arm in arms]
    return {
        "accuracy_by_arm": {"y": "linear", "series": series, "references": references},
        "accuracy_by_diversity": {"x": "D = N / C", "y": "linear", "series": curves},
    }


def prediction_of() -> dict[str, Any]:
    share = Estimate(value=0.9, low=0.82, high=0.97, n=(12, 4), lower_is_closer=False)
    regret = Estimate(value=0.012, low=0.004, high=0.02, n=(4, 4))
    unknown = Estimate(value=None, reason="no two pools are apart", lower_is_closer=False)
    found = [
        Predictor(metric="index", share=share, regret=regret),
        Predictor(metric="mmd", share=Estimate(value=0.5, low=0.3, high=0.7, n=(12, 4)), regret=regret),
        Predictor(metric="sliced_w", share=unknown, regret=Estimate(value=None, reason="not known")),
    ]
    return {"goal": 0.8, "contests": [{}, {}], "predictors": [p.to_json() for p in found], "lines": ["Q3: some"]}


def analysis_of(*claims: Claim, protocol: Protocol = PROTOCOL, **rest: Any) -> Analysis:
    facts = {"figures": figures_of(), "prediction": prediction_of(), "notes": ("far is not evaluated yet.",)}
    return Analysis(protocol=protocol, digest="ab12" * 16, claims=claims or (claim_of(),), **{**facts, **rest})


def study_of(*claims: Claim, targets: tuple[str, ...] = (), **rest: Any) -> dict[str, Any]:
    """The part of a summary."""
    pages = [{"name": name, "page": f"{name}/report.html"} for name in targets]
    return {"results": analysis_of(*claims, **rest).to_json(), "targets": pages}


def write_targets(root: Path, *names: str, analysis: Analysis | None = None) -> Path:
    """The folder of a study with these targets."""
    root.mkdir(parents=True, exist_ok=True)
    files.write_json(root / "study.json", {})
    for name in names:
        shift_report([pool_score(f"pool-of-{name}", 8.0, rank=1)]).save(root / name)
        eval_report([*frozen_scores(), arm_score("near~s0", 0.8, gain=(0.01, 0.05))]).save(root / name)
    if analysis:
        analysis.save(root)
    return root
