"""score(target, pools): how far every pool is from the target, with error bars, nulls, a verdict and what to do.

Adding a pool, or asking for further measures, changes no figure that was there before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Unpack

from curate.distances._frechet import require_images
from curate.results import TARGET, Estimate, PoolScore, ShiftReport, check_pool_names
from curate.scoring.disagreement import disagreements, remarks
from curate.scoring.measures import DEFAULT, chosen, measure
from curate.scoring.profile import profile
from curate.scoring.ranking import ranked
from curate.scoring.second_encoder import second_opinion, under
from curate.scoring.sides import Embedding, Side, Target, open_side
from curate.scoring.verdicts import action, shift_index, verdict_of
from embeddings import files
from embeddings.errors import UsageError
from embeddings.pipeline import Embeddable
from embeddings.progress import Progress, silent

METRICS_VERSION = "curate.metrics/2"  # part of every kept score; raise it when a figure changes


def score(
    target: Embeddable,
    pools: Mapping[str, Embeddable] | None = None,
    *,
    encoder: str = "lite0",
    judge: str | None = None,
    also: Iterable[str] = (),
    pool_size: int | None = None,
    **embedding: Unpack[Embedding],
) -> ShiftReport:
    """Ranks pools by their distance to a target; without a pool, profiles the target.

    Args:
        target: Store, store folder, source address, array [n, d], or a file that ``curate moments`` wrote.
        pools: Name -> the same kinds, from the same encoder.
        encoder: What embeds addresses.
        judge: A second encoder, under which the score is repeated; the report says how far the two orders agree.
        also: Further measures by name (``scoring.measures.MEASURES``), or ``all``.
        embedding: ``work`` (folder where embeddings and scores are kept and reused, .curate by default; None keeps
            nothing), ``device``, ``workers`` and ``progress``.

    Returns:
        ShiftReport, nearest pool first. Adding a pool changes no other pool's figures.

    Raises:
        TooFewImagesError: target or pool under 20 images, or too few independent groups.
        EncoderMismatchError: a store from another encoder.
        SourceError: a source that is missing or empty.
        UnknownNameError: a measure that does not exist.
    """
    check_pool_names(pools or {})
    names = (*DEFAULT, *chosen(also, ()))
    work, progress = embedding.setdefault("work", Path(".curate")), embedding.get("progress", silent)
    folder = None if work is None else Path(work)
    ours = open_side(target, TARGET, encoder, **embedding)
    sides = [open_side(pool, name, encoder, **embedding) for name, pool in sorted((pools or {}).items())]
    report = _report(ours, sides, names, folder, progress)
    if judge is None or not sides:
        return report
    theirs = [under(side, judge, **embedding) for side in (ours, *sides)]
    second = _report(theirs[0], theirs[1:], DEFAULT, folder, progress)
    return replace(report, findings={**report.findings, "judge": second_opinion(report, second)})


def score_each(
    targets: Mapping[str, Embeddable], pools: Mapping[str, Embeddable] | None = None, **settings: Any
) -> dict[str, ShiftReport]:
    """``score`` of several targets against the same pools.

    Args:
        targets: Name -> what ``score`` takes.
        pools: As ``score``.
        settings: As ``score``.

    Raises:
        UsageError: no target; and as ``score``.
    """
    if not targets:
        raise UsageError("No target was given.", hint="Give at least one.")
    return {name: score(target, pools, **settings) for name, target in targets.items()}


def _report(
    ours: Side, sides: Sequence[Side], names: tuple[str, ...], work: Path | None, progress: Progress
) -> ShiftReport:
    """The report of opened sets."""
    _require_comparable(ours, sides)
    target, scored = Target(ours), []
    for done, side in enumerate(sides):
        progress("measure", done, len(sides), side.name)
        scored.append(_score_pool(side, target, _kept_metrics(side, target, names, work)))
    if sides:
        progress("measure", len(sides), len(sides))
    order = ranked(scored)
    return ShiftReport(
        target=profile(ours.facts(), ours.moments),
        encoder=asdict(ours.spec),
        pools=order,
        floor=target.floor,
        notes=tuple(disagreements(order)),
    )


def _require_comparable(target: Side, sides: Sequence[Side]) -> None:
    """Refuses pools of another encoder, and sets too small to be measured, before anything is."""
    if sides:
        require_images(len(target), TARGET)
    for side in sides:
        target.spec.require_same(side.spec, (TARGET, side.name))
        require_images(len(side), f"pool {side.name!r}")


def _score_pool(pool: Side, target: Target, metrics: dict[str, Estimate]) -> PoolScore:
    index = shift_index(metrics["frechet"], target.frame.total_variance)
    floor = shift_index(target.floor, target.frame.total_variance)
    verdict = verdict_of(index, floor, metrics["copies"].value or 0.0)
    scored = PoolScore(
        name=pool.name,
        rank=0,
        verdict=verdict,
        action=action(verdict, index, metrics.get("coverage"), {}),
        n=len(pool),
        index=index,
        metrics=metrics,
        facts=pool.facts(),
    )
    return replace(scored, notes=tuple(remarks(scored)))


def _kept_metrics(pool: Side, target: Target, names: tuple[str, ...], work: Path | None) -> dict[str, Estimate]:
    """The pool's metrics, read from ``work`` as far as this very pair was measured before."""
    if work is None:
        return measure(target, pool, names)
    key = [METRICS_VERSION, target.side.digest, pool.digest, names]
    path = work / "scores" / f"{files.digest(key)[:32]}.json"
    if path.exists():
        return {name: Estimate.from_json(e) for name, e in files.read_json(path)["metrics"].items()}
    metrics = measure(target, pool, names)
    files.write_json(path, {"schema": METRICS_VERSION, "metrics": {k: e.to_json() for k, e in metrics.items()}})
    return metrics
