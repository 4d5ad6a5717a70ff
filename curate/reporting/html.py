"""A summary as one self-contained HTML page: no script, no network, styles and pictures inside."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from curate.reporting import (
    accuracies,
    closing,
    examined,
    figures,
    findings,
    measures,
    selections,
    study,
    study_figures,
    study_words,
    wording,
)
from curate.reporting.sentences import judge_sentence
from curate.scoring.repairs import repair_words

VERDICT = ("What the data are worth", "What to do", "How sure")
VERDICT_OF_EVALUATION = ("What there is to beat", "What to do", "How sure")  # without pools
VERDICT_OF_STUDY = ("What the study says", "What to do", "How sure")
ROWS = 40  # of runs and selections; the rest can be opened
PAIRS = 8  # of runs


def render_html(summary: dict[str, Any]) -> str:
    """The report as an HTML document. Every text in it is escaped; the same summary gives the same bytes."""
    colors = figures.source_colors(summary)
    shift, results = summary["shift"], (summary["study"] or {}).get("results")
    drawn = {
        "pools": figures.pool_chart(shift, summary["limits"]) if shift and shift["pools"] else None,
        "loss": figures.loss_chart(summary["runs"]),
        "probe": figures.probe_chart(summary["runs"]),
        "sources": {name for s in summary["selections"] for name in s["counts"]},
        "accuracy": [
            figures.accuracy_chart(labeled) for labeled in (summary["evaluation"] or {"labeled": []})["labeled"]
        ],
        "selections_lead": selections.selections_lead(summary),
        "supply": [figures.supply_chart(s["supply"]) for s in summary["selections"]],
        "compared": [figures.comparison_chart(c) for c in summary["comparisons"]],
        "parts": findings.parts(shift),
        "pictured": selections.pictured([s["name"] for s in summary["selections"]]),
        "verdict": _verdict(summary),
        "arms": study_figures.arm_chart(results) if results else None,
        "diversity": study_figures.diversity_chart(results) if results else None,
        "composition": [figures.composition(s["counts"], colors) for s in summary["selections"]],
    }
    return _environment().get_template("report.html.jinja").render(r=summary, figures=drawn, colors=colors)


def _verdict(summary: dict[str, Any]) -> tuple[str, str, str]:
    """What the three sentences of the headline are about."""
    if summary["study"]:
        return VERDICT_OF_STUDY
    return VERDICT_OF_EVALUATION if summary["evaluation"] and not summary["shift"] else VERDICT


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("curate.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("number", "amount", "signed", "percent", "points", "span", "with_error", "listed", "counted", "likely")
    environment.filters |= {name: getattr(wording, name) for name in names}
    environment.globals |= {
        "decimals_for": wording.decimals_for,
        "below": closing.below,
        "examined": examined,
        "explained": findings,
        "judge_sentence": judge_sentence,
        "measured": measures.measured,
        "repair_words": repair_words,
        "selected": selections,
        "studied": study,
        "how_telling": study_words.how_telling,
        "accuracies": accuracies,
        "ROWS": ROWS,
        "PAIRS": PAIRS,
        "step_chart": figures.step_chart,
    }
    return environment
