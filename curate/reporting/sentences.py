"""Three plain sentences for someone who decides: what the data are worth, what to do, how sure that is.

Written from the numbers of a summary alone. A gain whose interval holds zero is called noise; what pretraining has to
beat is the frozen public encoder, which costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from curate.distances._frechet import DIRECTIONS, PER_DIRECTION
from curate.reporting import study_words
from curate.reporting.accuracies import Score, matches, seen_before, tested_on, to_beat, tuned_public
from curate.reporting.advice import advice, another_try, taken_near
from curate.reporting.wording import Figure, counted, listed, number, one_of, percent, points, span

METRICS = ("linear", "linear_balanced", "knn", "knn_balanced")  # the first one there is decides
FULL_RESOLUTION = DIRECTIONS * PER_DIRECTION  # target images from which the distance uses all its directions
VERDICTS = {
    "same": "cannot be told from the target",
    "near": "near it",
    "middle": "at middle distance",
    "far": "far",
    "unclear": "unclear, the interval spanning a limit",
    "copies": "mostly copies of target images",
}


def headline(summary: dict[str, Any]) -> list[str]:
    """What the data are worth, what to do, how sure: one sentence each."""
    shift, outcomes, study = summary["shift"], _outcomes(summary["evaluation"]), summary.get("study")
    if study:
        return [
            study_words.says(study),
            study_words.what_to_do(study, _pools_advice(shift), _sources(summary)),
            _certainty(summary, outcomes),
        ]
    beat = "" if shift or not summary["evaluation"] else to_beat(summary["evaluation"])
    told = advice(shift, taken=taken_near(summary["selections"]))
    return [beat or _worth(shift), _action(shift, outcomes, told), _certainty(summary, outcomes)]


def judge_sentence(judge: dict[str, Any]) -> str:
    """How far a second encoder agrees."""
    if judge.get("reason"):
        return f"A second encoder was not asked: {judge['reason']}"
    name, agreement = judge["encoder"]["name"], judge["agreement"]
    if agreement["value"] is None:
        return _few_judged(judge) + _unseen(judge)
    told = f"{name} orders the pools with a rank correlation of {number(agreement['value'], 2)} ({span(agreement, 2)})"
    turned = [f"{a} before {b}" for a, b in judge["turned"]]
    if not turned:
        return f"{told}; it contradicts no order that is settled.{_unseen(judge)}"
    order = listed(turned, most=3)
    return f"{told}; it turns round what is settled here: {order}. That order is in the encoder.{_unseen(judge)}"


def _few_judged(judge: dict[str, Any]) -> str:
    """What a second encoder says of one pool or two, which have no rank correlation."""
    name, pools = judge["encoder"]["name"], judge["pools"]
    if len(pools) < 2:
        read = "".join(f": index {number(p['index']['value'])}, {p['verdict']}" for p in pools)
        return f"{name} scored the one pool, too{read}. There is no order to agree on."
    order = " before ".join(p["name"] for p in pools)
    if judge["turned"]:
        return f"{name} puts {order}, and surely so: it turns round what is settled here. That order is in the encoder."
    if not judge.get("same_order"):
        return f"{name} puts {order}, not as here, but the errors leave that open."
    return (
        f"{name} puts {order}, too. Two pools have one order only, on which two encoders agree half the time by mere "
        "chance: that is little evidence, and there is no rank correlation to give an interval of."
    )


def _unseen(judge: dict[str, Any]) -> str:
    """Images that the judge could not see."""
    gone = [f"{counted(n, 'image')} of {name}" for name, n in judge.get("gone", {}).items()]
    return f" It did not see {listed(gone)}: they are not where they were embedded from." if gone else ""


def _worth(shift: dict[str, Any] | None) -> str:
    if shift is None:
        return "No pool was compared with the target here."
    pools, target = shift["pools"], shift["target"]
    if not pools:
        classes = f" in {counted(len(target['classes']), 'class', 'classes')}" if target.get("classes") else ""
        return f"No pool was compared: this is a profile of the target alone, {counted(target['n'], 'image')}{classes}."
    groups = []
    for verdict, meaning in VERDICTS.items():
        names = [f"{p['name']} {number(p['index']['value'])}" for p in pools if p["verdict"] == verdict]
        if names:
            count = f"{len(names)} {one_of(len(names), 'is', 'are')} " if verdict != "same" else f"{len(names)} "
            groups.append(f"{count}{meaning} ({listed(names)})")
    scale = "on an index where 0 is the target itself and 50 as far as its own total variance"
    return f"Of {counted(len(pools), 'pool')} compared with the target, {listed(groups, most=9)}, {scale}."


def _action(shift: dict[str, Any] | None, outcomes: Sequence[Outcome], advised: str) -> str:
    known = [o for o in outcomes if o.kind != "unknown"]
    wins = [o for o in known if o.kind == "beats"]
    if not outcomes:
        return advised
    if not known:
        return f"Whether pretraining pays is open, {outcomes[0].detail}; {_lowered(advised)}"
    details = listed([o.detail for o in (wins or known)], most=3)
    if len(wins) == len(known):
        but = ", but not its fine-tuning" if all(o.tuned for o in wins) else ""
        return f"Pretrain: it beat doing nothing, the frozen public encoder{but}; {details}; {_lowered(advised)}"
    if wins:
        rest = listed([o.labeled for o in known if o.kind != "beats"])
        return f"Pretrain where it paid: it beat doing nothing, the frozen public encoder; {details}; not so on {rest}."
    verb = "gained nothing beyond the noise over" if all(o.kind == "noise" for o in known) else "did not beat"
    return f"Keep the frozen public encoder: pretraining {verb} doing nothing; {details}{another_try(shift)}."


def _pools_advice(shift: dict[str, Any] | None) -> str:
    """The advice where there are pools."""
    return advice(shift) if shift and shift["pools"] else ""


def _sources(summary: dict[str, Any]) -> dict[str, set[str]]:
    """Arm of a study -> what the selections of its runs took images from."""
    taken = {chosen["digest"]: set(chosen["counts"]) for chosen in summary["selections"]}
    found: dict[str, set[str]] = {}
    for run in summary["runs"]:
        found.setdefault(run["name"].partition("~")[0], set()).update(taken.get(run["selection"], ()))
    return found


def _certainty(summary: dict[str, Any], outcomes: Sequence[Outcome]) -> str:
    shift = summary["shift"]
    results = (summary.get("study") or {}).get("results")
    arms = [*_ill(summary), *study_words.how_sure(results)] if results else _arms(summary, outcomes)
    rests = tested_on(summary["evaluation"]) if summary["evaluation"] and not shift else _resolution(shift)
    parts = [*rests, *_unsettled(shift), *_methods(summary["comparisons"]), *arms]
    if shift and shift["pools"]:
        parts.append(_views(shift))
    if not parts:
        return "Nothing here has been measured against a target yet."
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _views(shift: dict[str, Any]) -> str:
    """How many encoders have looked at the pools, and whether they contradict each other."""
    name, judge = shift["encoder"].get("name", "one encoder"), shift["findings"].get("judge", {})
    if judge.get("reason") or not judge:
        return f"all distances are one encoder's view ({name})"
    second, turned = judge["encoder"]["name"], len(judge["turned"])
    if not turned:
        return f"all distances are {name}'s view, and a second encoder, {second}, contradicts no order that is settled"
    pairs = counted(turned, "settled pair")
    return f"all distances are {name}'s view, and a second encoder, {second}, turns round {pairs} of its order"


def _resolution(shift: dict[str, Any] | None) -> list[str]:
    if shift is None:
        return []
    target = shift["target"]
    n = f"{'only ' if target['n'] < FULL_RESOLUTION else ''}{counted(target['n'], 'target image')}"
    if not shift["pools"]:
        lacking = [c["measure"] for c in target.get("carries") or [] if not c["ok"]]
        return [f"{n} cannot carry: {listed(lacking)}" if lacking else f"{n} can carry every measure"]
    floor = span(shift["floor_index"]) if shift["floor_index"] else ""
    halves = f", whose two halves read {floor} against each other" if floor else ""
    return [f"intervals are 95% and rest on {n}{halves}"]


def _unsettled(shift: dict[str, Any] | None) -> list[str]:
    """Neighbors in the ranking whose order the errors leave open."""
    chains: list[list[str]] = []
    for pool in sorted(shift["pools"] if shift else [], key=lambda p: p["rank"]):
        tied = bool(chains) and chains[-1][-1] in pool["tied_with"]
        chains = [*chains[:-1], [*chains[-1], pool["name"]]] if tied else [*chains, [pool["name"]]]
    open_chains = [listed(chain) for chain in chains if len(chain) > 1]
    comma = "," if len(open_chains) > 1 else ""
    return [f"the order of {', and of '.join(open_chains)}{comma} is not settled"] if open_chains else []


def _methods(comparisons: Sequence[dict[str, Any]]) -> list[str]:
    """How the methods of selection stand against random, on target images that they did not see."""
    return [text for comparison in comparisons if (text := _against_random(comparison))]


def _against_random(comparison: dict[str, Any]) -> str:
    first, *judges = comparison["encoders"]
    found: dict[tuple[bool, str], list[str]] = {}
    doubts = []
    for contender in comparison["contenders"]:
        said = {name: reading["verdict"] for name, reading in contender["readings"].items()}
        if said.get(first):
            found.setdefault((contender["control"] is not None, said[first]), []).append(contender["method"])
            others = [comparison["called"][name] for name in judges if said.get(name) != said[first]]
            doubts += [f"{contender['method']} not so under {listed(others)}"] if others else []
    if not found:
        return ""
    held = [
        f"{listed(is_are)} {control}" for own, control in _CONTROLS.items() if (is_are := _stands(found, has_own=own))
    ]
    heard = "; ".join(doubts) if doubts else one_of(len(judges), "the judge agrees", "the judges agree")
    told = f"on target images that no method saw, {listed(held)}"
    return f"{told} ({heard})" if judges else told


def _stands(found: Mapping[tuple[bool, str], Sequence[str]], *, has_own: bool) -> list[str]:
    """How the methods with a control of their own, or those without, stand against it."""
    return [
        f"{listed(names)} {one_of(len(names), 'is', 'are')} {_SETTLED[verdict]}"
        for (own, verdict), names in found.items()
        if own == has_own
    ]


_CONTROLS = {False: "a random draw", True: "a random draw with the same own images"}  # by whether it holds own images
_SETTLED = {"nearer": "nearer than", "farther": "farther than", "not settled": "not to be told from"}


def _arms(summary: dict[str, Any], outcomes: Sequence[Outcome]) -> list[str]:
    parts, evaluation = _ill(summary), summary["evaluation"] or {"labeled": []}
    parts += [told for labeled in evaluation["labeled"] for told in seen_before(labeled)]
    if len(evaluation.get("samples_seen", [])) > 1:
        parts.append("the arms saw unequal numbers of samples, so they compare only roughly")
    compared = [o for o in outcomes if o.runs > 1]
    settled = [o.best for o in compared if o.best]
    parts += settled
    if compared and not settled and all(o.overlapping for o in compared):
        parts.append("the runs' own intervals overlap, so none is the winner among them")
    if compared and any(o.kind == "beats" for o in compared):
        parts.append("the best run was picked on these same test images, which flatters it")
    if any(o.runs for o in outcomes):
        parts.append("each run was trained once")
    return parts


def _ill(summary: dict[str, Any]) -> list[str]:
    verdicts = {run["name"]: run["health"]["verdict"] for run in summary["runs"] if not _is_healthy(run)}
    early = [name for name, verdict in verdicts.items() if verdict == "too early"]
    ill = [f"{name} ({verdict})" for name, verdict in verdicts.items() if verdict != "too early"]
    told = []
    if ill:
        subject, says = one_of(len(ill), "run", "runs"), one_of(len(ill), "says", "say")
        told.append(f"the {subject} {listed(ill)} did not train properly and {says} little")
    if early:
        subject, was = one_of(len(early), "run", "runs"), one_of(len(early), "was", "were")
        told.append(f"the {subject} {listed(early)} {was} too short to tell whether training works")
    return told


def _is_healthy(run: dict[str, Any]) -> bool:
    return not run["health"] or run["health"]["verdict"] == "healthy"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the best run did on one labeled set, against the frozen public encoder."""

    labeled: str
    kind: str  # beats, noise, loses or unknown
    detail: str
    runs: int
    overlapping: bool = False  # the runs' intervals all overlap
    best: str = ""  # whether the best run is told from the second, where runs were compared
    tuned: bool = False  # fine-tuning the public encoder reads more, or as much as far as is known


def _outcomes(evaluation: dict[str, Any] | None) -> list[Outcome]:
    return [_outcome(labeled) for labeled in evaluation["labeled"] if labeled["scores"]] if evaluation else []


def _outcome(labeled: dict[str, Any]) -> Outcome:
    name, scores = labeled["name"], labeled["scores"]
    metric = next(iter(ordered_metrics(scores)), "")
    frozen = next((s for s in scores if s["kind"] == "frozen"), None)
    runs = [s for s in scores if s["kind"] == "run" and s["metrics"].get(metric, {}).get("value") is not None]
    if not runs or frozen is None or metric not in frozen["metrics"]:
        missing = f"no run was evaluated on {name}" if not runs else f"nothing stands beside the runs on {name}"
        return Outcome(labeled=name, kind="unknown", detail=missing, runs=len(runs))
    best = max(runs, key=lambda s: s["metrics"][metric]["value"])
    gain = best["against_frozen"].get(metric)
    kind = _kind(gain)
    tuned = _beyond_tuned(best, tuned_public(scores), metric) if kind == "beats" else ""
    accuracy, to_beat = (s["metrics"][metric]["value"] for s in (best, frozen))
    return Outcome(
        labeled=name,
        kind=kind,
        detail=f"{best['arm']} reads {percent(accuracy)} on {name} against {percent(to_beat)}, {_gain(gain, kind)}"
        + _labels_worth(best, kind)
        + tuned,
        runs=len(runs),
        best=_best(labeled, runs, metric),
        tuned=bool(tuned),
        overlapping=all(_overlap(a["metrics"][metric], b["metrics"][metric]) for a, b in combinations(runs, 2)),
    )


def ordered_metrics(scores: Sequence[dict[str, Any]]) -> list[str]:
    """All accuracies that any arm has, the deciding one first: linear, its balanced form, k-NN, then others by name."""
    known = {metric for score in scores for metric in score["metrics"]}
    return [m for m in METRICS if m in known] + sorted(known.difference(METRICS))


def _kind(gain: Figure | None) -> str:
    if gain is None or gain["low"] is None or gain["high"] is None:
        return "unknown"
    return "beats" if gain["low"] > 0 else "loses" if gain["high"] < 0 else "noise"


def _gain(gain: Figure | None, kind: str) -> str:
    if gain is None or kind == "unknown":
        return "a difference without an interval"
    within = ", within the noise" if kind == "noise" else ""
    return f"{points(gain['value'])} points ({span(gain, 1, scale=100, plus=True)}){within}"


def _labels_worth(score: dict[str, Any], kind: str) -> str:
    labels = score["label_equivalents"]
    if labels is None or kind != "beats":
        return ""
    count = labels["reason"] if labels["value"] is None else f"about {number(labels['value'])}"
    return f", for which the frozen one would need {count} labels" if count else ""


def _beyond_tuned(best: dict[str, Any], tuned: Score | None, metric: str) -> str:
    """What fine-tuning the public encoder reads, where the run is not clearly above it."""
    figure, own = (tuned or {"metrics": {}})["metrics"].get(metric), best["metrics"][metric]
    if figure is None or figure["value"] is None:
        return ""
    if own["low"] is not None and figure["high"] is not None and own["low"] > figure["high"]:
        return ""
    open_ = ", not told from it by these intervals" if _overlap(own, figure) else ""
    return f"; fine-tuning the public encoder reads {percent(figure['value'])}{open_}"


def _best(labeled: dict[str, Any], runs: Sequence[dict[str, Any]], metric: str) -> str:
    """Whether the best run is told from the second one."""
    first, *rest = (s["arm"] for s in sorted(runs, key=lambda s: -float(s["metrics"][metric]["value"])))
    found = [match for match in matches(labeled) if rest and {match.first, match.second} == {first, rest[0]}]
    return f"on {labeled['name']} {found[0].sentence.rstrip('.')}" if found else ""


def _overlap(a: Figure, b: Figure) -> bool:
    if None in (a["low"], b["low"], a["high"], b["high"]):
        return False
    return bool(a["low"] <= b["high"] and b["low"] <= a["high"])


def _lowered(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
