"""What the results of ``curate.results`` show of themselves, as cards: text in a terminal, a table in a notebook."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curate.numerals import number, within
from embeddings.cards import Card

if TYPE_CHECKING:
    from curate.results import Estimate, PoolScore, Run, Selection, ShiftReport

SOURCES = 4  # that a line names


def estimate_words(estimate: Estimate, *, decimals: int | None = None, plus: bool = False) -> str:
    """The figure with its interval, or why there is none; without ``decimals``, four digits."""
    if estimate.value is None:
        return estimate.reason or "n/a"
    digits = _digits(estimate.value) if decimals is None else decimals
    return within(estimate.value, estimate.low, estimate.high, digits, plus=plus)


def estimate_card(estimate: Estimate) -> Card:
    """Of a figure."""
    has_interval = estimate.value is not None and None not in (estimate.low, estimate.high)
    rows = [
        ("interval", f"{estimate.level:.0%}" if has_interval else "none"),
        ("unit", estimate.unit),
        ("if nothing differed", _plain(estimate.null)),
        ("from", f"{estimate.n[0]:,} and {estimate.n[1]:,} images" if any(estimate.n) else ""),
        ("method", estimate.method),
        ("note", estimate.reason if estimate.value is not None else ""),
    ]
    return Card(
        title=estimate_words(estimate), rows=[row for row in rows if row[1]], then=".value .low .high .se .null"
    )


def report_card(report: ShiftReport) -> Card:
    """Of a score."""
    many = f"{len(report.pools)} pool{'s' * (len(report.pools) != 1)}"
    n, encoder = report.target.get("n"), report.encoder.get("name", "an unknown encoder")
    target = "an unknown target" if n is None else f"{n:,} target image{'s' * (n != 1)}"
    rows = [
        (
            pool.name,
            estimate_words(pool.index, decimals=1),
            pool.verdict,
            pool.action,
            probability_words(pool.before_next),
            f"{pool.n:,}",
        )
        for pool in report.pools
    ]
    first = f"report[{report.pools[0].name!r}]; " if report.pools else ""
    return Card(
        title=f"ShiftReport({many} against {target}, {encoder})",
        columns=("pool", "index", "verdict", "do", "before next", "n"),
        rows=rows,
        then=f"{first}curate.select(target, pools, budget=N)" if first else 'curate.score(target, {"name": pool})',
    )


def pool_card(pool: PoolScore) -> Card:
    """Of one pool of a score."""
    rank = [f"rank {pool.rank}"] + [f"order open with {', '.join(pool.tied_with)}"] * bool(pool.tied_with)
    before = probability_words(pool.before_next)
    does = f"; do: {pool.action}" if pool.action else ""
    place = "; ".join(rank + [f"before the next with probability {before}"] * bool(before))
    return Card(
        title=f"{pool.name}: index {estimate_words(pool.index, decimals=1)}, {pool.verdict}{does}",
        notes=[place, *pool.notes],
        columns=("measure", "value", "if nothing differed"),
        rows=[(name, estimate_words(found), _plain(found.null)) for name, found in pool.metrics.items()],
        then='.metrics["frechet"] .notes .findings .facts',
    )


def probability_words(probability: float | None) -> str:
    """A probability in per cent, never a certainty; "" where there is none."""
    if probability is None:
        return ""
    return "> 99%" if probability > 0.99 else "< 1%" if probability < 0.01 else f"{probability:.0%}"


def selection_card(selection: Selection) -> Card:
    """Of a selection."""
    facts, counts, n = selection.facts, selection.counts(), len(selection)
    candidates = facts.get("candidates") or {}
    names = [*counts, *(name for name, count in candidates.items() if count and name not in counts)]
    rows = [
        (name, f"{counts.get(name, 0):,}", f"{counts.get(name, 0) / max(n, 1):.0%}", _count(candidates.get(name)))
        for name in names
    ]
    return Card(
        title=f"Selection({n:,} images by {facts.get('method')}{': ' * bool(counts)}{_listed(counts)})",
        notes=_selection_notes(selection),
        columns=("source", "images", "share", "candidates"),
        rows=rows,
        then=".rows() .explain(key) .truncate(n) .to_paths(); curate.pretrain(selection, samples=C, out=FOLDER)",
    )


def run_card(run: Run, *, drawn: bool = False) -> Card:
    """Of a run; drawn, with the curve of its loss."""
    facts, config = run.facts, run.facts["config"]
    n, samples, health = facts["unique_images"], facts["samples_seen"], facts["health"]
    begun = " from ".join(filter(None, [facts.get("backbone"), config.get("init")]))
    rows = [
        ("health", ": ".join(filter(None, [health["verdict"], health.get("detail")]))),
        ("to do", health.get("remedy") or ""),
        ("seen", f"each image {samples / max(n, 1):.1f} times (E = C / N)"),
        ("folder", str(run.path)),
    ]
    named = f"{config['method']}{f', {begun}' if begun else ''}"
    return Card(
        title=f"Run({named}, N={n:,}, C={samples:,}, {health['verdict']})",
        rows=[row for row in rows if row[1]],
        then='.curves() .facts .path; curate.evaluate({"name": run}, {"task": labeled})',
        picture=_loss_chart(run) if drawn else "",
    )


def _selection_notes(selection: Selection) -> list[str]:
    """What ended it, what was spent, what had to be left out; of a part of a selection only that it is one."""
    facts = selection.facts
    if "truncated" in facts or "least_similarity" in facts:
        return [f"a part of a longer selection: {facts['method']} had chosen {sum(facts.get('chosen', {}).values()):,}"]
    stopped, dropped = facts.get("stopped"), facts.get("dropped") or {}
    spent = [f"{name} {limit['used']:,.10g} of {limit['most']:,.10g}" for name, limit in facts.get("spent", {}).items()]
    lost = [f"{count:,} {code}" for code, count in dropped.items() if count]
    return [
        *([f"stopped at {stopped['at']:,}: {stopped['reason']}"] if stopped else []),
        *([f"spent: {', '.join(spent)}"] if spent else []),
        *([f"left out: {', '.join(lost)}"] if lost else []),
    ]


def _listed(counts: dict[str, int]) -> str:
    """The largest sources."""
    rest = [f"{len(counts) - SOURCES} more"] if len(counts) > SOURCES else []
    return ", ".join([f"{name} {count:,}" for name, count in [*counts.items()][:SOURCES]] + rest)


def _count(n: int | None) -> str:
    return "" if n is None else f"{n:,}"


def _plain(value: float | None) -> str:
    return "" if value is None else number(value, _digits(value))


def _digits(value: float) -> int:
    """Decimals that show four digits."""
    return min(6, max(0, 3 - math.floor(math.log10(abs(value))))) if value and math.isfinite(value) else 0


def _loss_chart(run: Run) -> str:
    """An SVG of the loss against samples seen over its chance value (dashed); "" of curves gone or damaged."""
    try:
        return _loss_drawn(run.curves())
    except (OSError, ArithmeticError, KeyError, TypeError, ValueError):
        return ""


def _loss_drawn(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same of rows of the curves; without the dashed line where chance is not known."""
    points = [(row["samples_seen"], row["loss"]) for row in rows]
    points = [point for point in points if all(map(math.isfinite, point))]
    if len(points) < 2:
        return ""
    said = rows[-1].get("chance_loss")
    chance = [said] if said is not None and math.isfinite(said) else []
    heights = [*chance, *(loss for _, loss in points)]
    low, span = min(heights), (max(heights) - min(heights)) or 1.0
    path = " ".join(f"{300 * seen / points[-1][0]:.1f},{55 - 50 * (loss - low) / span:.1f}" for seen, loss in points)
    dashed = [f'<path d="M0 {55 - 50 * (at - low) / span:.1f}H300" stroke-dasharray="4"/>' for at in chance]
    words = [f"loss {number(points[0][1], 3)} to {number(points[-1][1], 3)}"]
    words += [f"dashed: chance, {number(at, 3)}" for at in chance]
    return (
        '<svg viewBox="0 0 300 60" width="300" height="60" fill="none" stroke="currentColor">'
        f'{"".join(dashed)}<polyline points="{path}"/></svg><div>{"; ".join(words)}</div>'
    )
