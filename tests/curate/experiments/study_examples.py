"""Studies as they stand on disk, with accuracies that were planted."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from curate.eval_report import PREDICTIONS, ArmScore, EvalReport
from curate.results import Estimate, PoolScore, ShiftReport
from embeddings import files

CLASSES = ("a", "b", "c")
COMMON = {"method": "simclr", "init": "public", "backbone": None, "encoder": None, "set": [], "own": True}


def cell(arm, *, seed=0, images=500, samples=10_000, target="mine", **facts):
    """One entry of cells.json."""
    name = f"{arm}~N{images}~s{seed}"
    sizes = {"images": images, "asked": images, "realized": images, "samples": samples}
    told = {**COMMON, **sizes, "select": "near-first", "selection": "near-first", "pools": None, "reason": ""}
    return {**told, "name": name, "arm": arm, "target": target, "seed": seed, "run": f"runs/{name}", **facts}


def predictions(right, *, labeled="kinds", units=None):
    """Table of predictions from which images every arm has right, bool [m] by arm."""
    m = len(next(iter(right.values())))
    truth = np.arange(m) % len(CLASSES)
    parts = []
    for arm, correct in right.items():
        said = np.where(correct, truth, (truth + 1) % len(CLASSES))
        parts.append(
            {
                "labeled": [labeled] * m,
                "arm": [arm] * m,
                "key": [f"k{i:05d}" for i in range(m)],
                "unit": np.arange(m) if units is None else units,
                "truth": [CLASSES[t] for t in truth],
                "predicted": [CLASSES[s] for s in said],
                "confidence": [1.0] * m,
            }
        )
    return pa.concat_tables([pa.table(part, schema=PREDICTIONS) for part in parts])


def report(right, *, kinds=None, labeled="kinds", units=None):
    """The evaluation that goes with the predictions; arms are runs unless said."""
    kinds = {"frozen:lite0": "frozen", **(kinds or {})}
    frozen = right["frozen:lite0"].mean()
    scores = [
        ArmScore(
            arm=arm,
            labeled=labeled,
            kind=kinds.get(arm, "run"),
            metrics={"linear": Estimate(value=float(c.mean())), "knn": Estimate(value=0.5)},
            against_frozen={} if arm == "frozen:lite0" else {"linear": Estimate(value=float(c.mean() - frozen))},
            label_equivalents=Estimate(value=120.0, low=90.0, high=150.0) if arm not in kinds else None,
        )
        for arm, c in right.items()
    ]
    facts = {labeled: {"n_train": 100, "n_test": len(right["frozen:lite0"]), "classes": 3}}
    return EvalReport(scores=tuple(scores), labeled=facts, predictions=predictions(right, labeled=labeled, units=units))


def drawn(cells, accuracy, *, m=600, seed=0, noise=0.0, frozen=0.6, others=None):
    """Which images are right: easier images first, every run with its own luck at the edge and shift ``noise``."""
    rng = np.random.default_rng(seed)
    hard = rng.random(m)
    right = {"frozen:lite0": hard < frozen}
    right |= {name: hard < share for name, share in (others or {}).items()}
    for one in cells:
        share = accuracy(one) + noise * rng.standard_normal()
        right[one["name"]] = hard + 0.02 * rng.standard_normal(m) < share
    return right


def write_study(folder, cells, right, *, kinds=None, score=None):
    """The folder of one target."""
    report(right, kinds=kinds).save(folder)
    files.write_json(folder / "cells.json", {"schema": "curate.cells/1", "cells": cells, "nested": []})
    if score is not None:
        score.save(folder)
    return folder


def shift_report(distances, sizes=None):
    """A score in which the index is the distance, and ``precision`` its opposite."""
    pools = [
        PoolScore(
            name=name,
            rank=i + 1,
            verdict="near",
            n=(sizes or {}).get(name, 1000),
            index=Estimate(value=float(value)),
            metrics={
                "frechet": Estimate(value=float(value) * 2),
                "precision": Estimate(value=-float(value), lower_is_closer=False),
                "far_off": Estimate(value=-float(value)),
            },
        )
        for i, (name, value) in enumerate(distances.items())
    ]
    return ShiftReport(target={"n": 100}, encoder={}, pools=tuple(pools), floor=Estimate(value=0.0))
