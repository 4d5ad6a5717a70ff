"""score(target, pools): how far every pool is from the target, with error bars, nulls, a verdict and what to do.

Adding a pool, or asking for further measures, changes no figure that was there before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from curate.distances._frechet import require_images
from curate.results import TARGET, Estimate, PoolScore, ShiftReport, check_pool_names
from curate.scoring.disagreement import disagreements, remarks
from curate.scoring.measures import DEFAULT, chosen, measure
from curate.scoring.profile import profile
from curate.scoring.ranking import ranked
from curate.scoring.sides import Side, Target, open_side
from curate.scoring.verdicts import action, judge, shift_index
from embeddings import files
from embeddings.errors import UsageError
from embeddings.pipeline import Embeddable
from embeddings.progress import Progress, silent

METRICS_VERSION = "curate.metrics/2"  # part of every kept score; raise it when a figure changes


def score(
    target: Embeddable,
    pools: Mapping[str, Embeddable] | None = None,
    *,
    also: Iterable[str] = (),
    encoder: str = "lite0",
    work: Path | str | None = Path(".curate"),
    device: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
) -> ShiftReport:
    """Ranks pools by their distance to a target; without a pool, profiles the target.

    Args:
        target: Store, store folder, source address, array [n, d], or a file that ``curate moments`` wrote.
        pools: Name -> the same kinds, from the same encoder.
        also: Further measures by name (``scoring.measures.MEASURES``), or ``all``.
        encoder: What embeds addresses.
        work: Where embeddings and scores are kept and reused; None keeps nothing.
        device: Where to embed: auto, cpu, cuda.
        workers: Threads that read and decode images.
        progress: Told how far the work is.

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
    folder = None if work is None else Path(work)
    embedding: dict[str, Any] = {
        "encoder": encoder,
        "work": folder,
        "device": device,
        "workers": workers,
        "progress": progress,
    }
    ours = Target(open_side(target, TARGET, **embedding))
    sides = [open_side(pool, name, **embedding) for name, pool in sorted((pools or {}).items())]
    _require_comparable(ours, sides)
    scored = []
    for done, side in enumerate(sides):
        progress("measure", done, len(sides), side.name)
        scored.append(_score_pool(side, ours, _kept_metrics(side, ours, names, folder)))
    if sides:
        progress("measure", len(sides), len(sides))
    order = ranked(scored)
    return ShiftReport(
        target=profile(ours.side.facts(), ours.moments),
        encoder=asdict(ours.side.spec),
        pools=order,
        floor=ours.floor,
        notes=tuple(disagreements(order)),
    )


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


def _require_comparable(target: Target, sides: list[Side]) -> None:
    """Refuses pools of another encoder, and sets too small to be measured, before anything is."""
    if sides:
        require_images(len(target.side), TARGET)
    for side in sides:
        target.side.spec.require_same(side.spec, (TARGET, side.name))
        require_images(len(side), f"pool {side.name!r}")


def _score_pool(pool: Side, target: Target, metrics: dict[str, Estimate]) -> PoolScore:
    index = shift_index(metrics["frechet"], target.frame.total_variance)
    floor = shift_index(target.floor, target.frame.total_variance)
    verdict = judge(index, floor, metrics["copies"].value or 0.0)
    scored = PoolScore(
        name=pool.name,
        rank=0,
        verdict=verdict,
        action=action(verdict, metrics, {}),
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
