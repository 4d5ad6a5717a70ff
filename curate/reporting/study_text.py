"""What a study says on a terminal: what there is to beat, the primary contrast, what would settle it; small tables."""

from __future__ import annotations

from collections.abc import Sequence

from curate.reporting.study import REFERENCES, Claim, Results, by_question, difference, primary
from curate.reporting.study_words import FROZEN, TUNED, how_telling, points_of
from curate.reporting.text import TextTable
from curate.reporting.wording import counted, listed, percent, span

MOST = 12  # claims on a terminal, beside those of the first table; the rest is on the page
OVER = "Intervals are over seeds and test units together."
LAST = (TUNED, "finetuned, both", "supervised")  # questions whose claims are told after the others
OTHERS = {"finetuned": "fine-tuned it reads", "supervised": "a network trained on the labels alone"}
COUNTS = {"seeds": "seed", "conditions": "target", "units": "test unit"}
PLAIN = {
    "supported": "yes, and settled",
    "refuted": "no, the other way round, and settled",
    "equivalent": "no, they surely differ by less than what matters",
    "undecided": "undecided",
}


def study_screen(results: Results) -> list[str | TextTable]:
    """Sentences, then tables."""
    return [_to_beat(results), *primary_lines(results), "", _arms(results), *_contrasts(results)]


def primary_lines(results: Results) -> list[str]:
    """The contrast that was written down: what became of it, how often such a study sees it, what it would take."""
    claim = primary(results)
    if claim is None:
        return ["No primary contrast was written down before the runs: every claim is one to be tested anew."]
    effect = claim["effect"]
    if effect is None:
        return [f"Primary contrast, {claim['statement']}: {'; '.join(claim['notes']) or 'no runs to compare'}."]
    size = [counted(effect[key], noun) for key, noun in COUNTS.items()]
    told = f"Primary contrast, {claim['statement']}: {PLAIN[claim['status']]}. {points_of(claim)} over {listed(size)}."
    return [told, *how_telling(claim)]


def _to_beat(results: Results) -> str:
    """The frozen public encoder, and what else there is to beat."""
    levels = {level["kind"]: level for level in results["figures"]["accuracy_by_arm"]["references"]}
    known = {kind: level for kind, level in levels.items() if level["value"] is not None}
    frozen = known.get(FROZEN)
    if frozen is None:
        return "The frozen public encoder has no figure."
    ends, metric = span(frozen, 1, scale=100), results["protocol"]["metric"]
    reads = f"The frozen public encoder reads {percent(frozen['value'])}{f' ({ends})' if ends else ''}"
    on = f" on {counted(frozen['units'], 'test unit')}" if frozen.get("units") else ""
    others = [f"{name} {percent(known[kind]['value'])}" for kind, name in OTHERS.items() if kind in known]
    return "; ".join([f"{reads}, {metric} accuracy{on}: what every arm has to beat", *others]) + "."


def _arms(results: Results) -> TextTable:
    """References, then the arms from the most accurate on, each against the frozen encoder."""
    told = results["figures"]["accuracy_by_arm"]
    levels = {level["kind"]: level["value"] for level in told["references"] if level["value"] is not None}
    rows = [[name, percent(levels[kind]), "", ""] for kind, name in REFERENCES.items() if kind in levels]
    claims = [claim for claim in results["claims"] if claim["question"] == FROZEN and claim["means"] is not None]
    ranked = sorted(claims, key=lambda claim: -float(claim["means"][0]))
    rows += [[c["sides"][0], percent(c["means"][0]), difference(c), c["status"]] for c in ranked]
    header = ["", f"{told['y']} accuracy", "against frozen, points", "beats it"]
    return TextTable(f"Arms, the most accurate first, against the frozen public encoder\n{OVER}", header, rows, kept=1)


def _contrasts(results: Results) -> list[TextTable]:
    """The other claims, the references' last; as many as a screen holds."""
    known = by_question(results)
    own = {heading: claims for heading, claims in known.items() if claims[0]["question"] not in ("primary", FROZEN)}
    order = sorted(own, key=lambda heading: own[heading][0]["question"] in LAST)
    claims: Sequence[Claim] = [claim for heading in order for claim in own[heading]]
    rows = [[claim["statement"], difference(claim), claim["status"]] for claim in claims[:MOST]]
    if not rows:
        return []
    more = len(claims) - len(rows)
    below = (f"{counted(more, 'further claim')} on the page.",) if more else ()
    return [TextTable("Other claims, corrected by Holm within their kind", ["", "points", "marker"], rows, below)]
