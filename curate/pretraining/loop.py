"""From a selection to a run folder: read, train, checkpoint, judge, export."""

from __future__ import annotations

import logging
import math
import platform
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, Unpack

from curate.exports.originals import open_sources
from curate.pretraining.backbones import save_backbone
from curate.pretraining.budget import Plan, make_plan, make_schedule, measure_seconds_per_sample
from curate.pretraining.checkpoint import Mark, Origin, load_checkpoint, save_checkpoint
from curate.pretraining.curves import Curves
from curate.pretraining.health import judge
from curate.pretraining.heap import resident_heap
from curate.pretraining.images import ImageBlock, load_images
from curate.pretraining.interrupts import stop_requests
from curate.pretraining.run_folder import CONFIG, RUN, find_run
from curate.pretraining.sample import Sample
from curate.pretraining.schedule import Batch, Schedule
from curate.pretraining.settings import Options, Settings, open_selection, resolve_settings
from curate.pretraining.trainer import Measured, Trainer
from curate.results import Run, Selection
from embeddings import files
from embeddings.errors import TooFewImagesError, TrainingError
from embeddings.progress import Progress, silent

log = logging.getLogger(__name__)
CHECKPOINTS = 20  # per run, at equal shares of C
READ_AHEAD = 2  # batches
T = TypeVar("T")
U = TypeVar("U")


def pretrain(
    selection: Selection | str | Path,
    *,
    samples: int,
    out: Path | str,
    device: str = "auto",
    progress: Progress = silent,
    **options: Unpack[Options],
) -> Run:
    """Trains a backbone on the selected images, without labels, for exactly ``samples`` images seen.

    The same call on the same folder continues an interrupted run, bit for bit on a CPU, and returns a finished one.

    Args:
        selection: a Selection or the folder it was saved in.
        samples: C; every image is seen floor(C / N) or ceil(C / N) times, or its ``repeats`` times that.
        out: the run's folder.
        device: ``auto``, ``cpu``, ``cuda``, ...
        progress: told of each step.
        **options: method, backbone, init, batch, size, seed, config; see ``Options``.

    Raises:
        UsageError: names, sizes or budgets that cannot be met; a folder of something else, or a run begun in another
            precision (ForeignFolderError).
        TrainingError: no readable image, or a loss that is not finite; earlier checkpoints stay.
        StorageError: no space.
        KeyboardInterrupt: SIGINT or SIGTERM; a checkpoint is written first.
    """
    chosen, folder = open_selection(selection), Path(out)
    settings = resolve_settings(chosen, samples=samples, **options)
    if finished := find_run(folder, settings.document()):
        return finished
    images, schedule = _claim(folder, settings, chosen, progress)
    trainer = Trainer(settings, device)
    plan = make_plan(settings, schedule, seconds_per_sample=measure_seconds_per_sample(trainer, batch=schedule.batch))
    for warning in plan.warnings:
        log.warning(warning)
    if len(images.errors):
        first = images.errors.slice(0, 1).to_pylist()[0]
        lost = f"{len(images.errors):,} of {len(images) + len(images.errors):,} selected images cannot be read"
        progress("plan", 0, 0, f"{lost} ({first['reason']}, as {first['source']}/{first['key']})")
    progress("plan", 0, 0, str(plan))
    curves, seconds = _train(trainer, images, schedule, folder, progress)
    save_backbone(folder, trainer.network, size=settings.backbone.size)
    files.write_table(folder / "errors.parquet", images.errors)
    facts = _facts(trainer, plan, curves) | {"errors": len(images.errors), "seconds": round(seconds, 3)}
    files.write_json(folder / RUN, facts)
    files.remove_folder(folder / "images")
    return Run(path=folder, facts=facts)


def _claim(folder: Path, settings: Settings, selection: Selection, progress: Progress) -> tuple[ImageBlock, Schedule]:
    """Makes the folder this run's own and fills it with the decoded images; takes it back if they are too few."""
    sources = open_sources(selection)
    files.write_json(folder / CONFIG, settings.document())
    try:
        edge = settings.backbone.stored_edge
        images = load_images(selection.rows(), sources, folder / "images", edge=edge, progress=progress)
        return images, make_schedule(settings, images.facts)
    except (TrainingError, TooFewImagesError):
        files.remove_folder(folder)  # else images that are mended later would still count as unreadable
        raise


def _train(
    trainer: Trainer, images: ImageBlock, schedule: Schedule, folder: Path, progress: Progress
) -> tuple[Curves, float]:
    """Takes all steps that are left; returns the curves and the seconds, those before an interruption included."""
    checkpoints, state = folder / "checkpoints", (trainer.learner, trainer.optimizer)
    origin = Origin(config=files.digest(trainer.settings.document()), precision=trainer.placement.precision)
    mark = load_checkpoint(checkpoints, *state, origin) or Mark()
    curves = Curves(folder / "curves.jsonl", steps=schedule.steps, samples_seen=mark.samples_seen)
    start = time.perf_counter() - mark.seconds

    def load(batch: Batch) -> Sample:
        return Sample(images.read(batch.rows), images.facts.hashes[batch.rows], batch.visits)

    with resident_heap(), stop_requests() as stop:
        for batch, sample in read_ahead(schedule.batches(mark.step), load):
            measured = trainer.step(sample, share=batch.middle / schedule.samples, batch=schedule.batch)
            _log(curves, batch, measured)
            seconds = time.perf_counter() - start
            mark = Mark(step=batch.step + 1, samples_seen=batch.end, seconds=seconds)
            if stop.asked or _is_due(batch, schedule.samples):
                save_checkpoint(checkpoints, *state, mark=mark, origin=origin)
            if stop.asked:
                raise KeyboardInterrupt
            progress("pretrain", batch.end, schedule.samples, f"loss {measured.loss:.3f}")
    return curves, mark.seconds


def read_ahead(items: Iterable[T], load: Callable[[T], U], *, depth: int = READ_AHEAD) -> Iterator[tuple[T, U]]:
    """Each item with what ``load`` makes of it, in order; one thread loads up to ``depth`` items ahead."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[tuple[T, Future[U]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(load, item)))
            if len(waiting) > depth:
                ready, future = waiting.popleft()
                yield ready, future.result()
        for ready, future in waiting:
            yield ready, future.result()


def _log(curves: Curves, batch: Batch, measured: Measured) -> None:
    """Appends the step to the curves if it is one of those kept.

    Raises:
        TrainingError: the loss is not finite.
    """
    row = {"samples_seen": batch.end, "step": batch.step + 1, **measured.to_json()}
    if not math.isfinite(measured.loss):
        raise TrainingError(
            f"The run diverged. {judge([row]).detail}",
            hint="Lower the learning rate in config and choose a new folder; the last checkpoints are kept.",
        )
    if curves.wants(batch.step):
        curves.append(row)


def _is_due(batch: Batch, samples: int) -> bool:
    """True if the batch crosses one of the equal shares of C at which the state is kept."""
    before, after = (seen * CHECKPOINTS // samples for seen in (batch.start, batch.end))
    return after > before


def _facts(trainer: Trainer, plan: Plan, curves: Curves) -> dict[str, Any]:
    """What run.json says of a finished run."""
    settings = trainer.settings
    versions = {name: version(name) for name in ("numpy", "pillow", "torch")}
    return {
        "schema": "curate.run/1",
        "config": settings.document(),
        "selection": settings.selection,
        **plan.to_json(),
        "health": asdict(judge(curves.rows)),
        "loss_first": curves.rows[0]["loss"],
        "loss_last": curves.rows[-1]["loss"],
        "device": trainer.placement.device.type,
        "precision": trainer.placement.precision,
        "versions": {"python": platform.python_version(), **versions},
    }
