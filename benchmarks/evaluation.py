"""What choosing settings costs over one setting, and what a study takes besides training and encoding.

    python benchmarks/evaluation.py               # all rows; writes benchmarks/results/evaluation-cpu.json
    python benchmarks/evaluation.py --only study  # some of them, repeated; the others stay as they are in the file

    linear  a linear probe that chooses among 13 penalties, against one that is given the chosen one: both score it on
            the same held-out parts and fit it to all training images. At most 1.3 times is wanted
    knn     a k-NN probe that chooses among its grid of k and temperature, against one that is given them
    folds   both probes of five folds, every image tested once, which choose their settings on each other; against folds
            that choose on parts of their own training images, held out anew
    study   a study of two arms on the demo's data from nothing, by what its time goes into; then the same command
            again, and again without the evaluation's results. At most 5% besides training and encoding is wanted

Features are Lite0's at 64 pixels of the demo's target, in 9 categories and in 95 subgroups. Beside, scikit-learn does
the same on the categories: LogisticRegression with L-BFGS, each penalty begun where the last one ended;
KNeighborsClassifier once for every setting.

All is CPU time of one process on one thread, so that ratios and shares hold on a busy machine; of ``linear``, ``knn``
and ``folds`` the sides are timed in turn and the median is taken. What a study takes besides does not grow with the
samples of its runs, so its row also tells from how many samples on 5% is kept.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from measured import machine, measure
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from curate import pretraining
from curate.config import load_config
from curate.demo import demo_folder
from curate.evaluation import _knn, _linear, split_labeled
from curate.evaluation._comparison import Comparison
from curate.evaluation._split import FOLDS, Split, hold_out
from curate.experiments import Study, _study, _target_study
from embeddings.encoders import get_encoder
from embeddings.pipeline import as_store, jobs

RESULT = Path(__file__).parent / "results" / "evaluation-cpu.json"
ENCODER = "lite0@64"
PENALTIES = tuple(10 ** (1 - step / 2) for step in range(13))  # 10 down to 1e-5
REPEATS = 3
PEERED = "label"  # the labeled set that the peer is timed on
STUDY = """
[target]
uri = "{data}/target-train.parquet"
{pools}
[evaluate.categories]
train = "{data}/target-train.parquet"
test = "{data}/target-test.parquet"
label = "label"
[evaluate.subgroups]
train = "{data}/target-train.parquet"
test = "{data}/target-test.parquet"
label = "subgroup"
[grid]
samples = [600]
inits = ["public"]
images = [500]
[protocol]
primary = ["near-first", "pool-gated"]
[[arms]]
name = "near-first"
[[arms]]
name = "pool-gated"
select = "pool-gated"
"""
ARMS, SAMPLES, WANTED = 2, 600, 0.05
POOLS = ("twitter", "fluent", "openmoji", "garments")

Sides = Sequence[Callable[[], Any]]  # one setting, the grid


@dataclass(frozen=True)
class Labeled:
    """A labeled set, embedded and split."""

    features: np.ndarray
    split: Split
    seconds: float  # of CPU that the features took

    @property
    def given(self) -> tuple[Any, ...]:
        """What a probe takes."""
        split = self.split
        train, labels = self.features[split.train], split.labels[split.train]
        return train, labels, self.features[split.test], split.held_out

    def facts(self) -> dict[str, Any]:
        """How large it is, and what its features took."""
        split = self.split
        sizes = {"n_train": len(split.train), "n_test": len(split.test), "classes": split.n_classes}
        return {**sizes, "features": round(self.seconds, 2)}


def labeled_sets(*, folds: int = 1) -> dict[str, Labeled]:
    """The demo's target, by its two kinds of labels."""
    found, address = {}, str(demo_folder() / "data" / "target-train.parquet")
    get_encoder(ENCODER, device="cpu")
    start = time.process_time()
    store = as_store(address, name="target", encoder=ENCODER, work=None, device="cpu", workers=1)
    seconds = time.process_time() - start
    for name in ("label", "subgroup"):
        rows = store.with_roles(label=name, group=None).rows()
        found[name] = Labeled(store.vectors()[:], split_labeled(rows, folds=folds), seconds)
    return found


def cpu_seconds(sides: Sides, repeats: int) -> list[float]:
    """Median CPU time of each side, in turn; each is called once before to warm up."""
    times: list[list[float]] = [[] for _ in sides]
    for turn in range(repeats + 1):
        for side, run in enumerate(sides):
            start = time.process_time()
            run()
            times[side] += [time.process_time() - start] if turn else []
    return [statistics.median(taken) for taken in times]


def compared(labeled: Labeled, ours: Sides, theirs: Sides | None) -> dict[str, Any]:
    """Seconds of one setting and of the grid, and how many times one the grid is: alone, and with the features."""
    found = {}
    for who, sides, repeats in (("ours", ours, REPEATS), ("scikit-learn", theirs, 1)):
        if sides:
            one, grid = cpu_seconds(sides, repeats)
            times = {"times": grid / one, "times, with features": (labeled.seconds + grid) / (labeled.seconds + one)}
            seconds = {"one": round(one, 3), "grid": round(grid, 3)}
            found[who] = seconds | {name: round(value, 2) for name, value in times.items()}
    return found


def linear() -> dict[str, Any]:
    """13 penalties against the chosen one."""
    found: dict[str, Any] = {"unit": "CPU seconds", "penalties": len(PENALTIES)}
    for name, one in labeled_sets().items():
        with mock.patch.object(_linear, "PENALTIES", PENALTIES):
            chosen = _linear.linear_probe(*one.given).settings["penalty"]
        ours, theirs = ([partial(way, one, grid) for grid in ((chosen,), PENALTIES)] for way in (_probe, _peer_probe))
        found[name] = {**one.facts(), "chosen": chosen, **compared(one, ours, theirs if name == PEERED else None)}
    return found


def _probe(one: Labeled, penalties: tuple[float, ...]) -> Any:
    with mock.patch.object(_linear, "PENALTIES", penalties):
        return _linear.linear_probe(*one.given)


def _peer_probe(one: Labeled, penalties: tuple[float, ...]) -> Any:
    """The same by scikit-learn at its own tolerance."""
    train, labels, test, held_out = one.given
    scaler = StandardScaler().fit(train.astype(np.float64))
    train, test = (scaler.transform(part.astype(np.float64)) for part in (train, test))
    correct = np.zeros(len(penalties))
    for fit, held in held_out:
        model = LogisticRegression(max_iter=10_000, warm_start=True)
        for i, penalty in enumerate(penalties):
            model.set_params(C=1 / (len(fit) * penalty)).fit(train[fit], labels[fit])
            correct[i] += (model.predict(train[held]) == labels[held]).sum()
    best = penalties[int(correct.argmax())]
    return LogisticRegression(C=1 / (len(train) * best), max_iter=10_000).fit(train, labels).predict_proba(test)


def knn() -> dict[str, Any]:
    """The grid of k and temperature against the chosen pair."""
    found: dict[str, Any] = {"unit": "CPU seconds", "settings": len(_knn.NEIGHBORS) * len(_knn.TEMPERATURES)}
    for name, one in labeled_sets().items():
        chosen = _knn.knn_probe(*one.given).settings
        grids = [((int(chosen["k"]),), (chosen["temperature"],)), (_knn.NEIGHBORS, _knn.TEMPERATURES)]
        ours, theirs = ([partial(way, one, *grid) for grid in grids] for way in (_neighbors, _peer_neighbors))
        found[name] = {**one.facts(), **chosen, **compared(one, ours, theirs if name == PEERED else None)}
    return found


def _neighbors(one: Labeled, neighbors: tuple[int, ...], temperatures: tuple[float, ...]) -> Any:
    with mock.patch.object(_knn, "NEIGHBORS", neighbors), mock.patch.object(_knn, "TEMPERATURES", temperatures):
        return _knn.knn_probe(*one.given)


def _peer_neighbors(one: Labeled, neighbors: tuple[int, ...], temperatures: tuple[float, ...]) -> Any:
    """The same by scikit-learn, which searches for every setting."""
    train, labels, test, held_out = one.given
    train, test = _knn.unit_rows(train), _knn.unit_rows(test)
    settings = [(k, t) for k in neighbors for t in temperatures]
    correct = np.zeros(len(settings))
    for fit, held in held_out:
        for i, (k, t) in enumerate(settings):
            model = _peer_model(min(k, len(fit)), t).fit(train[fit], labels[fit])
            correct[i] += (model.predict(train[held]) == labels[held]).sum()
    k, t = settings[int(correct.argmax())]
    return _peer_model(min(k, len(train)), t).fit(train, labels).predict_proba(test)


def _peer_model(k: int, temperature: float) -> KNeighborsClassifier:
    return KNeighborsClassifier(k, metric="cosine", weights=lambda far: np.exp((1 - far) / temperature))


def folds() -> dict[str, Any]:
    """Settings chosen on the other folds, against parts held out anew."""
    found: dict[str, Any] = {"unit": "CPU seconds", "folds": FOLDS}
    for name, one in labeled_sets(folds=FOLDS).items():
        anew = replace(one.split, folds=tuple(replace(f, held_out=hold_out(f.separable)) for f in one.split.folds))
        nested, plain = (Comparison(split=split, frozen_features=one.features) for split in (one.split, anew))
        sides = [partial(way.probe, one.features) for way in (nested, plain)]
        taken, before = cpu_seconds(sides, REPEATS)
        sizes = {"images": len(one.split.test), "classes": one.split.n_classes}
        found[name] = {**sizes, "ours": round(taken, 2), "anew": round(before, 2), "times": round(before / taken, 2)}
    return found


@dataclass
class Ledger:
    """Seconds by what they went into; of calls inside each other the inner one takes its own."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _open: list[str] = field(default_factory=list)
    _last: float = 0.0

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """What happens inside goes to this account."""
        self._book()
        self._open.append(name)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def watched(self, owner: Any, method: str, name: str) -> Any:
        """A patch under which every call of a function goes to this account."""
        plain = getattr(owner, method)

        def call(*args: Any, **options: Any) -> Any:
            with self.on(name):
                return plain(*args, **options)

        return mock.patch.object(owner, method, call)

    def _book(self) -> None:
        now = time.process_time()
        if self._open:
            self.seconds[self._open[-1]] += now - self._last
        self._last = now


def study() -> dict[str, Any]:
    """From nothing, again, and again without what was kept of the evaluation."""
    data = demo_folder() / "data"
    pools = "\n".join(f'[pools.{name}]\nuri = "{data}/{name}.parquet"' for name in POOLS)
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "study.toml", Path(folder) / "out"
        file.write_text(STUDY.format(data=data, pools=pools), encoding="utf-8")
        run = partial(_accounts, file, out, Path(folder) / "work")
        first, again = run(), run()
        shutil.rmtree(out / _target_study.EVALUATED)
        measured = run()
    own = sum(seconds for name, seconds in first.items() if name not in ("training", "encoding"))
    whole = sum(first.values())
    return {
        "unit": "CPU seconds, one thread",
        "arms": ARMS,
        "samples of each": SAMPLES,
        "labeled sets": 2,
        "samples of each from which on it is 5%": round(
            SAMPLES * (own / WANTED - own - first["encoding"]) / first["training"], -2
        ),
        "from nothing": {**_rounded(first), "whole": round(whole, 1), "share besides": round(own / whole, 4)},
        "again": {**_rounded(again), "whole": round(sum(again.values()), 1)},
        "again, evaluation's results deleted": {**_rounded(measured), "whole": round(sum(measured.values()), 1)},
    }


def _accounts(file: Path, out: Path, work: Path) -> dict[str, float]:
    """Seconds of one call by what they went into."""
    ledger, target = Ledger(), _target_study.TargetStudy
    watched = [
        (pretraining, "pretrain", "training"),
        (jobs.Job, "_on_disk", "encoding"),
        (target, "score", "scoring"),
        (target, "select", "selecting"),
        (target, "evaluate", "evaluating"),
        (_study, "analyze", "claims"),
    ]
    made = Study(config=load_config(file), out=out, encoder=ENCODER)
    with ExitStack() as stack:
        for owner, method, name in watched:
            stack.enter_context(ledger.watched(owner, method, name))
        with ledger.on("all else"):
            made.execute(work=work, device="cpu", workers=1)
    return dict(ledger.seconds)


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in sorted(seconds.items())}


ROWS = {row.__name__: row for row in (linear, knn, folds, study)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    facts = {**machine("torch", "numpy", "scipy", "scikit-learn"), "encoder": ENCODER}
    measure(ROWS, RESULT, about=__doc__, facts=facts)
