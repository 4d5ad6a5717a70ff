"""What the explanations in a score look like on the page: which parts there are, their rows, words and pictures.

A finding that could not be had is ``{"reason": ...}``; its part then says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from curate.reporting.measures import measured
from curate.reporting.wording import counted, number, percent, span

Shift = Mapping[str, Any]  # a ShiftReport as plain JSON
Finding = Mapping[str, Any]

PARTS = {  # template -> its name in the list of parts, in order
    "kinds": "Kind of shift",
    "slices": "Slices",
    "images": "Telling images",
    "memorized": "Hidden copies",
    "diversity": "Variety",
    "judge": "Second encoder",
    "delivery": "Delivery",
    "measures": "Second opinions",
}
OF_POOLS = {"kinds": "factors", "images": "images", "memorized": "memorized", "delivery": "delivery"}
TOLD = {  # list of images in the finding -> what they are
    "target_unlike": "Target images least like it",
    "pool_unlike": "Its images least like the target",
    "pool_like": "Its images most like the target",
    "pulling": "Its images that pull it away most",
}
PICTURES = 8  # in a row
PULLS = 6  # rows of the table
SLICES = 40  # rows of the table
EXAMPLES = 12  # unserved slices with pictures
CHANCE = 0.05


def parts(shift: Shift | None) -> dict[str, str]:
    """Name of every part that has something to show, by its template."""
    pools = shift["pools"] if shift else []
    if not shift or not pools:
        return {}
    there = {name: any(key in pool["findings"] for pool in pools) for name, key in OF_POOLS.items()}
    there |= {name: name in shift["findings"] for name in ("slices", "diversity", "judge")}
    there["measures"] = bool(measured(pools))
    return {name: title for name, title in PARTS.items() if there[name]}


def pictured(shift: Shift) -> dict[str, list[str]]:
    """Keys of the images that explanations show, by the source that holds them."""
    found: dict[str, dict[str, None]] = {"target": {}, **{pool["name"]: {} for pool in shift["pools"]}}
    for name, keys in _pictured(shift):
        found[name] |= dict.fromkeys(keys)
    return {name: list(keys) for name, keys in found.items() if keys}


def _pictured(shift: Shift) -> Iterator[tuple[str, list[str]]]:
    for row in unserved(shift["findings"].get("slices", {})):
        yield "target", row["examples"]
    for pool in shift["pools"]:
        told = pool["findings"].get("images", {})
        for kind in TOLD:
            side = "target" if kind == "target_unlike" else pool["name"]
            yield side, [image["key"] for image in told.get(kind, [])[:PICTURES]]
        pairs = pool["findings"].get("memorized", {}).get("pairs", [])[:PICTURES]
        yield pool["name"], [pair["pool"] for pair in pairs]
        yield "target", [pair["target"] for pair in pairs]


def steps_tried(factors: Finding) -> list[dict[str, Any]]:
    """Rows of the chart: the samples as they are, every step alone with what it does, all of the best repair."""
    whole = factors["index"]["n"][0]
    tried = sorted((f for f in factors["factors"] if f["step"]), key=lambda f: f["index"]["value"])
    rows = [{"title": "As it is", "detail": "", "effect": "ink", "index": factors["index"]}]
    for factor in tried:
        images = factor["index"]["n"][0]
        halved = f"; on {counted(images, 'pool image')}" if images < whole else ""
        row = {"title": _capital(factor["step"]), "detail": factor["fact"] + halved, "index": factor["index"]}
        rows.append({**row, "effect": _effect(factor["fall"])})
    best = factors["best"]
    if best and len(best["names"]) > 1:
        together = {"title": "The best repair", "detail": ", then ".join(best["names"]), "effect": "near"}
        rows.append({**together, "index": factors["content"]})
    return rows


def not_needed(factors: Finding) -> list[dict[str, str]]:
    """Factors in which nothing was tried, and what was measured of them."""
    return [
        {
            "name": _capital(f["name"]),
            "fact": f["fact"],
            "why": f["index"]["reason"] if f.get("differs", True) else "",  # the fact says it
        }
        for f in factors["factors"]
        if not f["step"]
    ]


def _effect(fall: Mapping[str, Any]) -> str:
    """Color class: the distance falls, rises, or neither beyond noise."""
    if fall["low"] is None or fall["high"] is None:
        return "muted"
    return "near" if fall["low"] > 0 else "far" if fall["high"] < 0 else "muted"


def unserved(slices: Finding) -> list[Mapping[str, Any]]:
    """Slices that no pool serves, worst first, as many as are shown with pictures."""
    return [row for row in slices.get("slices", []) if row["verdict"] == "unserved"][:EXAMPLES]


def slice_columns(shift: Shift) -> list[dict[str, Any]]:
    """Pools of the table of slices, nearest first, with the null that is theirs in every slice."""
    found = shift["findings"]["slices"]["slices"]
    first = found[0]["coverage"] if found else {}
    return [{"name": p["name"], "null": first[p["name"]]["null"]} for p in shift["pools"] if p["name"] in first]


def telling_words(told: Finding) -> str:
    """How surely a pool is told from the target, as a sentence."""
    auc, p = told["auc"], told["p"]
    if auc["value"] is None:
        return f"Not measured: {auc['reason']}."
    chance = f"p {'< 0.001' if p < 0.001 else f'= {number(p, 3)}'}"
    read = f"AUC {number(auc['value'], 3)}{f' ({span(auc, 3)})' if span(auc, 3) else ''}, {chance}"
    if p > CHANCE:
        return f"A linear classifier hardly tells them apart: {read}; 0.5 is chance. The order of images says little."
    return f"A linear classifier tells them apart by images it has not seen: {read}; 0.5 is chance."


def delivery_notes(pool: Mapping[str, Any]) -> list[str]:
    """What is to be read with the forecast of a delivery: its notes, and whether copies flatter it."""
    copies = pool["findings"].get("memorized", {})
    if not copies.get("suspicious"):
        return list(pool["findings"]["delivery"]["notes"])
    flattered = f"{percent(copies['near']['value'], 0)} of the sample seem to be copies of target images; they count as"
    return [f"{flattered} usable here.", *pool["findings"]["delivery"]["notes"]]


def rank_rows(shift: Shift) -> list[dict[str, Any]]:
    """Pools in the order of the ranking, each with what the second encoder says of it."""
    theirs = {pool["name"]: pool for pool in shift["findings"]["judge"]["pools"]}
    return [{"ours": pool, "theirs": theirs[pool["name"]]} for pool in shift["pools"] if pool["name"] in theirs]


def found_in(shift: Shift, name: str) -> list[tuple[Mapping[str, Any], Finding]]:
    """Pools that have a finding, each with it."""
    return [(pool, pool["findings"][name]) for pool in shift["pools"] if name in pool["findings"]]


def images_of(keys: Sequence[str], titles: Sequence[str] = (), captions: Sequence[str] = ()) -> list[dict[str, str]]:
    """What a row of pictures takes."""
    titles, captions = titles or keys, captions or [""] * len(keys)
    return [{"key": k, "title": t, "caption": c} for k, t, c in zip(keys, titles, captions, strict=True)]


def told_images(told: Finding, kind: str) -> list[dict[str, str]]:
    """A row of telling images, with their labels below."""
    shown = told[kind][:PICTURES]
    titles = [f"{i['key']}: log odds of being a target image {number(i['score'], 1)}" for i in shown]
    return images_of([i["key"] for i in shown], titles, [i["label"] or "" for i in shown])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
