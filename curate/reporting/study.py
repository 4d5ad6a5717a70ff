"""What a study says, as a report shows it: its claims by question, its protocol, and which distance predicts accuracy.

A study writes study-results.json (schema ``curate.study/1``) in its folder. With one target the results stand there,
too; with several each has a folder of its own, and a report of its own in it.

    study  {results: the document or None, targets: [{name, page}] if there are several}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curate.reporting.wording import NOTHING, counted, in_points, listed, number, p_value, percent, points, span
from curate.results import read_document

FILE, SCHEMA = "study-results.json", "curate.study/1"
PLAN = "study.json"
OF_TARGET = ("score.json", "evaluate.json")
QUESTIONS = {  # question -> its heading; others are contrasts of that name
    "primary": "The primary contrast",
    "frozen": "Against the frozen public encoder",
    "finetuned": "Against the fine-tuned public encoder",
    "finetuned, both": "Fine-tuned, against the fine-tuned public encoder",
    "supervised": "Against training on the labels alone",
    "secondary": "Between the arms",
    "Q1": "Which arm wins at equal N and C?",
    "Q2": "Does accuracy change with D = N / C?",
}
OF_LEADER = "it is "
COLORS = {"supported": "good", "refuted": "bad", "equivalent": "even", "undecided": "unclear"}
REFERENCES = {
    "frozen": "frozen public encoder",
    "finetuned": "fine-tuned public encoder",
    "supervised": "trained on the labels alone",
    "untrained": "untrained",
}

Claim = Mapping[str, Any]  # a claim as plain JSON
Results = Mapping[str, Any]  # study-results.json


def study_part(root: Path) -> dict[str, Any] | None:
    """What the summary holds of the study in a folder; None where there is none.

    Raises:
        CorruptError: study-results.json does not read back.
    """
    names = [folder.name for folder in target_folders(root)]
    results = read_document(root / FILE, SCHEMA) if (root / FILE).is_file() else None
    if results is None and not names:
        return None
    return {"results": results, "targets": [{"name": name, "page": f"{name}/report.html"} for name in names]}


def target_folders(root: Path) -> list[Path]:
    """Folders of the targets of a study with several, by name; none where the results stand in ``root`` itself."""
    is_study = any((root / name).is_file() for name in (FILE, PLAN))
    if not is_study or _has_results(root):
        return []
    return [path for path in sorted(root.iterdir()) if not path.name.startswith(".") and _has_results(path)]


def by_question(results: Results) -> dict[str, list[Claim]]:
    """Heading -> its claims, the primary contrast first; contrasts of a name before Q1 and Q2."""
    found: dict[str, list[Claim]] = {}
    for claim in results["claims"]:
        found.setdefault(claim["question"], []).append(claim)
    known = list(QUESTIONS)
    own = [question for question in found if question not in QUESTIONS]
    order = [*known[: known.index("Q1")], *own, *known[known.index("Q1") :]]
    return {QUESTIONS.get(q, f"Contrast: {q}"): found[q] for q in order if q in found}


def primary(results: Results) -> Claim | None:
    """The claim of the contrast that was written down before the runs."""
    return next((claim for claim in results["claims"] if claim["question"] == "primary"), None)


def color(claim: Claim) -> str:
    """Style class of a claim's marker."""
    return COLORS.get(claim["status"], "unclear")


def difference(claim: Claim) -> str:
    """First minus second, in points with its interval."""
    effect = claim["effect"]
    return NOTHING if effect is None else _in_points(effect)


def accuracies(claim: Claim) -> str:
    """What both sides read."""
    means = claim["means"]
    return "" if means is None else f"{percent(means[0])} against {percent(means[1])}"


def size(claim: Claim) -> str:
    """Seeds, targets and test units behind a claim."""
    effect = claim["effect"]
    if effect is None:
        return NOTHING
    counts = ((effect["seeds"], "seed"), (effect["conditions"], "target"), (effect["units"], "test unit"))
    return ", ".join(counted(n, noun) for n, noun in counts)


def tested(claim: Claim) -> str:
    """The p value, after Holm's correction where there is a family."""
    effect = claim["effect"]
    if effect is None or effect["p"] is None or effect["reason"]:
        return NOTHING
    corrected = claim["p_adjusted"] if claim["family"] else None
    return f"p {p_value(effect['p'])}" if corrected is None else f"p {p_value(corrected)} after Holm"


def shared_notes(claims: Sequence[Claim]) -> list[str]:
    """Notes that all of several claims carry, but those on what a claim's own leader is told from."""
    if len(claims) < 2:
        return []
    shared = (note for note in claims[0]["notes"] if all(note in claim["notes"] for claim in claims))
    return [note for note in shared if not note.startswith(OF_LEADER)]


def shared_size(claims: Sequence[Claim]) -> str:
    """What all claims rest on, where it is the same."""
    sizes = {size(claim) for claim in claims}
    return sizes.pop() if len(sizes) == 1 and len(claims) > 1 else ""


def power(claim: Claim) -> str:
    """Chance of telling a difference of what matters, and the least difference told with 80% power; or why none."""
    effect = claim["effect"]
    if effect is None or effect["reason"] or effect["power"] is None:
        return "" if effect is None else effect["reason"]
    told = f"power {percent(effect['power'], 0)} for {in_points(effect['matters'])}"
    if effect["detectable"]:
        told += f"; tells {in_points(effect['detectable'])} with 80%"
    more = effect["seeds_needed"]
    needs_more = claim["status"] == "undecided" and more and more > effect["seeds"]
    return told + (f"; {more} seeds would give 80%" if needs_more else "")


def protocol_rows(results: Results) -> list[tuple[str, str]]:
    """What was written down before the first run, as name and words."""
    told = results["protocol"]
    pairs = told["secondary"]
    contrasts = [f"{c['name']}: {_side(c['first'])} against {_side(c['second'])}" for c in told["contrasts"]]
    chosen = [" against ".join(pair) for pair in pairs] if isinstance(pairs, list) else [str(pairs)]
    return [
        ("Primary contrast", " against ".join(told["primary"]) if told["primary"] else "none"),
        (
            "Metric",
            f"{told['metric']}, of {listed(told['labeled']) if told['labeled'] else 'all labeled sets, averaged'}",
        ),
        ("What matters", f"a difference of {in_points(told['matters'])}"),
        ("Level", f"{percent(told['level'], 0)} intervals; tests at {percent(1 - told['level'], 0)}, Holm by family"),
        ("Secondary contrasts", "; ".join(chosen) or "none"),
        *([("Further contrasts", "; ".join(contrasts))] if contrasts else []),
        *([("Only runs with", _side(told["where"]))] if told["where"] else []),
        ("sha256 of protocol.json", results["protocol_sha256"][:12] or "no file: nothing was written down"),
    ]


def predicted(results: Results) -> list[dict[str, str]]:
    """Rows of the table on which distance goes before accuracy, best first."""
    found = results["prediction"]
    rows = []
    for predictor in found.get("predictors", []):
        share, regret = predictor["share"], predictor["regret"]
        rows.append(
            {
                "called": predictor["called"],
                "share": NOTHING if share["value"] is None else percent(share["value"], 0),
                "interval": span(share, 0, scale=100) or share["reason"] or share["method"],
                "pairs": number(share["n"][0]) if share["value"] is not None else "0",
                "goal": _goal(share, found["goal"]),
                "regret": NOTHING if regret["value"] is None else number(100 * regret["value"], 1),
                "lost": span(regret, 1, scale=100) or regret["reason"] or "",
            }
        )
    return rows


def _goal(share: Mapping[str, Any], goal: float) -> str:
    if share["low"] is None or share["high"] is None:
        return ""
    return "reached" if share["low"] >= goal else "missed" if share["high"] < goal else "not settled"


def _has_results(folder: Path) -> bool:
    return any((folder / name).is_file() for name in OF_TARGET)


def _in_points(effect: Mapping[str, Any]) -> str:
    interval = span(dict(effect), 1, scale=100, plus=True)
    return points(effect["value"]) + (f" ({interval})" if interval else "")


def _side(side: Mapping[str, Sequence[Any]]) -> str:
    return ", ".join(f"{name} {' or '.join(map(str, values))}" for name, values in side.items()) or "all runs"
