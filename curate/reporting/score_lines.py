"""What ``curate score --also`` found, in a line or two of each: for the terminal, and above the tables of Markdown.

Tables and pictures of all of it are on the page.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from curate.reporting.findings import Finding, Shift, delivery_notes, found_in, telling_words
from curate.reporting.measures import measured
from curate.reporting.wording import counted, listed, number, percent, span

REST = "Tables and pictures of these findings are in report.html, which --out writes."


def finding_lines(shift: Shift) -> list[str]:
    """All that was asked for beside the default figures; nothing where nothing was."""
    told = [line for say in LINES.values() for line in say(shift)]
    asked = told or any("factors" in pool["findings"] for pool in shift["pools"])
    return [*told, *([REST] if asked else [])]


def slice_lines(shift: Shift) -> list[str]:
    """Slices of the target that no pool serves."""
    found = shift["findings"].get("slices")
    if not found:
        return []
    if found.get("reason"):
        return [f"Slices were not measured: {found['reason']}"]
    counts = {v: [row for row in found["slices"] if row["verdict"] == v] for v in ("unserved", "unclear", "too few")}
    lacking, all_of_them = counts["unserved"], counted(len(found["slices"]), found["by"])
    words = {"unclear": "unclear", "too few": "with too few images to tell"}
    rest = [f"{len(counts[verdict])} {text}" for verdict, text in words.items() if counts[verdict]]
    open_ones = f"; {listed(rest)}" if rest else ""
    if not lacking:
        return [f"Slices: of the target's {all_of_them} all that can be told are served by some pool{open_ones}."]
    names = [f"{row['name']} ({counted(row['n'], 'image')}{_best(row)})" for row in lacking]
    return [f"Slices: of the target's {all_of_them} no pool serves {listed(names)}{open_ones}."]


def diversity_lines(shift: Shift) -> list[str]:
    """How varied every set is."""
    found = shift["findings"].get("diversity")
    if not found:
        return []
    if found.get("reason"):
        return [f"Variety was not measured: {found['reason']}"]
    sets = [
        f"{s['name']} {_with_span(s['vendi'])}, {percent(1 - s['unique'] / s['images'])} copies" for s in found["sets"]
    ]
    return [f"Variety (Vendi score of {counted(found['at'], 'image')}, more is more varied): {'; '.join(sets)}."]


def memorized_lines(shift: Shift) -> list[str]:
    """Copies of target images that no digest finds."""
    return [f"{pool['name']}: {_memorized(found)}" for pool, found in found_in(shift, "memorized")]


def image_lines(shift: Shift) -> list[str]:
    """How surely a pool is told from the target, and what pulls it away most."""
    return [f"{pool['name']}: {_told(pool, found)}" for pool, found in found_in(shift, "images")]


def delivery_lines(shift: Shift) -> list[str]:
    """Usable images of a delivery."""
    return [f"{pool['name']}: {_delivery(pool, found)}" for pool, found in found_in(shift, "delivery")]


def measure_lines(shift: Shift) -> list[str]:
    """Further measures, one line each."""
    names = [pool["name"] for pool in shift["pools"]]
    only = [
        {"metrics": {k: v for k, v in pool["metrics"].items() if k not in _by_default()}} for pool in shift["pools"]
    ]
    return [
        f"{row['title']} ({row['says']}): "
        + "; ".join(f"{name} {_cell(cell)}" for name, cell in zip(names, row["cells"], strict=True))
        + "."
        for row in measured(only)
    ]


LINES: dict[str, Callable[[Shift], list[str]]] = {
    "slices": slice_lines,
    "images": image_lines,
    "memorized": memorized_lines,
    "diversity": diversity_lines,
    "delivery": delivery_lines,
    "measures": measure_lines,
}


@cache
def _by_default() -> frozenset[str]:
    """Figures that are in the table of distances."""
    from curate.scoring.measures import DEFAULT, MEASURES  # loads the distances

    return frozenset({"frechet", *(figure for name in DEFAULT for figure in MEASURES[name].figures)})


def _best(row: Finding) -> str:
    return f", at best {row['best']} {percent(row['coverage'][row['best']]['value'], 0)}" if row["best"] else ""


def _with_span(figure: dict[str, Any]) -> str:
    ends = span(figure)
    return f"{number(figure['value'])}{f' ({ends})' if ends else ''}"


def _memorized(found: Finding) -> str:
    if found.get("reason"):
        return f"hidden copies were not looked for: {found['reason']}"
    near = found["near"]
    if near["value"] is None:
        return f"hidden copies were not looked for: {near['reason']}."
    share = f"{counted(found['count'], 'near copy', 'near copies')} of target images, {percent(near['value'])} of it"
    null = f"the target itself reads up to {percent(found['near_null_high'])}"
    verdict = "suspicious, look at the pairs" if found["suspicious"] else "no sign of memorized images"
    return f"{share}; {null}: {verdict}."


def _told(pool: Finding, found: Finding) -> str:
    if found.get("reason"):
        return f"the images that tell it from the target were not looked for: {found['reason']}"
    words, distance = telling_words(found), pool["metrics"]["frechet"]["value"] or 0.0
    pulls = [p for p in found["pulls"] if (p["influence"]["value"] or 0.0) > 0]
    if not pulls or distance <= 0:
        return words
    first = pulls[0]
    share = percent(first["influence"]["value"] / distance, 0)
    return f"{words} Most of all its {found['by']} {first['name']} pulls it away ({share} of the distance)."


def _delivery(pool: Finding, found: Finding) -> str:
    if found.get("reason"):
        return f"a delivery was not forecast: {found['reason']}"
    images = found["images"]
    usable = f"{number(images['value'])} ({span(images)})" if images["value"] is not None else "n/a"
    return " ".join([f"of {counted(found['size'], 'image')} about {usable} would be usable.", *delivery_notes(pool)])


def _cell(cell: dict[str, str]) -> str:
    if cell["reason"]:
        return f"{cell['value']} ({cell['reason'].rstrip('.')})"
    details = [cell["span"], f"null {cell['null']}" if cell["null"] else ""]
    told = "; ".join(filter(None, details))
    return f"{cell['value']}{f' ({told})' if told else ''}"
