"""Does a run learn its images by heart? The loss of images it is never trained on, beside that of some it is.

N and D are what was asked for, so nothing is held out of the selection. But a pool mostly holds more than was selected:
up to MOST of its other images, evenly spaced in the order of their keys and in the proportions of the selection, are
looked at and never trained on. Those that were left out for a reason (copies and near copies, excluded or contaminated
images, licenses) are not among them, nor are images of the target. They may lie farther from the target than what was
selected, so their loss has a level of its own; what counts is how it moves beside that of the others. A network that
becomes good at what was selected at the price of all else looks like one that overfits: a probe tells them apart.

Before the first step and at TIMES equal shares of C a copy of the learner sees them, and as many training images as one
batch more: the loss of training, batch statistics included, without gradient. Where fewer than MOST images are trained
on, the unseen ones pass in several batches of that size, so that the losses compare. The views are those of a visit
that training never comes to, the same each time. The error of a difference between two such looks is a jackknife: the
loss without each eighth of the images is kept, too (``unseen_parts``, ``seen_parts``).

Where images are seen too seldom to be learned by heart, or there are none to compare with (everything was selected or
left out, only tiles, regions or remote pools), the run says so. A look is two passes forward, so all of them cost at
most what 22 MOST / 3 samples of training do: .2% of a run of 200,000 samples, and never more than 7%, because there
are at most C / 100 images. The pools are listed once more.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from curate.exports.originals import open_sources
from curate.pretraining import ranks
from curate.pretraining.augment.draws import image_hash
from curate.pretraining.augment.transfer import on_device
from curate.pretraining.gradients import network_pass, split
from curate.pretraining.images import COLUMNS, identities, load_images
from curate.pretraining.methods import Learner, load_method
from curate.pretraining.sample import Sample, Seen
from curate.pretraining.supply import TrainingImages
from curate.pretraining.trainer import Trainer
from curate.results import TARGET, Selection
from embeddings import files
from embeddings.errors import CurateError
from embeddings.progress import silent
from embeddings.sources import Source

MOST, LEAST = 64, 8  # images
PER_IMAGE = 100  # samples of C that there must be for each of them
VISITS = 20  # of each training image: below that none is learned by heart
PARTS = 8
VISIT = 1 << 31  # no image is trained on so often
NAME = "unseen"


@dataclass(frozen=True)
class Unseen:
    """Images that are not trained on, and some that are: as many, or a whole part of them."""

    unseen: Sample
    seen: Sample
    sources: Mapping[str, int]  # how many of the unseen ones come from each
    share: float  # of all training images that are among those seen

    def read(self, trainer: Trainer, *, share: float) -> dict[str, Any]:
        """Their losses at a share of C, for the curves; training is untouched."""
        found: dict[str, Any] = {}
        for name, sample in (("unseen", self.unseen), ("seen", self.seen)):
            loss, *without = losses(trainer, sample, share=share, batch=len(self.seen))
            found |= {f"{name}_loss": loss, f"{name}_parts": without}
        return found

    def begin(self, trainer: Trainer, *, batch: int) -> dict[str, Any]:
        """The same before the first step, and what the later looks are compared by; ``batch`` is that of training."""
        chance, recipe = load_method(trainer.settings.method).chance_loss, trainer.settings.recipe
        share = chance(recipe, len(self.seen)) / chance(recipe, batch)
        return {**self.read(trainer, share=0.0), "seen_share": self.share, "look_chance": share}

    def facts(self) -> dict[str, Any]:
        """What run.json says."""
        return {"images": len(self.unseen), "sources": dict(self.sources)}


def find_unseen(selection: Selection, images: TrainingImages, folder: Path, *, samples: int, edge: int) -> Unseen | str:
    """The images to look at, or why there are none.

    Args:
        selection: what is trained on, and what was left out.
        images: those that are trained on.
        folder: where the decoded unseen images are kept, for a run that goes on.
        samples: C.
        edge: of the stored squares, in pixels.
    """
    count = min(MOST, samples // PER_IMAGE)
    if count < LEAST:
        return f"{samples:,} samples are too few for it to be worth a look: it takes {LEAST * PER_IMAGE:,}"
    if samples < VISITS * len(images.facts):
        return f"no image is seen {VISITS} times: too seldom to be learned by heart"
    try:
        chosen = _chosen(selection, folder / f"{NAME}.parquet", count)
        if len(chosen) < LEAST:
            return f"the pools hold {len(chosen)} whole images at hand that were neither selected nor left out"
        block = load_images(chosen, open_sources(selection), folder / NAME, edge=edge, progress=silent)
    except CurateError as error:
        return error.message
    rows = _trained(selection, images, Counter(chosen["source"].to_pylist()))
    n = min(len(rows), len(block))
    if n < LEAST:
        return f"{len(block)} unseen and {len(rows)} training images can be read, fewer than {LEAST}"
    order = _shuffled(block.facts.hashes)[: len(block) // n * n]  # whole batches as large as that of training images
    unseen = _sample(block.read(order), block.facts.hashes[order])
    seen = _sample(images.read(rows[:n]), images.facts.hashes[rows[:n]])
    return Unseen(unseen, seen, _by_source(chosen, unseen.hashes), n / len(images.facts))


def losses(trainer: Trainer, sample: Sample, *, share: float, batch: int, parts: int = PARTS) -> list[float]:
    """Mean loss of some images in batches at a share of C, then without each of so many parts of every batch."""
    learner, seed = cast(Learner, copy.deepcopy(trainer.learner)), trainer.settings.seed
    low, found = trainer.placement.precision == "bfloat16", []
    for start in range(0, len(sample), batch):
        part = sample.part(slice(start, start + batch))
        seen = Seen(trainer.views(part), part, seed)
        with torch.no_grad(), ranks.alone(), network_pass(seen, low=low):
            found.append(_without_parts(learner, seen, share=share, parts=parts))
    means: list[float] = torch.stack(found).double().mean(dim=0).tolist()
    return means


def _without_parts(learner: Learner, seen: Seen, *, share: float, parts: int) -> torch.Tensor:
    """Loss of a batch, then without each part of its images, [1 + parts]; they are encoded once."""
    every = np.arange(len(seen))
    encoded, device = learner.encode(seen).parts, seen.views[0].device
    kept = [on_device(rows, device) for rows in (every, *(np.delete(every, part) for part in split(len(seen), parts)))]
    return torch.stack([learner.loss(learner.project([part[at] for part in encoded]), share=share) for at in kept])


def _chosen(selection: Selection, path: Path, count: int) -> pa.Table:
    """Rows of unseen images, as those of a selection; the ones that the run was begun with, if it was."""
    if path.exists():
        return files.read_table(path)
    others = _others(selection)
    held = {name: number for name, number in selection.counts().items() if len(others.get(name, ()))}
    edges = np.rint(np.cumsum([0, *held.values()]) * (count / max(1, sum(held.values())))).astype(int)
    parts = [_spread(others[name], name, n) for name, n in zip(held, np.diff(edges), strict=True)]
    table = pa.concat_tables(parts) if parts else pa.table({name: [] for name in COLUMNS})
    files.write_table(path, table)
    return table


def _others(selection: Selection) -> dict[str, pa.Table]:
    """Key and uri of every image of a pool that was neither selected nor left out, by source."""
    return {
        name: _not_listed(source, [_keys(table, name) for table in (selection.rows(), selection.left_out)])
        for name, source in open_sources(selection).items()
        if name != TARGET and _is_simple(source)
    }


def _is_simple(source: Source) -> bool:
    """True if its images are at hand and whole: parts of one image are no strangers to each other."""
    view = source.address.view
    return not (view.tiles or view.roi or files.is_remote(source.address.path))


def _not_listed(source: Source, keys: list[pa.Array]) -> pa.Table:
    listed = source.listing().images.select(["key", "uri"])
    return listed.filter(pc.invert(pc.is_in(listed["key"], value_set=pa.concat_arrays(keys))))


def _keys(table: pa.Table, name: str) -> pa.Array:
    return table.filter(pc.equal(table["source"], name))["key"].combine_chunks().cast(pa.string())


def _spread(others: pa.Table, name: str, count: int) -> pa.Table:
    """At most ``count`` evenly spaced rows, as those of a selection."""
    few = others.take(pa.array(_evenly(len(others), count)))
    n = len(few)
    fixed = {"source": pa.array([name] * n, pa.string()), "sha256": pa.nulls(n, pa.string())}
    numbers = {"stage": pa.array([0] * n, pa.int32()), "repeats": pa.array([1] * n, pa.int32())}
    return pa.table({**fixed, "key": few["key"], "uri": few["uri"], **numbers}).select(COLUMNS)


def _trained(selection: Selection, images: TrainingImages, sources: Mapping[str, int]) -> np.ndarray:
    """Rows of as many images that are trained on, evenly spaced within each source."""
    hashes: list[int] = []
    for name, count in sources.items():
        keys = sorted(_keys(selection.rows(), name).to_pylist())
        hashes += [image_hash(name, keys[place]) for place in _evenly(len(keys), count)]
    return np.flatnonzero(np.isin(images.facts.hashes, np.array(hashes, np.uint64)))


def _by_source(table: pa.Table, hashes: np.ndarray) -> dict[str, int]:
    """How many of the images with these hashes come from each source."""
    return dict(Counter(table.filter(pa.array(np.isin(identities(table), hashes)))["source"].to_pylist()))


def _shuffled(hashes: np.ndarray) -> np.ndarray:
    """All rows in an order that has nothing to do with what they show."""
    return np.argsort(hashes, kind="stable")


def _evenly(n: int, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, count)).astype(np.int64))


def _sample(pixels: np.ndarray, hashes: np.ndarray) -> Sample:
    return Sample(pixels, hashes, np.full(len(hashes), VISIT, np.int64))
