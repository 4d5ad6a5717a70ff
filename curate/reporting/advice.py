"""What to do with the pools of a score, as one sentence: the words beside their verdicts, pool by pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curate.reporting.wording import counted, listed, one_of, percent
from curate.results import TARGET
from curate.scoring.verdicts import ACTIONS, has_far_part

Shift = dict[str, Any]  # a score, as the summary holds it


def advice(shift: Shift | None, *, taken: int = 0) -> str:
    """What to do with the pools, or what to do first where there are none.

    Args:
        shift: The score.
        taken: Images that were selected from the pools up to where near ones ran out: far pools may hold some.
    """
    if shift is None:
        return "Score the pools before you choose among them."
    if not shift["pools"]:
        return "Add at least one pool to learn whether anything is worth pretraining on."
    uses, waits = _uses(shift), _waits(shift)
    parts = [*(uses or [_nothing(shift, taken)]), *waits, *_left_out(shift, alone=not uses and not waits)]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def taken_near(selections: Sequence[dict[str, Any]]) -> int:
    """Images of the pools in the one selection that a report is of, if it stopped or would have where near ones end."""
    if len(selections) != 1 or not selections[0]["supply"] or selections[0]["facts"].get("past_knee"):
        return 0
    counts, far = selections[0]["counts"], selections[0]["parts"]["far"]
    return int(sum(n for name, n in counts.items() if name != TARGET) - far)


def another_try(shift: Shift | None) -> str:
    """What the pools are still good for where pretraining on some has not paid; empty without pools."""
    if shift is None or not shift["pools"]:
        return ""
    near = _by_action(shift)["use"]
    if not near:
        return f"; {_nothing(shift)}"
    return f"; of the pools, only {listed(near)} {one_of(len(near), 'is', 'are')} near enough for another try"


def _uses(shift: Shift) -> list[str]:
    """Pools to pretrain on, as they are or in part."""
    named = _by_action(shift)
    use, part = named["use"], named["use part"]
    parts = [f"use {listed(use)}"] if use else []
    parts += [f"repair {name} first: {step}" for name, step in _repairs(shift)]
    parts += [f"select from {listed(_with_far_share(shift, part))} and do not take {_them(part)} whole"] if part else []
    return parts


def _waits(shift: Shift) -> list[str]:
    """Pools that come later, or after something else."""
    named = _by_action(shift)
    last, few, look = named["use last"], named["add images"], named["look"]
    parts = [f"keep {listed(last)} for last"] if last else []
    parts += [f"add images to {listed(few)} before deciding on {_them(few)}"] if few else []
    return parts + ([f"look at the near copies in {listed(look)} before using {_them(look)}"] if look else [])


def _nothing(shift: Shift, taken: int = 0) -> str:
    """Why there is no pool to begin with."""
    named = _by_action(shift)
    if named["add images"] or named["look"] or named["use part"] or named["repair"]:
        return "no pool can be used as it is"
    if named["use last"]:
        return "no pool is near"
    if all(pool["verdict"] == "copies" for pool in shift["pools"]):
        return "no pool adds anything new"
    if taken:
        return f"no pool is near as a whole: pretrain on the {counted(taken, 'image')} selected from them, not on all"
    return "no pool is near: do not pretrain on these"


def _left_out(shift: Shift, *, alone: bool) -> list[str]:
    """Pools to leave out; the far ones are not named where there is nothing else to say (``alone``)."""
    copies = [pool["name"] for pool in shift["pools"] if pool["verdict"] == "copies"]
    far = [name for name in _by_action(shift)["leave out"] if name not in copies]
    parts = [f"leave out {listed(far)}"] if far and not alone else []
    repeat = one_of(len(copies), "repeats", "repeat")
    return parts + ([f"leave out {listed(copies)}, which {repeat} the target"] if copies else [])


def _with_far_share(shift: Shift, names: Sequence[str]) -> list[str]:
    """Pools to be used in part, with the share that is far where that is why."""
    findings = {pool["name"]: pool["findings"] for pool in shift["pools"]}
    shares = {name: findings[name]["parts"]["share"]["value"] for name in names if has_far_part(findings[name])}
    return [f"{name} (about {percent(shares[name], 0)} of it is far)" if name in shares else name for name in names]


def _repairs(shift: Shift) -> list[tuple[str, str]]:
    """Pools that one preprocessing step brings near, and the step."""
    return [(p["name"], p["findings"]["factors"]["step"]) for p in shift["pools"] if p["action"] == "repair"]


def _them(names: Sequence[str]) -> str:
    return one_of(len(names), "it", "them")


def _by_action(shift: Shift) -> dict[str, list[str]]:
    return {action: [p["name"] for p in shift["pools"] if p["action"] == action] for action in ACTIONS}
