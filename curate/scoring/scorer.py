"""score(target, pools): how far every pool is from the target, with error bars, nulls, a verdict and what to do.

Adding a pool, or asking for further measures, changes no figure that was there before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from curate.attribution import far_part
from curate.distances._frechet import refit_frechet, require_images
from curate.distances._refits import Refits, order_probability
from curate.results import TARGET, Estimate, PoolScore, ShiftReport, check_pool_names
from curate.scoring.disagreement import disagreements, remarks
from curate.scoring.explanations import DELIVERY, OF_ALL, OF_POOLS, Explainer, Means, explain_all, with_repairs
from curate.scoring.kept import Kept
from curate.scoring.measures import DEFAULT, MEASURES
from curate.scoring.profile import profile
from curate.scoring.ranking import ranked
from curate.scoring.second_encoder import second_opinion, under
from curate.scoring.sides import Embedding, Side, Target, open_side
from curate.scoring.verdicts import MIDDLE, action, shift_index, verdict_of
from embeddings.errors import UnknownNameError, UsageError
from embeddings.pipeline import Embeddable
from embeddings.progress import Progress, silent


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
        also: Further measures (``scoring.measures.MEASURES``) and explanations (``scoring.explanations``) by name, or
            ``all``.
        pool_size: The pools are samples of deliveries of this many images; says how many of those would be usable.
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
    wanted = Wanted.of([also] if isinstance(also, str) else also, pool_size)
    work, progress = embedding.setdefault("work", Path(".curate")), embedding.get("progress", silent)
    ours = open_side(target, TARGET, encoder, **embedding)
    sides = [open_side(pool, name, encoder, **embedding) for name, pool in sorted((pools or {}).items())]
    means = Means(
        encoder=encoder,
        device=embedding.get("device", "auto"),
        workers=embedding.get("workers"),
        progress=progress,
        pool_size=pool_size,
    )
    scorer = Scorer(ours, wanted, means, None if work is None else Path(work))
    theirs = [under(side, judge, **embedding) for side in (ours, *sides)] if judge and sides else []
    report = scorer.report(sides, progress)
    if judge is None or not theirs:
        return report
    target_seen, *pools_seen = (judged.side for judged in theirs)
    second = Scorer(target_seen, Wanted(), replace(means, encoder=judge), scorer.work).report(pools_seen, progress)
    gone = {judged.side.name: judged.gone for judged in theirs}
    return replace(report, findings={**report.findings, "judge": second_opinion(report, second, gone=gone)})


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
    settings["also"] = tuple(settings.get("also", ()))
    embedding = {key: settings[key] for key in Embedding.__annotations__ if key in settings}
    encoder = settings.get("encoder", "lite0")

    def opened(things: Mapping[str, Embeddable]) -> dict[str, Embeddable]:
        """Stores, so that a missing source is found before anything is measured, and none is opened twice."""
        sides = {name: open_side(thing, name, encoder, **embedding) for name, thing in things.items()}
        return {name: things[name] if side.store is None else side.store for name, side in sides.items()}

    if len(targets) > 1:
        targets, pools = opened(targets), opened(pools or {})
    return {name: score(target, pools, **settings) for name, target in targets.items()}


@dataclass(frozen=True)
class Wanted:
    """What is to be measured and explained."""

    measures: tuple[str, ...] = DEFAULT
    of_pools: tuple[str, ...] = ()
    of_all: tuple[str, ...] = ()
    pool_size: int | None = None

    @classmethod
    def of(cls, also: Iterable[str], pool_size: int | None) -> Wanted:
        """The default measures and those asked for: names, lists ``a,b``, or ``all``.

        Raises:
            UnknownNameError: no such measure; names the nearest.
            UsageError: a delivery of less than one image.
        """
        extra = [name for name in MEASURES if name not in DEFAULT]
        known = [*OF_POOLS, *OF_ALL, *extra]
        asked = [name.strip() for names in also for name in names.split(",") if name.strip()]
        for name in asked:
            if name not in (*known, "all"):
                raise UnknownNameError("measure", name, [*known, "all"])
        if pool_size is not None and pool_size < 1:
            raise UsageError(f"A delivery of {pool_size} images; wanted at least 1.", hint="Mend --pool-size.")
        kept = set(known if "all" in asked else asked)
        return cls(
            (*DEFAULT, *(name for name in extra if name in kept)),
            tuple(name for name in OF_POOLS if name in kept) + (DELIVERY,) * (pool_size is not None),
            tuple(name for name in OF_ALL if name in kept),
            pool_size,
        )


class Scorer:
    """Scores pools against one target."""

    def __init__(self, target: Side, wanted: Wanted, means: Means, work: Path | None) -> None:
        self.work = work
        self._target, self._wanted = Target(target), wanted
        self._explainer = Explainer(self._target, means)
        self._refits: dict[str, Refits] = {}  # by pool

    def report(self, sides: Sequence[Side], progress: Progress) -> ShiftReport:
        """The report on some pools.

        Raises:
            As ``score``.
        """
        ours = self._target.side
        _require_comparable(ours, sides)
        scored = []
        for done, side in enumerate(sides):
            progress("measure", done, len(sides), side.name)
            scored.append(self._score(side))
        if sides:
            progress("measure", len(sides), len(sides))
        order = with_repairs(ranked(scored, lambda a, b: order_probability(self._refits[a], self._refits[b])))
        return ShiftReport(
            target=profile(ours.facts(), ours.moments),
            encoder=asdict(ours.spec),
            pools=order,
            floor=self._target.floor,
            notes=tuple(disagreements(order)),
            findings={name: explain_all(name, self._target, sides) for name in self._wanted.of_all if sides},
        )

    def _score(self, pool: Side) -> PoolScore:
        target, kept = self._target, Kept(self.work, self._target.side.digest, pool.digest)
        refits = kept.get("refits", lambda: refit_frechet(target.frame, pool.moments).to_json())
        self._refits[pool.name] = Refits.from_json(refits)
        metrics = {"frechet": self._refits[pool.name].estimate()} | self._metrics(pool, kept)
        findings = {"parts": self._parts(pool, kept)} | {
            n: kept.get(self._kept_as(n), partial(self._explainer.explain, n, pool)) for n in self._wanted.of_pools
        }
        index = shift_index(metrics["frechet"], target.frame.total_variance)
        floor = shift_index(target.floor, target.frame.total_variance)
        verdict = verdict_of(index, floor, metrics["copies"].value or 0.0)
        scored = PoolScore(
            name=pool.name,
            rank=0,
            verdict=verdict,
            action=action(verdict, index, metrics["coverage"], findings),
            n=len(pool),
            index=index,
            metrics=metrics,
            facts=pool.facts(),
            findings=findings,
        )
        return replace(scored, notes=tuple(remarks(scored)))

    def _parts(self, pool: Side, kept: Kept) -> dict[str, Any]:
        """The pool's far part and the rest; it is kept also where there is no such part."""
        ours, theirs = self._target.store, pool.store
        if ours is None or theirs is None:
            return {"reason": f"needs vectors; {pool.name if theirs is None else 'the target'} is a file of moments"}

        def find() -> dict[str, Any]:
            return {"found": far_part(ours, theirs, self._target.frame, pool.folds(), limit=MIDDLE).to_json()}

        found: dict[str, Any] = kept.get("parts", find)["found"]
        return found

    def _kept_as(self, name: str) -> str:
        return f"{name} of {self._wanted.pool_size}" if name == DELIVERY else name

    def _metrics(self, pool: Side, kept: Kept) -> dict[str, Estimate]:
        """Figures of the measures wanted, by name."""

        def take(name: str) -> dict[str, Any]:
            return {figure: e.to_json() for figure, e in MEASURES[name].take(self._target, pool).items()}

        entries = [kept.get(name, partial(take, name)) for name in self._wanted.measures]
        return {figure: Estimate.from_json(e) for entry in entries for figure, e in entry.items()}


def _require_comparable(target: Side, sides: Sequence[Side]) -> None:
    """Refuses pools of another encoder, and sets too small to be measured, before anything is."""
    if sides:
        require_images(len(target), TARGET)
    for side in sides:
        target.spec.require_same(side.spec, (TARGET, side.name))
        require_images(len(side), f"pool {side.name!r}")
