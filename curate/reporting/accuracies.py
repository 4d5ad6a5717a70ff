"""Accuracies as tables: which arms stand beside each other, which are references, and how the runs compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from curate.evaluation._pretrained_on import warning
from curate.evaluation._verdict import leaks
from curate.reporting.wording import counted, listed, number, p_value, percent, points, span

TUNED = "finetuned:"
ALPHA = 0.05
COLORS = {"frozen": "ink", "finetuned": "copies", "supervised": "middle", "untrained": "muted"}

Score = Mapping[str, Any]


class Match(NamedTuple):
    """Two runs on one labeled set, the better one first."""

    first: str
    second: str
    difference: str  # in points with its interval
    counts: str
    test: str
    told: str  # whether they are told apart

    @property
    def sentence(self) -> str:
        """All of it in one."""
        says = "is surely better than" if self.told == "yes" else "cannot be told from"
        return f"{self.first} {says} {self.second}: {self.difference} points, {self.test}."


def beside(scores: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The scores with every run that was fine-tuned followed by what it then reads."""
    runs = {score["arm"] for score in scores if score["kind"] == "run"}
    tuned = {run_of(score): score for score in scores if run_of(score) in runs}
    kept = [score for score in scores if run_of(score) not in runs]
    return [found for score in kept for found in (score, tuned.get(score["arm"])) if found is not None]


def run_of(score: Score) -> str:
    """Which arm a fine-tuned one was before; empty for the others."""
    return str(score["arm"]).removeprefix(TUNED) if score["kind"] == "finetuned" else ""


def tuned_public(scores: Sequence[Score]) -> Score | None:
    """The public encoder, fine-tuned; None where that was not done."""
    public = {score["arm"].removeprefix("frozen:") for score in scores if score["kind"] == "frozen"}
    return next((score for score in scores if run_of(score) in public), None)


def color(score: Score, scores: Sequence[Score]) -> str:
    """Style class of an arm: references have one each, runs share one, fine-tuned or not."""
    runs = {other["arm"] for other in scores if other["kind"] == "run"}
    return "run" if run_of(score) in runs else COLORS.get(score["kind"], "run")


def to_beat(evaluation: Mapping[str, Any]) -> str:
    """What the frozen public encoder reads on every labeled set; empty where it reads nothing."""
    found = []
    for labeled in evaluation["labeled"]:
        frozen = next((score for score in labeled["scores"] if score["kind"] == "frozen"), None)
        figure = (frozen or {"metrics": {}})["metrics"].get("linear")
        if figure is not None and figure["value"] is not None:
            interval = span(figure, 1, scale=100)
            found.append(f"{percent(figure['value'])}{f' ({interval})' if interval else ''} on {labeled['name']}")
    told = "The frozen public encoder, which costs nothing, reads"
    return f"{told} {listed(found)} by a linear head: that is what there is to beat." if found else ""


def intervals_over(study: Mapping[str, Any] | None) -> str:
    """What the intervals of accuracies cover, and what those of a study on the same page cover besides."""
    besides = " The study's own, above, are over its seeds as well." if study and study["results"] else ""
    return f"Intervals are 95%, over the test images of each run.{besides}"


def tested_on(evaluation: Mapping[str, Any]) -> list[str]:
    """How many test images the intervals rest on."""
    known = [(labeled["name"], labeled["facts"].get("n_test")) for labeled in evaluation["labeled"]]
    sizes = [f"{counted(n, 'test image')} of {name}" for name, n in known if n]
    return [f"intervals are 95% and rest on {listed(sizes)}"] if sizes else []


def seen_before(labeled: Mapping[str, Any]) -> list[str]:
    """A warning where test images are known from training, and for every arm pretrained on some, in clauses."""
    facts = labeled["facts"]
    arms = [(s["arm"], s["kind"], s.get("facts", {}), facts.get("n_test", 0)) for s in labeled["scores"]]
    return [*leaks(facts), *(told for arm in arms for told in warning(*arm))]


def lacks_tuned(scores: Sequence[Score]) -> bool:
    """Whether runs were compared without fine-tuning the public encoder."""
    return any(score["kind"] == "run" for score in scores) and tuned_public(scores) is None


def matches(labeled: Mapping[str, Any]) -> list[Match]:
    """Pairs of runs, those of the most accurate run first; in each pair the more accurate one first."""
    value = {s["arm"]: figure["value"] for s in labeled["scores"] if (figure := s["metrics"].get("linear"))}
    found = [_match(pair) for pair in labeled["pairs"] if pair["difference"]["value"] is not None]
    rank = {arm: i for i, arm in enumerate(sorted(value, key=lambda arm: -(value[arm] or 0.0)))}
    last = len(rank)
    return sorted(found, key=lambda match: (rank.get(match.first, last), rank.get(match.second, last)))


def _match(pair: Mapping[str, Any]) -> Match:
    gap, turned = pair["difference"], pair["difference"]["value"] < 0
    first, second = (pair["second"], pair["first"]) if turned else (pair["first"], pair["second"])
    only = [pair["first_only"], pair["second_only"]]
    figure = {key: _minus(gap[key]) if turned else gap[key] for key in ("value", "low", "high")}
    if turned:
        figure["low"], figure["high"] = figure["high"], figure["low"]
    interval = span(figure, 1, scale=100, plus=True)
    is_sure = figure["low"] is not None and figure["low"] > 0 and pair["p_holm"] < ALPHA
    return Match(
        first=first,
        second=second,
        difference=points(figure["value"]) + (f" ({interval})" if interval else ""),
        counts=" against ".join(number(n) for n in (reversed(only) if turned else only)),
        test=f"corrected McNemar p {p_value(pair['p_holm'])}",
        told="yes" if is_sure else "no",
    )


def _minus(value: float | None) -> float | None:
    return None if value is None else -value
