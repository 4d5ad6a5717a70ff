"""Are the headline distance's intervals what they say? Measured on draws of real embeddings, and how its index drifts.

    OMP_NUM_THREADS=1 python benchmarks/calibration.py DATA [--work DIR] [--quick] [--out FILE]
    OMP_NUM_THREADS=1 python benchmarks/calibration.py DATA --sizes 100x100 --targets fashion-train --draws 400

The second form measures chosen null and shifted cells with many draws, and nothing else, into a file of their own.

DATA holds emoji-google, emoji-twitter, fashion-train, mnist and clipart as .parquet files, which are embedded once
below --work, or as stores. What is measured is the package's own ``refit_frechet``; only the moments are taken from a
draw's vectors without a [d, d] matrix per fold. Every draw has folds of its own, as hashed keys would give.

- null: target and pool are disjoint draws of one set. The truth is 0.
- shifted: they are of two sets. The truth is the mean over the draws of that size; what it does across sizes is the
  drift, which the index table reports. Small sets are drawn from without replacement: there true spreads are smaller.
- order: the stated probability that one half of a pool is nearer than the other half.
- sorted: a pool of files class/name, read in that order. Folds go by key; blocks of rows in a row would not do.
- groups: all rows of a concept are drawn together, and share a fold.
- index: 100 F / (F + tr S) as the target or the pool grows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from measured import machine
from scipy import stats

from curate.distances._frechet import TargetFrame, refit_frechet
from curate.distances._refits import Refits, order_probability
from embeddings.moments import FOLDS, Moments, fold_of
from embeddings.pipeline import as_store
from embeddings.store import EmbeddingStore

RESULT = Path(__file__).parent / "results" / "calibration-cpu.json"
CELLS = RESULT.with_name("calibration-cells-cpu.json")
SIZES = {(100, 100): 100, (250, 250): 100, (500, 500): 40, (250, 1000): 40, (1000, 250): 20, (1000, 1000): 20}
ONE_SIZE = 40  # draws of the sorted folder, and of groups
PAIRS = {
    "fashion-train": ("fashion-train", "mnist", "clipart"),
    "emoji-google": ("emoji-google", "emoji-twitter"),
    "mnist": ("mnist",),
}
ORDERED = {"fashion-train": "mnist", "emoji-google": "emoji-twitter"}
ORDER_SIZES = (100, 250)
GROWTH = {100: 20, 300: 10, 1_000: 4, 10_000: 1, 50_000: 1}
PARTNER = 1_000  # images on the side that does not grow


@dataclass(frozen=True)
class Images:
    """Embeddings of a set, with what may not be torn apart."""

    vectors: np.ndarray  # [n, d] float32
    groups: np.ndarray  # [n] int64, the same for the same group of any set
    labels: np.ndarray  # [n]

    def draw(self, n: int, rng: np.random.Generator, without: np.ndarray | None = None) -> np.ndarray:
        """Row numbers of n images of different groups, none of them among some groups."""
        rows = rng.permutation(len(self.vectors))
        if without is not None:
            rows = rows[~np.isin(self.groups[rows], without)]
        _, first = np.unique(self.groups[rows], return_index=True)
        return rows[np.sort(first)][:n]

    def draw_groups(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Rows of n groups, and of n others."""
        chosen = rng.permutation(np.unique(self.groups))
        return np.flatnonzero(np.isin(self.groups, chosen[:n])), np.flatnonzero(np.isin(self.groups, chosen[n : 2 * n]))


class DrawnMoments(Moments):
    """Moments that keep the vectors by fold: the same figures, without a [d, d] matrix for each of the folds."""

    parts: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, vectors: np.ndarray, folds: np.ndarray) -> DrawnMoments:
        """Of vectors [n, d] in float64 and their folds [n]."""
        parts = tuple(vectors[folds == fold] for fold in range(FOLDS))
        mean = np.stack([part.mean(axis=0) if len(part) else np.zeros(vectors.shape[1]) for part in parts])
        n = np.array([len(part) for part in parts])
        moments = cls(n=n, mean=mean, scatter=np.zeros((FOLDS, 0)), encoder="")
        object.__setattr__(moments, "parts", tuple(part - m for part, m in zip(parts, mean, strict=True)))
        return moments

    def pooled(self, folds: Any = range(FOLDS)) -> tuple[int, np.ndarray, np.ndarray]:
        """As of any moments."""
        rows = np.concatenate([self.parts[fold] + self.mean[fold] for fold in folds])
        centered = rows - rows.mean(axis=0)
        return len(rows), rows.mean(axis=0), centered.T @ centered / (len(rows) - 1)

    def projected_scatter(self, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As of any moments."""
        inside = [part @ basis for part in self.parts]
        return np.stack([z.T @ z for z in inside]), np.array([float((part**2).sum()) for part in self.parts])


class Sets:
    """The sets by name, opened when they are asked for."""

    def __init__(self, data: Path, work: Path) -> None:
        self.data, self.work = data, work
        self.open = cache(self._open)

    def _open(self, name: str, where: str = "") -> Images:
        folder = self.data / name
        address = str(folder) if folder.is_dir() else f"{folder}.parquet"
        roles = [role for role in (where, "group:concept") if role]
        store = as_store(f"{address}#{','.join(roles)}", name=name, work=self.work)
        codes = np.array([hash(group) for group in store.column("group")])
        return Images(np.asarray(store.vectors()[:], np.float32), codes, np.array(store.column("label")))


def rotated(*samples: np.ndarray) -> list[np.ndarray]:
    """Samples [n, d] in coordinates of their common span, in float64: all distances and angles are kept."""
    together = np.concatenate(samples).astype(np.float64)
    together -= together.mean(axis=0)
    if len(together) < together.shape[1]:
        together = np.linalg.qr(together.T)[1].T
    return np.split(together, np.cumsum([len(sample) for sample in samples])[:-1])


def measure(target: np.ndarray, pools: list[np.ndarray], rng: np.random.Generator) -> list[Refits]:
    """Refits of some pools against one target, all with folds drawn at random."""
    vectors = rotated(target, *pools)
    ours, *theirs = (DrawnMoments.of(v, rng.integers(0, FOLDS, len(v))) for v in vectors)
    frame = TargetFrame.of(ours)
    return [refit_frechet(frame, pool) for pool in theirs]


def calibration(
    sets: Sets, draws: dict[tuple[int, int], int], targets: Collection[str] = PAIRS.keys()
) -> Iterator[dict[str, Any]]:
    """Null and shifted cells: mean, spread, mean error, coverage."""
    for (n, m), repeats in draws.items():
        for name, pools in PAIRS.items():
            if name not in targets:
                continue
            if name == "emoji-google" and n + m > len(sets.open(name, "variant=base").vectors):
                continue
            rng = np.random.default_rng([n, m])
            found = [[r.estimate() for r in draw_pair(sets, name, pools, (n, m), rng)] for _ in range(repeats)]
            for pool, estimates in zip(pools, zip(*found, strict=True), strict=True):
                truth = 0.0 if pool == name else None
                yield {"target": name, "pool": pool, "n": [n, m], **coverage(estimates, truth)}


def draw_pair(
    sets: Sets, name: str, pools: tuple[str, ...], sizes: tuple[int, int], rng: np.random.Generator
) -> list[Refits]:
    """One draw of a target, and of each pool from images of other groups."""
    target = images(sets, name)
    rows = target.draw(sizes[0], rng)
    drawn = []
    for pool in pools:
        source = images(sets, pool)
        drawn.append(source.vectors[source.draw(sizes[1], rng, target.groups[rows])])
    return measure(target.vectors[rows], drawn, rng)


def images(sets: Sets, name: str) -> Images:
    """A set; of emoji those without a skin tone."""
    return sets.open(name, "variant=base" if name.startswith("emoji") else "")


def coverage(estimates: Any, truth: float | None) -> dict[str, Any]:
    """What the draws of one cell say; the truth is their mean where None is given."""
    values, errors = np.array([e.value for e in estimates]), np.array([e.se for e in estimates])
    center = float(values.mean()) if truth is None else truth
    covered = int(sum(e.low <= center <= e.high for e in estimates))
    chance = stats.binomtest(covered, len(values)).proportion_ci(0.95, method="exact")
    spread = float(values.std(ddof=1))
    return {
        "draws": len(values),
        "truth": "mean over the draws" if truth is None else truth,
        "mean": round(float(values.mean()), 2),
        "error_of_the_mean": round(spread / len(values) ** 0.5, 2),
        "spread": round(spread, 2),
        "mean_se": round(float(np.sqrt((errors**2).mean())), 2),
        "coverage": round(covered / len(values), 3),
        "coverage_interval": [round(float(chance.low), 3), round(float(chance.high), 3)],
        "missed_low_and_high": [sum(e.high < center for e in estimates), sum(e.low > center for e in estimates)],
    }


def order(sets: Sets, draws: dict[tuple[int, int], int]) -> Iterator[dict[str, Any]]:
    """How often the order of two equally far pools is called settled: 5% of draws if the probability is honest."""
    for n in ORDER_SIZES:
        for name, pool in ORDERED.items():
            rng, sides = np.random.default_rng(n), []
            for _ in range(draws[n, n]):
                a, b = halves(sets, name, pool, n, rng)
                sides.append(abs(order_probability(a, b) - 0.5))
            called = [float(np.mean(np.array(sides) > level / 2)) for level in (0.5, 0.8, 0.95)]
            shares = dict(zip(("50%", "20%", "5%"), (round(c, 3) for c in called), strict=True))
            yield {"target": name, "pool": pool, "n": n, "draws": len(sides), "settled_at": shares}


def halves(sets: Sets, name: str, pool: str, n: int, rng: np.random.Generator) -> list[Refits]:
    """A target, and two disjoint draws of one pool."""
    target, source = images(sets, name), images(sets, pool)
    rows = target.draw(n, rng)
    drawn = source.vectors[source.draw(2 * n, rng, target.groups[rows])]
    return measure(target.vectors[rows], [drawn[:n], drawn[n:]], rng)


def sorted_folder(sets: Sets, repeats: int, n: int = 250) -> Iterator[dict[str, Any]]:
    """A pool sorted by class against a shuffled target of the same set: folds by key, and by blocks of rows."""
    source, rng = images(sets, "fashion-train"), np.random.default_rng(2)
    found: dict[str, list[Any]] = {"key": [], "block of rows": []}
    for _ in range(repeats):
        rows = source.draw(2 * n, rng)
        chosen = rows[n:][np.argsort(source.labels[rows[n:]], kind="stable")]
        target, pool = rotated(source.vectors[rows[:n]], source.vectors[chosen])
        keys = [f"{source.labels[row]}/{row:05d}.png" for row in chosen]
        hashed = fold_of(EmbeddingStore.from_vectors(pool, keys=keys).rows())  # sorted by key, as the pool is
        frame = TargetFrame.of(DrawnMoments.of(target, rng.integers(0, FOLDS, n)))
        for name, folds in (("key", hashed), ("block of rows", np.arange(n) * FOLDS // n)):
            found[name].append(refit_frechet(frame, DrawnMoments.of(pool, folds)).estimate())
    yield from ({"set": "fashion-train", "n": [n, n], "folds": by, **coverage(e, 0.0)} for by, e in found.items())


def groups(sets: Sets, repeats: int, n: int = 150) -> Iterator[dict[str, Any]]:
    """Null with all rows of a concept in one fold, and with rows in folds at random."""
    source, rng = sets.open("emoji-google"), np.random.default_rng(3)
    found: dict[str, list[Any]] = {"group": [], "row": []}
    for _ in range(repeats):
        drawn = source.draw_groups(n, rng)
        target, pool = rotated(*(source.vectors[rows] for rows in drawn))
        by_row = [rng.integers(0, FOLDS, len(rows)) for rows in drawn]
        by_group = [rng.integers(0, FOLDS, 2 * n)[np.unique(source.groups[r], return_inverse=True)[1]] for r in drawn]
        for name, folds in (("group", by_group), ("row", by_row)):
            frame = TargetFrame.of(DrawnMoments.of(target, folds[0]))
            found[name].append(refit_frechet(frame, DrawnMoments.of(pool, folds[1])).estimate())
    yield from ({"set": "emoji-google", "groups": [n, n], "folds": by, **coverage(e, 0.0)} for by, e in found.items())


def drift(sets: Sets, growth: dict[int, int]) -> Iterator[dict[str, Any]]:
    """The index as the target grows against pools of a fixed size, and as the pool grows."""
    for pool in ("mnist", "clipart"):
        yield {"grows": "target", **growing(sets, ("fashion-train", pool), growth, target_grows=True)}
    yield {"grows": "pool", **growing(sets, ("emoji-google", "fashion-train"), growth, target_grows=False)}


def growing(sets: Sets, names: tuple[str, str], growth: dict[int, int], *, target_grows: bool) -> dict[str, Any]:
    """Index by size, and the share of intervals that hold the index at the largest size."""
    rng, found = np.random.default_rng(4), {}
    for n, repeats in growth.items():
        sizes = (n, PARTNER) if target_grows else (PARTNER, n)
        found[n] = [index_of(sets, names, sizes, rng) for _ in range(repeats)]
    last = float(np.mean([values[1] for values in found[max(found)]]))
    rows = {}
    for n, intervals in found.items():
        low, value, high = np.mean(intervals, axis=0)
        holds = np.mean([a <= last <= b for a, _, b in intervals])
        rows[str(n)] = {
            "draws": len(intervals),
            "index": round(float(value), 2),
            "interval": [round(float(low), 2), round(float(high), 2)],
            "holds_the_last": round(float(holds), 2),
        }
    return {"target": names[0], "pool": names[1], "other_side": PARTNER, "by_size": rows}


def index_of(
    sets: Sets, names: tuple[str, str], sizes: tuple[int, int], rng: np.random.Generator
) -> tuple[float, float, float]:
    """Low end, value and high end of the index of one draw."""
    drawn = [images(sets, name) for name in names]
    ours, theirs = (
        DrawnMoments.of(
            source.vectors[source.draw(n, rng)].astype(np.float64), rng.integers(0, FOLDS, min(n, len(source.vectors)))
        )
        for source, n in zip(drawn, sizes, strict=True)
    )
    frame = TargetFrame.of(ours)
    e = refit_frechet(frame, theirs).estimate()
    low, value, high = (100 * f / (f + frame.total_variance) for f in (e.low or 0, e.value or 0, e.high or 0))
    return low, value, high


def agreement(sets: Sets) -> float:
    """Largest relative difference between figures by plain moments and by ours."""
    source, rng = images(sets, "emoji-google"), np.random.default_rng(5)
    rows, folds = source.draw(300, rng), rng.integers(0, FOLDS, (2, 150))
    sides = source.vectors[rows[:150]], source.vectors[rows[150:]] + 0.1
    plain = [Moments.from_vectors(v, f) for v, f in zip(sides, folds, strict=True)]
    ours = [DrawnMoments.of(v, f) for v, f in zip(rotated(*sides), folds, strict=True)]
    a, b = (refit_frechet(TargetFrame.of(x), y).estimate() for x, y in (plain, ours))
    return max(abs((x or 0) / (y or 1) - 1) for x, y in ((a.value, b.value), (a.se, b.se)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of .parquet files, or of stores")
    parser.add_argument("--work", type=Path, default=Path(".curate"), help="where embeddings are kept")
    parser.add_argument("--quick", action="store_true", help="a tenth of the draws, small sizes only")
    parser.add_argument(
        "--sizes", type=pair_of_sizes, nargs="+", help="only null and shifted cells of sizes like 100x250"
    )
    parser.add_argument("--targets", choices=PAIRS, nargs="+", default=list(PAIRS), help="of those cells")
    parser.add_argument("--draws", type=int, default=400, help="of each of those cells")
    parser.add_argument("--out", type=Path, help="a file in results/")
    return parser.parse_args()


def pair_of_sizes(text: str) -> tuple[int, int]:
    """Target and pool images of ``100x250``."""
    n, m = text.split("x")
    return int(n), int(m)


def all_steps(sets: Sets, quick: bool) -> dict[str, Iterator[dict[str, Any]]]:
    """Everything, or a tenth of it."""
    draws = {n: -(-r // 10) for n, r in SIZES.items() if max(n) <= 250} if quick else SIZES
    growth = {n: -(-r // 10) for n, r in GROWTH.items() if n <= 1000} if quick else GROWTH
    repeats = ONE_SIZE // (10 if quick else 1)
    return {
        "cells": calibration(sets, draws),
        "order_of_equal_pools": order(sets, draws),
        "sorted_by_class": sorted_folder(sets, repeats),
        "groups": groups(sets, repeats),
        "index": drift(sets, growth),
    }


def main() -> None:
    given, started = arguments(), time.perf_counter()
    sets, out = Sets(given.data, given.work), given.out or (CELLS if given.sizes else RESULT)
    settings = " --quick" * given.quick
    if given.sizes:
        sizes = " ".join(f"{n}x{m}" for n, m in given.sizes)
        settings = f" --sizes {sizes} --targets {' '.join(given.targets)} --draws {given.draws}"
        steps = {"cells": calibration(sets, dict.fromkeys(given.sizes, given.draws), given.targets)}
    else:
        steps = all_steps(sets, given.quick)
    document: dict[str, Any] = {
        "schema": "curate.benchmark/1",
        "what": "calibration of the headline distance on real embeddings",
        "command": "OMP_NUM_THREADS=1 python benchmarks/calibration.py DATA" + settings,
        **machine("numpy", "scipy", "torch", "timm"),
        "encoder": "lite0",
        "largest_difference_from_plain_moments": agreement(sets),
    }
    for name, rows in steps.items():
        document[name] = []
        for row in rows:
            document[name].append(row)
            document["seconds"] = round(time.perf_counter() - started)
            out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            print(name, row, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
