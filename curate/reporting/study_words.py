"""A study in three sentences: its primary contrast, what to do, and how sure that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from curate.reporting.study import Claim, Results, difference, primary
from curate.reporting.wording import counted, in_points, listed, number, percent, span
from curate.results import TARGET

FROZEN, TUNED, BOTH = "frozen", "finetuned", "finetuned, both"
KEEP = "Keep the frozen public encoder"
ENOUGH = 0.8  # power
_LOST = {"refuted": "no arm beats it", "equivalent": "every arm is equivalent to it"}  # where all claims are


def says(study: Mapping[str, Any]) -> str:
    """The primary contrast, or that nothing was written down and what became of the claims."""
    results = study["results"]
    if results is None:
        names = [target["name"] for target in study["targets"]]
        return f"This study has {counted(len(names), 'target')}, {listed(names)}; each has a page of its own."
    claim = primary(results)
    if claim is None:
        return f"Exploratory: no primary contrast was written down before the runs; {_tally(results['claims'])}."
    if claim["effect"] is None:
        return (
            f"{claim['statement']}: {claim['status']}; {'; '.join(claim['notes']) or 'there are no runs to compare'}."
        )
    return f"{claim['statement']}: {claim['status']}, {_figures(claim)}; written down before the runs."


def what_to_do(study: Mapping[str, Any], advice: str = "", sources: Mapping[str, Collection[str]] | None = None) -> str:
    """Which arm to pretrain with, or to keep the public encoder, frozen or fine-tuned; then the advice on pools.

    Args:
        study: The part of a summary.
        advice: On the pools, by their distances; left out where the arms that are named took no image of a pool.
        sources: Arm -> what its selections took images from.
    """
    verdict, arms = _verdict(study)
    if arms and all(set((sources or {}).get(arm, ())) == {TARGET} for arm in arms):
        return f"{verdict}; {listed(arms)} took the target's own images alone, none of a pool."
    if not advice:
        return f"{verdict}."
    is_warning = advice.startswith("No pool")
    if_at_all = "if you pretrain all the same, " if verdict.startswith(KEEP) and not is_warning else ""
    return f"{verdict}; {if_at_all}{advice[0].lower()}{advice[1:]}"


def _verdict(study: Mapping[str, Any]) -> tuple[str, list[str]]:
    """In words, and the arms that won, else the one that comes nearest."""
    if study["results"] is None:
        return "Nothing was evaluated over all targets yet", []
    claims = study["results"]["claims"]
    known = [c for c in claims if c["question"] == FROZEN and c["effect"] is not None]
    if not known:
        return "No arm was compared with the frozen public encoder", []
    best = max(known, key=lambda claim: float(claim["effect"]["value"]))
    won = [claim["sides"][0] for claim in known if claim["status"] == "supported"]
    if best["status"] == "supported":
        others = [name for name in won if name != best["sides"][0]]
        also = f", and so {'do' if len(others) > 1 else 'does'} {listed(others)}" if others else ""
        return _pretrain(best, also, _tuned(claims, best["sides"][0])), won
    verb = _LOST.get(" ".join({claim["status"] for claim in known}), "that an arm beats it is not shown")
    return f"{KEEP}: {verb}; {_nearest(best, alone=len(known) == 1)}", [best["sides"][0]]


def _nearest(best: Claim, *, alone: bool) -> str:
    """How the best arm, which does not beat the frozen encoder, stands to it."""
    name, effect = best["sides"][0], best["effect"]
    arm, way = name if alone else f"the best arm, {name},", "more" if effect["value"] > 0 else "less"
    interval = span(effect, 1, scale=100, plus=True)
    by = f"{in_points(abs(effect['value']))} {way} than it{f' (difference {interval})' if interval else ''}"
    said = "the two are equivalent" if best["status"] == "equivalent" else f"that {name} beats it is {best['status']}"
    return f"{arm} reads {by} over {_size(effect)}: {said}"


def how_sure(results: Results) -> list[str]:
    """Power, seeds, and whether anything was written down."""
    first = primary(results)
    claims = [c for c in ([first] if first else results["claims"]) if c["effect"] is not None]
    parts = ["all claims are exploratory"] if results["exploratory"] else []
    if not claims:
        return [*parts, "there are no runs to compare"]
    powers = [c["effect"]["power"] for c in claims if not c["effect"]["reason"] and c["effect"]["power"] is not None]
    if not powers:
        return [*parts, str(claims[0]["effect"]["reason"] or "the power is not known")]
    which = "the primary contrast has a power of" if first else "the claims have a power of"
    share = " to ".join(dict.fromkeys(percent(power, 0) for power in (min(powers), max(powers))))
    least = claims[0]["effect"]["detectable"] if first else None
    tells = f", and tells {in_points(least)} with 80%" if least else ""
    return [*parts, f"{which} {share} for a difference of {in_points(claims[0]['effect']['matters'])}{tells}"]


def how_telling(claim: Claim) -> list[str]:
    """In plain words how often such a study sees a difference that matters, and what would decide an open claim."""
    effect = claim["effect"]
    if effect is None:
        return []
    return [*_power(effect), *(what_it_takes(effect) if claim["status"] == "undecided" else [])]


def what_it_takes(effect: Mapping[str, Any]) -> list[str]:
    """To decide what is undecided: seeds, or test images, as far as the spread over both tells."""
    if effect["reason"]:
        more = "Two seeds or more of every arm would tell" if effect["seeds"] < 2 else "It takes more test images"
        return [f"Not decidable as it stands ({effect['reason']}). {more}."]
    if effect["power"] is None or effect["power"] >= ENOUGH:
        return []
    needed, images, matters = effect["seeds_needed"], effect.get("units_needed"), in_points(effect["matters"])
    ways = []
    if needed and needed > effect["seeds"]:
        ways.append(f"{counted(needed, 'seed')} an arm on these test images")
    if images and images > effect["units"]:
        ways.append(f"{counted(images, 'test unit')} with these seeds")
    takes = " or ".join(ways) or "both, more seeds and more test images"
    return [f"To tell {matters} 80 times of 100 takes {takes}."]


def _power(effect: Mapping[str, Any]) -> list[str]:
    """How often a study like this one sees a difference that matters."""
    if effect["reason"] or effect["power"] is None:
        return []
    matters, times = in_points(effect["matters"]), f"{number(100 * effect['power'])} times of 100"
    seen = f"If the true difference were {matters}, such a study would tell it {times}"
    least = effect["detectable"]
    return [f"{seen}; {f'it tells {in_points(least)}' if least else 'no difference is told'} 80 times of 100."]


def _pretrain(best: Claim, also: str, tuned: Claim | None) -> str:
    arm = best["sides"][0]
    gained = f"{arm} beats the frozen public encoder, {_figures(best)}{also}"
    if tuned is None or tuned["means"] is None:
        return f"Pretrain: {gained}"
    both = "fine-tuned, it" if tuned["question"] == BOTH else "it"
    level = percent(tuned["means"][1])
    read = f"fine-tuning the public encoder reads {level}"
    if tuned["status"] == "supported":
        return f"Pretrain: {gained}; {read}, and {both} beats that, too, {points_of(tuned)}"
    if tuned["status"] == "refuted":
        than = f"{arm}, fine-tuned, stands" if tuned["question"] == BOTH else f"{arm} stands"
        reads = f"that reads {level}, {than} at {points_of(tuned)}"
        return f"Fine-tune the public encoder rather than pretrain: {reads}; {gained}"
    return f"Pretrain or fine-tune: {gained}; {read}, and that {both} beats that is {_open(tuned)}, {points_of(tuned)}"


def _open(claim: Claim) -> str:
    return "undecided" if claim["status"] == "undecided" else "not so: they are equivalent"


def _tuned(claims: Sequence[Claim], arm: str) -> Claim | None:
    """The claim of an arm against the fine-tuned public encoder: itself fine-tuned, where it was."""
    names = {BOTH: f"{arm}, fine-tuned,", TUNED: arm}
    found = [c for q, name in names.items() for c in claims if c["question"] == q and c["sides"][0] == name]
    return next((claim for claim in found if claim["effect"] is not None), None)


def _figures(claim: Claim) -> str:
    effect = claim["effect"]
    return f"{points_of(claim)} over {_size(effect)}"


def _size(effect: Mapping[str, Any]) -> str:
    return f"{counted(effect['seeds'], 'seed')} and {counted(effect['conditions'], 'target')}"


def points_of(claim: Claim) -> str:
    """The difference in points, with its interval."""
    value, _, interval = difference(claim).partition(" ")
    return f"{value} points{f' {interval}' if interval else ''}"


def _tally(claims: Sequence[Claim]) -> str:
    """Of 12 claims 9 are supported and 3 undecided."""
    if not claims:
        return "there is nothing to compare"
    found = Counter(claim["status"] for claim in claims)
    return f"of {counted(len(claims), 'claim')}, {listed([f'{n} {status}' for status, n in found.most_common()])}"
