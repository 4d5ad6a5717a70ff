"""Explanations of a score in small, made of the types that the explaining packages return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from report_examples import pool_score, shift_report

from curate.attribution._memorized import Memorized, NearCopy
from curate.attribution._results import Factor, Factors, Repair
from curate.attribution._slices import Slice, Slices
from curate.attribution._telling import Pull, Shown, Telling
from curate.distances._usable import Usable
from curate.results import Estimate, ShiftReport
from curate.scoring.second_encoder import second_opinion

NOTHING = Estimate(value=None, reason="nothing to match")


def estimate(value: float, error: float = 1.0, **rest: Any) -> Estimate:
    return Estimate(value=value, low=value - error, high=value + error, se=error / 2, **rest)


def factor(name: str, index: float, fall: float, *, step: str = "", fact: str = "a fact", n: int = 250) -> Factor:
    """A step that was tried; without ``step`` one that was not needed."""
    if not step:
        nothing = dict.fromkeys(("after", "index", "fall", "repaired"), NOTHING)
        return Factor(name=name, step="", side="", fact=fact, differs=False, **nothing)
    at = estimate(index, n=(n, 250))
    return Factor(
        name=name, step=step, side="both", fact=fact, after=at, index=at, fall=estimate(fall), repaired=estimate(0.2)
    )


def factors(*tried: Factor, best: Repair | None = None, content: float = 31.0, before: float = 31.0) -> dict[str, Any]:
    """The finding as ``score`` keeps it."""
    found = Factors(
        n=(250, 250),
        left_out=(0, 3),
        before=estimate(200.0),
        index=estimate(before, n=(250, 250)),
        factors=tried,
        best=best,
        content=estimate(content),
    )
    return {**found.to_json(), "repairs": False, "step": ", then ".join(best.steps if best else ())}


def gray_factors(fact: str = "chroma 58 in the target, 0 in the pool") -> dict[str, Any]:
    """Gray repairs a part, padding does harm, a turn nothing, compression is not needed."""
    step = "convert both to gray"
    best = Repair(names=("gray",), steps=(step,), after=estimate(150.0), repaired=estimate(0.19, 0.04), explains=False)
    return factors(
        factor("gray", 26.0, 8.0, step=step, fact=fact),
        factor("orientation", 31.2, -0.2, step="turn the pool by 90 degrees", n=118),
        factor("compression", 0.0, 0.0, fact="JPEG quality high in the target, high in the pool"),
        factor("aspect", 33.0, -4.0, step="pad both to squares"),
        best=best,
        content=26.4,
    )


def target_slice(name: str, share: float, verdict: str, examples: Sequence[str], pools: Sequence[str]) -> Slice:
    covered = replace(estimate(share, 0.1), null=0.94)
    return Slice(
        name=name,
        n=80,
        verdict=verdict,
        coverage=dict.fromkeys(pools, covered),
        union=replace(covered, null=0.99),
        best=pools[0],
        examples=tuple(examples),
    )


def slices(*found: Slice, notes: Sequence[str] = ()) -> dict[str, Any]:
    return Slices(by="label", k=5, slices=found, notes=tuple(notes)).to_json()


def telling(target: Sequence[str], pool: Sequence[str], *, p: float = 0.002, label: str = "cat") -> dict[str, Any]:
    """Images of both sides by key, and two labels that pull."""
    shown = [tuple(Shown(key=k, label=label, score=3.0, influence=0.1) for k in keys) for keys in (target, pool)]
    pulls = tuple(Pull(name=f"{label}{i}", n=20, influence=estimate(6.0 - i)) for i in range(8))
    return Telling(
        auc=estimate(0.9, 0.05),
        p=p,
        target_unlike=shown[0],
        pool_unlike=shown[1],
        pool_like=shown[1][::-1],
        pulling=shown[1],
        by="label",
        pulls=pulls,
    ).to_json()


def memorized(pairs: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """Near copies as pairs (pool, target); suspicious if there are any."""
    return Memorized(
        suspicious=bool(pairs),
        near=Estimate(value=0.25, low=0.2, high=0.31, null=0.039),
        near_null_high=0.056,
        share=Estimate(value=0.42, null=0.32),
        exact=Estimate(value=0.0),
        spacing=20.0,
        count=len(pairs),
        seen_by_hash=len(pairs),
        pairs=tuple(NearCopy(pool=p, target=t, distance=5.0, ratio=0.26, bits=2) for p, t in pairs),
    ).to_json()


def delivery(*notes: str) -> dict[str, Any]:
    return Usable(
        share=replace(estimate(0.72, 0.04), null=0.81),
        images=estimate(7180.0, 400.0),
        distinct=estimate(9500.0, 500.0),
        size=10_000,
        notes=notes,
    ).to_json()


def diversity(*names: str) -> dict[str, Any]:
    counts = {"images": 500, "unique": 498, "unique_near": 475, "effective_rank": 100.6}
    return {"at": 450, "sets": [{"name": n, **counts, "vendi": estimate(36.5, 3.0).to_json()} for n in names]}


def judged(report: ShiftReport, indices: dict[str, float]) -> dict[str, Any]:
    """What a second encoder that reads these indices says."""
    ranked = sorted(indices, key=lambda name: indices[name])
    pools = [pool_score(name, indices[name], rank=rank) for rank, name in enumerate(ranked, 1)]
    second = replace(shift_report(pools), encoder={"name": "color-texture"})
    return second_opinion(report, second)


def explained_report(keys: Sequence[str], source: str) -> ShiftReport:
    """Two pools with every explanation there is, their images being those of one source."""
    names = ("web", "open")
    of_pools = {
        "factors": gray_factors(),
        "images": telling(keys[:9], keys[5:14]),
        "memorized": memorized([(keys[0], keys[1])]),
        "delivery": delivery("Ask how many there are."),
    }
    pools = [
        pool_score(name, index, rank=rank, source=source, findings=of_pools)
        for rank, (name, index) in enumerate(zip(names, (8.0, 41.0), strict=True), 1)
    ]
    extra = {"mean_gap": Estimate(value=47.6, null=0.0), "auc": estimate(0.98, 0.01, null=0.5)}
    pools = [replace(pool, metrics={**pool.metrics, **extra}) for pool in pools]
    report = shift_report(pools, source=source)
    found = {
        "slices": slices(
            target_slice("Flags", 0.1, "unserved", keys[:3], names), target_slice("Objects", 0.9, "served", [], names)
        ),
        "diversity": diversity("target", *names, "all pools"),
        "judge": judged(report, {"web": 50.0, "open": 10.0}),
    }
    return replace(report, findings=found)


def unexplained_report(reason: str) -> ShiftReport:
    """Every explanation was asked for, and none could be had."""
    nothing = {"reason": reason}
    missing = {"auc": Estimate(value=None, reason=reason)}
    pool = pool_score(
        "web", 8.0, rank=1, findings=dict.fromkeys(("factors", "images", "memorized", "delivery"), nothing)
    )
    pool = replace(pool, metrics={**pool.metrics, **missing})
    return replace(shift_report([pool]), findings=dict.fromkeys(("slices", "diversity", "judge"), nothing))
