"""What a report says of a selection and of a comparison of methods: parts of the summary, and their words.

A selection: counts and cost by source, near and far part, limits and terms, shares of labels or groups beside those of
target and pools, what was left out by code, the supply curve, contact sheets of first, middle and last picks, and some
of what was left out beside what it was left out for.
"""

from __future__ import annotations

import hashlib
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.comparison import Comparison, called
from curate.reporting.thumbnails import Album
from curate.reporting.wording import counted, decimals_for, number, one_of, percent
from curate.results import TARGET, Selection

PICTURED = 12  # selections with pictures
SHEET = 12  # pictures on a contact sheet
NAME_WIDTH = 60  # of a label or group
NEARLY_ALL = 0.9  # share of a selection
CAP = "with #cap:0 at the end of the target's address"
FAR = "far"  # the code of the far part's images
NEAR, NEXT = "near", "next"  # codes of near-first: of a near pool, or of another one
EXCLUDED = ("excluded", "contaminated")  # codes of images that an excluded source keeps out
LEFT_OUT = {  # code -> what it is called
    "duplicate": "exact duplicates",
    "near-duplicate": "near duplicates",
    "excluded": "images also in an excluded source",
    "contaminated": "images that resemble an excluded one",
    "license": "images without an allowed license",
}
LIMITS = {"images": "images", "bytes": "bytes", "money": "money", "hours": "GPU-hours"}


def selection_part(name: str, selection: Selection, album: Album | None) -> dict[str, Any]:
    """One selection as the summary holds it."""
    facts = selection.facts
    return {
        "name": name,
        "n": len(selection),
        "counts": selection.counts(),
        **{key: facts.get(key) for key in ("method", "seed", "budget", "stopped")},
        "by_source": _by_source(selection),
        "parts": _parts(selection),
        "limits": _limits(facts),
        "wishes": wishes(facts),
        "shares": _shares(facts),
        "left_out": _left_out(selection.left_out),
        "supply": facts.get("supply"),
        "own": own_words(selection),
        "early": early_words(selection),
        "sheets": _sheets(selection, album) if album else [],
        "rejected": _rejected(selection, album) if album else [],
        "digest": selection.digest,
        "facts": facts,
        "sources": selection.sources,
    }


def comparison_part(name: str, comparison: Comparison) -> dict[str, Any]:
    """One comparison as the summary holds it: its JSON, names for people, and what the gain over random costs."""
    document = comparison.to_json()
    for contender, known in zip(document["contenders"], comparison.contenders, strict=True):
        contender["gain_per_cost"] = _gain_per_cost(contender, comparison.encoder)
        contender["without_gain"] = comparison.without_gain(known)
    names = {encoder: called(encoder) for encoder in (*comparison.encoders, *(j.name for j in comparison.judges))}
    return {"name": name, "encoders": list(comparison.encoders), "called": names, **document}


def selections_lead(summary: Mapping[str, Any]) -> bool:
    """True for the report of a selection, which begins with it; a study goes from its score to its accuracies."""
    return bool(summary["selections"]) and not summary["runs"] and not summary["evaluation"]


def pictured(names: Sequence[str]) -> list[str]:
    """The selections to show pictures of: all, or of many the first of every kind; NAME~SETTING is of the kind NAME."""
    if len(names) <= PICTURED:
        return list(names)
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(name.partition("~")[0], name)
    return list(first.values())[:PICTURED]


def wishes(facts: Mapping[str, Any]) -> list[str]:
    """Terms, weights and rules of a selection in words."""
    terms = (f"{name}: {_terms(said)}" for name, said in (facts.get("terms") or {}).items() if said)
    weights = ", ".join(f"{name} {factor:g} times" for name, factor in (facts.get("weights") or {}).items())
    asked = facts.get("limits") or {}
    rules = {
        "max_per_label": "at most {} of a label",
        "min_per_label": "at least {} of a label",
        "max_per_group": "at most {} of a group",
    }
    said = [text.format(f"{asked[key]:,}") for key, text in rules.items() if asked.get(key)]
    said += [f"licenses allowed: {', '.join(asked['licenses'])}"] if asked.get("licenses") else []
    said += [f"far part: {percent(asked['far'], 0)} of the images"] if asked.get("far") else []
    said += [f"trained in the order {asked['order']}"] if asked.get("order") else []
    return [*terms, *([f"target images that count more or less: {weights}"] if weights else []), *said]


def own_words(selection: Selection) -> str:
    """That a selection is, but for a tenth at most, the target's own images: why, and what to do; empty if it is not.

    Nothing is said where there was no pool to choose from.
    """
    facts, counts, n = selection.facts, selection.counts(), len(selection)
    candidates = facts.get("candidates") or {}
    pools, own = sum(candidates.values()) - candidates.get(TARGET, 0), counts.get(TARGET, 0)
    if not pools or not own or own < NEARLY_ALL * n:
        return ""
    rest = ", ".join(f"{name} {count:,}" for name, count in counts.items() if name != TARGET)
    head = f"All {n:,} chosen are the target's own training images"
    if own < n:
        head = f"{own:,} of the {n:,} chosen are the target's own training images, the others {rest}"
    elif n == 1:
        head = "The one chosen is the target's own training image"
    knee = (facts.get("supply") or {}).get("knee")
    if facts.get("stopped") and knee and not facts.get("past_knee"):
        adds = f"the pools add {knee['from_pools']:,} near ones" if knee["from_pools"] else "no pool adds a near one"
        return (
            f"{head}: {adds}. Look for pools nearer to the target (`curate score` tells how far each is), go on "
            f"into the far ones with --past-knee, or leave the target's own images out {CAP}."
        )
    more = f"For more images of the pools raise --budget above {counted(max(candidates[TARGET], n), 'image')}, or"
    wish = "To have others instead," if facts.get("stopped") else more
    return f"{head}; the target's own are candidates like the others. {wish} leave them out {CAP}."


def early_words(selection: Selection) -> str:
    """That images of pools that are not near were taken before images of near ones; empty if none was."""
    picks = list(zip(*(selection.table[name].to_pylist() for name in ("code", "source")), strict=True))
    last = max((place for place, (code, source) in enumerate(picks) if code == NEAR and source != TARGET), default=0)
    early = Counter(source for code, source in picks[:last] if code == NEXT)
    if not early:
        return ""
    names = ", ".join(f"{name} {n:,}" for name, n in early.most_common())
    n = early.total()
    return (
        f"{counted(n, 'image')} of pools that are not near ({names}) {one_of(n, 'was', 'were')} taken before images of "
        f"near pools, being much nearer to the target one by one (code {NEXT})."
    )


def how_it_ended(stopped: Mapping[str, Any] | None) -> str:
    """Whether a selection met its budget, or where and why it stopped."""
    if not stopped:
        return "The budget was met."
    at = f" at {number(stopped['at'])}" if "at" in stopped else ""
    return f"Stopped{at}: {stopped['reason'].rstrip('.')}."


def supply_words(selection: Mapping[str, Any]) -> list[str]:
    """How far near images last, but for what is said already of where it stopped."""
    said = (selection["stopped"] or {}).get("reason")
    return [words for words in (selection["supply"] or {}).get("words") or [] if words != said]


def left_out_words(selection: Mapping[str, Any]) -> str:
    """What was left out, by code and source."""
    told = [
        f"{row['reason']} {number(row['n'])} ("
        + ", ".join(f"{name} {number(n)}" for name, n in row["sources"].items())
        + ")"
        for row in selection["left_out"]
    ]
    return f"Left out: {'; '.join(told)}." if told else "Nothing had to be left out."


def share_rows(shares: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups told one by one, then the others of the target and those that it lacks, each with its ``gap``."""
    column, rest, foreign = (shares[name] for name in ("column", "rest", "foreign"))
    rows = [{**row, "group": _short(row["group"])} for row in shares["rows"]]
    rows += [{**rest, "group": f"{counted(rest['groups'], f'more {column}')}"}] if rest else []
    rows += [{**foreign, "group": f"{counted(foreign['groups'], column)} that the target lacks"}] if foreign else []
    return [{**row, "gap": row["selection"] - row["target"], "is_one": "groups" not in row} for row in rows]


def _short(name: str) -> str:
    """A name of at most 60 characters, its middle left out if need be."""
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 20]}…{name[-19:]}"


def share_words(shares: Mapping[str, Any]) -> list[str]:
    """How far the shares are from the target's, and what would bring them nearer."""
    column, without = shares["column"], shares["without"]
    words = [
        f"{percent(shares['apart'])} of the selection would have to be of other {column}s for it to be like the "
        f"target, {percent(shares['pools_apart'])} of what the pools hold; by chance a selection like this one would "
        f"be {percent(shares['chance'])} apart."
    ]
    if without:
        verb = one_of(without, "has", "have")
        words.append(
            f"{counted(without, 'chosen image')} {verb} no {column} and {one_of(without, 'is', 'are')} not counted."
        )
    weights = " ".join(f"--weight {shlex.quote(f'{name}={factor:g}')}" for name, factor in shares["weights"].items())
    ways = [weights if shares["heeded"] or not weights else f"{weights} with a method that heeds weights"]
    ways += [f"max-per-{column}={shares['cap']} in the budget"] if shares["cap"] else []
    if told := " or ".join(filter(None, ways)):
        words.append(f"To bring it nearer: {told}. Look again then, as shares move only as far as the pools go.")
    return words


def _shares(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Shares of labels or groups, unless rows were cut off since they were counted."""
    is_cut = any(facts.get(name) is not None for name in ("truncated", "least_similarity"))
    shares = None if is_cut else facts.get("shares")
    return {**shares, "is_weighted": bool(facts.get("weights"))} if shares else None


def _terms(said: Mapping[str, Any]) -> str:
    words = {"price": "price {}", "license": "license {}", "of": "a sample of {}"}
    told = [text.format(_figure(said[key])) for key, text in words.items() if said.get(key)]
    told += [f"at most {said['cap']:,}" if said["cap"] else "none"] if said.get("cap") is not None else []
    return ", ".join(told + ([f"at least {said['floor']:,}"] if said.get("floor") else []))


def _figure(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _by_source(selection: Selection) -> list[dict[str, Any]]:
    """Images, cost and far images of every source, most images first."""
    table = selection.table
    names, costs = table["source"].to_pylist(), table["cost"].to_pylist()
    cost = dict.fromkeys(names, 0.0)
    for name, money in zip(names, costs, strict=True):
        cost[name] += money or 0.0
    far = Counter(name for name, code in zip(names, table["code"].to_pylist(), strict=True) if code == FAR)
    return [{"name": name, "n": n, "cost": cost[name], "far": far[name]} for name, n in selection.counts().items()]


def _parts(selection: Selection) -> dict[str, int]:
    """Images of the near and of the far part."""
    far = sum(code == FAR for code in selection.table["code"].to_pylist())
    return {"near": len(selection) - far, FAR: far}


def _limits(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What every limit allows, what was used of it, and whether it ended the selection."""
    spent = facts.get("spent") or {}
    return [{"name": LIMITS.get(name, name), **amount} for name, amount in spent.items()]


def _left_out(table: pa.Table) -> list[dict[str, Any]]:
    """How many candidates were left out, by code and by source."""
    counts = Counter(zip(table["code"].to_pylist(), table["source"].to_pylist(), strict=True))
    return [
        {"code": code, "reason": LEFT_OUT.get(code, code), "n": sum(by_source.values()), "sources": by_source}
        for code in _codes(table)
        if (by_source := {source: n for (c, source), n in sorted(counts.items()) if c == code})
    ]


def _codes(left_out: pa.Table) -> list[str]:
    """Codes in the order in which they are told, unknown ones last."""
    return [*LEFT_OUT, *sorted(set(left_out["code"].to_pylist()).difference(LEFT_OUT))]


def _sheets(selection: Selection, album: Album) -> list[dict[str, Any]]:
    """First, middle and last picks; all of them where three sheets would hold them."""
    n = len(selection)
    starts = {"first": 0, "middle": (n - SHEET) // 2, "last": n - SHEET} if n > 3 * SHEET else {"all": 0}
    sheets = []
    for title, start in starts.items():
        rows = selection.rows().slice(start, SHEET if n > 3 * SHEET else n).to_pylist()
        sheets.append({"title": title, "pictures": [_pick(row, selection.sources, album) for row in rows]})
    return sheets


def _pick(row: dict[str, Any], sources: Mapping[str, str], album: Album) -> dict[str, Any]:
    image = album.add(sources.get(row["source"], ""), row["uri"] or "")
    return {**{key: row[key] for key in ("source", "key", "rank", "code", "reason", "target_key")}, "image": image}


def _rejected(selection: Selection, album: Album) -> list[dict[str, Any]]:
    """A dozen of the images that were left out, the codes in turn, each with the one it was left out for."""
    rows = list(_in_turn(selection.left_out))[:SHEET]
    others = [_split_name(row, selection.sources) for row in rows]
    wanted: dict[str, set[str]] = {}
    for source, key in chain(((row["source"], row["key"]) for row in rows), filter(None, others)):
        wanted.setdefault(source, set()).add(key)
    shown = {
        source: album.by_key(selection.sources.get(source, ""), sorted(keys))["pictures"]
        for source, keys in sorted(wanted.items())
    }
    return [
        {
            **{name: row[name] for name in ("source", "key", "code", "reason", "because_of")},
            "image": shown[row["source"]].get(row["key"], ""),
            "other": shown[other[0]].get(other[1], "") if other else "",
        }
        for row, other in zip(rows, others, strict=True)
    ]


def _in_turn(left_out: pa.Table) -> Iterator[dict[str, Any]]:
    """Images that were left out, one code after the other; within a code a random draw, different ones first."""
    drawn = []
    for code in _codes(left_out):
        rows = left_out.filter(pc.equal(left_out["code"], code))
        names = [f"{s}/{k}" for s, k in zip(rows["source"].to_pylist(), rows["key"].to_pylist(), strict=True)]
        order = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())
        first = _different_first(order, rows["because_of"].to_pylist())[:SHEET]
        drawn.append(rows.take(pa.array(first, pa.int64())).to_pylist())
    for turn in zip_longest(*drawn):
        yield from filter(None, turn)


def _different_first(order: Sequence[int], because_of: Sequence[str]) -> list[int]:
    """Rows in an order in which no image that others were left out for comes twice before each has come once."""
    seen: Counter[str] = Counter()
    turns = []
    for row in order:
        turns.append((seen[because_of[row]], row))
        seen[because_of[row]] += 1
    return [row for _, row in sorted(turns, key=lambda turn: turn[0])]


def _split_name(row: Mapping[str, Any], sources: Mapping[str, str]) -> tuple[str, str] | None:
    """Source and key of the image that another was left out for, where its source is at hand."""
    if row["code"] in EXCLUDED or not row["because_of"]:
        return None
    known = [name for name in sources if row["because_of"].startswith(f"{name}/")]
    return (name := max(known, key=len), row["because_of"][len(name) + 1 :]) if known else None


def _gain_per_cost(contender: Mapping[str, Any], encoder: str) -> float | None:
    """Points of the index nearer than random, per unit of money; None where nothing costs or nothing is known."""
    reading = contender["readings"].get(encoder)
    gain = reading and reading["against_random"]
    if not contender["cost"] or not gain or gain["value"] is None:
        return None
    return -float(gain["value"]) / float(contender["cost"])


def comparison_rows(comparison: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The methods that chose something, nearest first."""
    return [contender for contender in comparison["contenders"] if contender["n"]]


def diversity_size(comparison: Mapping[str, Any]) -> int:
    """Images of every method that its diversity was measured on."""
    return max(int(contender["diversity"]["n"][1]) for contender in comparison_rows(comparison))


def mmd_decimals(comparison: Mapping[str, Any]) -> int:
    """Digits for the column of MMDs."""
    found = (c["readings"].get(comparison["encoder"]) for c in comparison["contenders"])
    return decimals_for(reading["mmd"]["se"] for reading in found if reading)


def versus_random(contender: Mapping[str, Any], encoder: str) -> str:
    """How a method stands against random under an encoder, in a word or two."""
    reading = contender["readings"].get(encoder)
    return contender["without_gain"] or (reading and reading["verdict"]) or "not measured"
