"""Is the knee of the supply curve where the near images run out? Known supplies, real pools, deliveries of a sample.

    OMP_NUM_THREADS=2 python benchmarks/supply.py [STORES] [--only synthetic real delivery] [--images 500000] [--anew]

STORES holds the real pools as embedding stores; the synthetic part needs none. Figures are written case by case, and a
case that the file holds is not measured again unless asked to be: a run that was killed goes on. Every selection is the
plain quota: turns of the target images in the pools' first 64 principal directions, pools judged near first where a
case has such a gate.

- synthetic: 2,000 Zipf modes in 256-d, the target 1,000 images of 60 rare ones, a budget of six times the pool's images
  of those modes (the truth); also modes with at least 10 images, and the full-dimension FD to unseen target images of
  the images up to the knee, against that of as many images of the target's modes.
- real: emoji and garments as targets, half of their images seen by the quota, the curve measured on the other half and,
  at the largest budget, on the seen one. ``supply`` is what the pools hold whose style is the target's or nearly so; a
  knee before it is too early. Budgets are 0.3, 1 and 3 times the supply, or all there is where nothing is near.
- delivery: a fifth of every pool is at hand; 20 times the near images of the whole are told from it, and compared to
  the truth, or to the knee of the whole where the truth is not known.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from measured import machine

from curate.distances import frechet_full
from curate.selection._ledger import Ledger
from curate.selection._nearness import Sample
from curate.selection._supply import Delivery, Knee, Taken, delivered_supply, find_knee, supply_curve
from curate.selection._turns import Schedule, take_turns
from embeddings.moments import FOLDS
from embeddings.pipeline import as_store

RESULT = Path(__file__).parent / "results" / "supply-cpu.json"
MODES, RARE, TARGETS, D = 2000, 60, 1000, 256
SPREADS, SEEDS = (0.4, 0.7, 1.0, 1.3), (0, 1)
BUDGETS = (0.3, 1.0, 3.0)
NEAR = ("emoji-twitter", "emoji-fluent", "emoji-openmoji")
FAR = ("photos", "fashion-train", "mnist")
OTHERS = ("clipart", *NEAR, "photos", "mnist")
LIMITS = {"photos": 1000, "fashion-train": 3000, "mnist": 2000, "fashion-test": 1000}
DRAWS, AT_HAND, SAMPLE_BUDGET = 20, 0.2, 2000


@dataclass(frozen=True)
class World:
    """A target in two halves, and pools."""

    seen: np.ndarray  # [m, d] what the quota takes turns for
    unseen: np.ndarray  # [m, d]
    pools: dict[str, np.ndarray]  # name -> [n, d]

    @property
    def images(self) -> np.ndarray:
        """All pools' vectors."""
        return np.concatenate(list(self.pools.values()))

    def of_pools(self, names: tuple[str, ...]) -> np.ndarray:
        """Which images are from some pools."""
        return np.concatenate([np.full(len(pool), name in names) for name, pool in self.pools.items()])


@dataclass(frozen=True)
class Case:
    """Pools to choose from, those that come first, and those that are near."""

    target: str
    pools: tuple[str, ...]
    first: tuple[str, ...]
    near: tuple[str, ...]


CASES = [
    Case("emoji", (*NEAR, "clipart", "emoji-openmoji-line", *FAR), (), NEAR),
    Case("emoji", (*NEAR, "clipart", "emoji-openmoji-line", *FAR), NEAR, NEAR),
    Case("emoji", (*NEAR, "clipart", "emoji-openmoji-line", *FAR), (*NEAR, "clipart"), NEAR),
    Case("emoji", NEAR, (), NEAR),
    Case("emoji", ("emoji-google",), (), ("emoji-google",)),
    Case("emoji", ("clipart", "emoji-openmoji-line", *FAR), ("clipart",), ()),
    Case("emoji", FAR, (), ()),
    Case("emoji", ("mnist",), (), ()),
    Case("garments", ("fashion-train", *OTHERS), (), ("fashion-train",)),
    Case("garments", ("fashion-train", *OTHERS), ("fashion-train",), ("fashion-train",)),
    Case("garments", ("fashion-train",), (), ("fashion-train",)),
    Case("garments", OTHERS, (), ()),
]


Lines = Callable[[], Iterable[dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", type=Path, nargs="?")
    parser.add_argument("--only", nargs="*", default=["synthetic", "real", "delivery"])
    parser.add_argument("--images", type=int, default=500_000, help="of the synthetic pool")
    parser.add_argument("--anew", action="store_true", help="measure again what is measured")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if arguments.stores is None and set(arguments.only) - {"synthetic"}:
        parser.error("say where the stores are, or --only synthetic")
    found = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
    document = {
        **found,
        "schema": "curate.benchmark/2",
        "what": "knee of the supply curve",
        **machine("numpy", "scipy", "torch", "faiss-cpu"),
    }
    for name in arguments.only:
        known = [] if arguments.anew else document.get(name, [])
        document[name] = known
        for case, work in cases(name, arguments.stores, arguments.images):
            if any(line["case"] == case for line in known):
                continue
            start = time.perf_counter()
            lines = [{"case": case, **line} for line in work()]
            print(name, f"{time.perf_counter() - start:.0f} s", *lines, sep="\n  ", flush=True)
            known += lines
            arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def cases(part: str, stores: Path, images: int) -> Iterator[tuple[str, Lines]]:
    """Name of every case of a part, and what measures it."""
    if part == "synthetic":
        for spread, seed in product(SPREADS, SEEDS):
            measure = partial(synthetic_case, images, spread, seed)
            yield f"{images} images, spread {spread}, seed {seed}", lambda measure=measure: [measure()]
    elif part == "real":
        for number, case in enumerate(CASES):
            yield f"{number}: {case.target}", partial(real_case, stores, case)
    else:
        yield "synthetic", lambda: [synthetic_delivery()]
        yield "emoji", lambda: [deliveries("emoji", real_world(stores, CASES[0]), None)]


def synthetic_case(images: int, spread: float, seed: int) -> dict[str, Any]:
    """Knee, modes and distance where the near images are known."""
    world, mode, rare = synthetic_world(images, spread, seed)
    near = np.isin(mode, rare)
    order, center = quota(world, (), 6 * int(near.sum()))
    knee, seconds = knee_of(world.unseen, world.pools["pool"][order], center)
    line = {"spread": spread, "seed": seed, "supply": int(near.sum()), "budget": len(order), "seconds": seconds}
    if knee is None:
        return {**line, "knee": None}
    part = order[: knee.n]
    alike = np.random.default_rng(1).permutation(np.flatnonzero(near))[: knee.n]
    return {
        **line,
        "knee": [knee.n, knee.low, knee.high],
        "error": round(knee.n / int(near.sum()) - 1, 3),
        "near_at_knee": int(near[part].sum()),
        "modes": int((np.bincount(mode[part], minlength=MODES)[rare] >= 10).sum()),
        "fd": round(frechet_full(world.unseen, world.pools["pool"][part]), 2),
        "fd_floor": round(frechet_full(world.unseen, world.pools["pool"][alike]), 2),
    }


def synthetic_world(images: int, spread: float, seed: int) -> tuple[World, np.ndarray, np.ndarray]:
    """A pool of Zipf modes and a target in 60 rare ones, the mode of every pool image, and the 60."""
    rng = np.random.default_rng(seed)
    centers, shares = rng.normal(size=(MODES, D)).astype(np.float32), 1 / np.arange(1, MODES + 1)
    rare = np.sort(rng.choice(np.arange(500, 1000), RARE, replace=False))
    mode = rng.choice(MODES, images, p=shares / shares.sum())
    pool = rng.standard_normal((images, D), dtype=np.float32)
    pool *= spread
    pool += centers[mode]
    target = centers[rng.choice(rare, 2 * TARGETS)] + spread * rng.standard_normal((2 * TARGETS, D), dtype=np.float32)
    return World(target[:TARGETS], target[TARGETS:], {"pool": pool}), mode, rare


def real_case(stores: Path, case: Case) -> Iterator[dict[str, Any]]:
    """Knees at several budgets."""
    world = real_world(stores, case)
    supply, total = int(world.of_pools(case.near).sum()), len(world.images)
    budgets = sorted({min(total, round(share * supply)) for share in BUDGETS}) if supply else [total]
    facts = {"target": case.target, "pools": list(case.pools), "first": list(case.first), "supply": supply}
    for budget in budgets:
        order, center = quota(world, case.first, budget)
        for side in ("unseen", "seen") if budget == budgets[-1] else ("unseen",):
            knee, seconds = knee_of(getattr(world, side), world.images[order], center)
            found = knee and [knee.n, knee.low, knee.high]
            yield {**facts, "budget": budget, "measured_on": side, "knee": found, "seconds": seconds}


def deliveries(name: str, whole: World, truth: int | None) -> dict[str, Any]:
    """Near images of the whole, told from a fifth of it; where the truth is not known, the knee of the whole is it."""
    if truth is None:
        knee, _ = knee_of(whole.unseen, *taken_in_order(whole))
        truth = knee.n if knee else len(whole.images)
    rng, told = np.random.default_rng(0), []
    for _ in range(DRAWS):
        pools = {name: pool[rng.random(len(pool)) < AT_HAND] for name, pool in whole.pools.items()}
        told.append(told_supply(whole, World(whole.seen, whole.unseen, pools)))
    covered = sum(bool(t) and t[1] <= truth <= t[2] for t in told)
    values = [t[0] for t in told if t]
    line = {"world": name, "at_hand": AT_HAND, "truth": truth, "draws": DRAWS, "covered": covered}
    return {**line, "mean": round(float(np.mean(values))), "spread": round(float(np.std(values))), "told": told}


def told_supply(whole: World, world: World) -> list[int]:
    """Value and limits of the supply of the whole, from a sample; empty if there is no knee in it."""
    order, center = quota(world, (), min(len(world.images), SAMPLE_BUDGET))
    knee = knee_of(world.unseen, world.images[order], center)[0]
    if knee is None:
        return []
    near = np.zeros(len(world.images), bool)
    near[order[: knee.from_pools]] = True
    parts = []
    for name, pool in whole.pools.items():
        mine = near[world.of_pools((name,))]
        folds = np.arange(len(mine)) % FOLDS
        images, taken = np.bincount(folds, minlength=FOLDS), np.bincount(folds[mine], minlength=FOLDS)
        parts.append(Delivery(size=len(pool), images=images, near=taken))
    told = delivered_supply(knee, parts)
    return [round(v or 0.0) for v in (told.value, told.low, told.high)]


def taken_in_order(world: World) -> tuple[np.ndarray, np.ndarray]:
    """All images of a world in the quota's order, and the pools' mean."""
    order, center = quota(world, (), len(world.images))
    return world.images[order], center


def synthetic_delivery() -> dict[str, Any]:
    """A world of known supply."""
    world, mode, rare = synthetic_world(100_000, 0.7, 0)
    return deliveries("synthetic", world, int(np.isin(mode, rare).sum()))


def real_world(stores: Path, case: Case) -> World:
    """Half the target's images to see, half to judge, and the pools; those of emoji show other concepts."""
    base = ",variant=base"
    emoji = case.target == "emoji"
    target = vectors(stores, "emoji-google#half=A" + base if emoji else "fashion-test")
    pools = {n: vectors(stores, n + "#half=B" + base if n.startswith("emoji") else n) for n in case.pools}
    half = np.random.default_rng(0).permutation(len(target))
    middle = len(target) // 2
    return World(target[half[:middle]], target[half[middle:]], pools)


def vectors(stores: Path, address: str) -> np.ndarray:
    """Vectors [n, d] of some rows of a store; at most so many as LIMITS says, drawn at random."""
    found = np.asarray(as_store(f"{stores}/{address}", name=address, encoder=None).vectors(), np.float32)
    return found[np.sort(np.random.default_rng(0).permutation(len(found))[: LIMITS.get(address, len(found))])]


def quota(world: World, first: tuple[str, ...], budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows in the order in which the seen target images take them, those of some pools first; and the pools' mean."""
    images, m = world.images, len(world.seen)
    schedule = Schedule(order=np.random.default_rng(0).permutation(m), weights=np.ones(m))
    sample = images[:: -(-len(images) // 32_768)]
    center = sample.mean(axis=0)
    axes = np.linalg.eigh(np.cov((sample - center).T))[1][:, -64:].astype(np.float32)
    targets, directions, gate = (world.seen - center) @ axes, (images - center) @ axes, world.of_pools(first)
    order = np.empty(0, np.int64)
    for rows in (np.flatnonzero(gate), np.flatnonzero(~gate)):
        count = min(budget - len(order), len(rows))
        if count > 0:
            turns = take_turns(targets, directions[rows], schedule, Ledger.of_images(len(rows), count))
            order = np.concatenate([order, rows[turns.rows]])
    return order, center


def knee_of(target: np.ndarray, taken: np.ndarray, center: np.ndarray) -> tuple[Knee | None, float]:
    """The knee of images in the order taken, and the seconds that it took."""
    start = time.perf_counter()
    sample = Sample(vectors=target, folds=np.arange(len(target)) % FOLDS)
    own, folds = np.zeros(len(taken), bool), np.arange(len(taken)) % FOLDS
    curve = supply_curve(sample, Taken(vectors=taken.__getitem__, folds=folds, own=own), center=center)
    return find_knee(curve), round(time.perf_counter() - start, 1)


if __name__ == "__main__":
    main()
