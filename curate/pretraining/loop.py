"""From a selection to a run folder: read, train, checkpoint, judge, export."""

from __future__ import annotations

import logging
import math
import platform
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, Unpack

import numpy as np

from curate.exports.originals import open_sources
from curate.pretraining import ranks
from curate.pretraining.backbones import save_backbone
from curate.pretraining.budget import Plan, footprint_of, make_plan, make_schedule
from curate.pretraining.checkpoint import Mark, Origin, load_checkpoint, save_checkpoint
from curate.pretraining.features import require_same_features
from curate.pretraining.heap import resident_heap
from curate.pretraining.interrupts import stop_requests
from curate.pretraining.measure import measure_cost
from curate.pretraining.model_card import write_model_card
from curate.pretraining.run_folder import CONFIG, RUN, find_run
from curate.pretraining.sample import Sample
from curate.pretraining.schedule import Batch, Images, Schedule
from curate.pretraining.settings import Options, Settings, open_selection, resolve_execution
from curate.pretraining.spend import resolve
from curate.pretraining.supply import FOLDER, TrainingImages, Waiting, is_begun, open_images
from curate.pretraining.trained_on import write_trained_on
from curate.pretraining.trainer import Trainer
from curate.pretraining.trends import loss_ends
from curate.pretraining.watch import Monitor, crosses, resolve_watch
from curate.results import Run, Selection
from embeddings import files
from embeddings.errors import TooFewImagesError, TrainingError, UsageError
from embeddings.progress import Progress, silent

log = logging.getLogger(__name__)
CHECKPOINTS = 20  # per run, at equal shares of C
READ_AHEAD = 2  # batches
EXPORTED = 8  # images that the written backbone must see as the trained one does
T = TypeVar("T")
U = TypeVar("U")


def pretrain(
    selection: Selection | str | Path,
    *,
    samples: int | str,
    out: Path | str,
    progress: Progress = silent,
    **options: Unpack[Options],
) -> Run:
    """Trains a backbone on the selected images, without labels, for exactly ``samples`` images seen.

    The same call on the same folder continues an interrupted run, bit for bit on a CPU, and returns a finished one.

    Args:
        selection: a Selection or the folder it was saved in.
        samples: C, or what it may cost (``hours=2``; see ``curate.pretraining.spend``); every image of a stage is seen
            equally often, give or take one, or its ``repeats`` times that.
        out: the run's folder.
        progress: told of each step.
        **options: method, backbone, init, batch, ..., device, precision, ...; see ``Options``.

    Raises:
        UsageError: names, sizes or budgets that cannot be met; a folder of something else, or a run begun in another
            precision (ForeignFolderError).
        TrainingError: no readable image, or a loss that is not finite; earlier checkpoints stay.
        StorageError: no space.
        KeyboardInterrupt: SIGINT or SIGTERM; a checkpoint is written first.
    """
    chosen, folder = open_selection(selection), Path(out)
    with ranks.joined(resolve_execution(**options).place().device):
        settings, execution = resolve(chosen, samples=samples, folder=folder, **options)
        watch = resolve_watch(**options)
        if finished := find_run(folder, settings.document(), abort=watch.abort):
            return finished
        monitor = Monitor(Trainer(settings, execution), watch, progress=progress if ranks.rank() == 0 else silent)
        return _run(folder, chosen, monitor)


def _run(folder: Path, chosen: Selection, monitor: Monitor) -> Run:
    """Everything after the arguments have been checked, by each of the processes that work together."""
    trainer, progress = monitor.trainer, monitor.progress
    settings = trainer.settings
    images, schedule = _claim(folder, trainer, chosen, progress)
    _require_images_for_all(schedule)
    cost = measure_cost(trainer, batch=schedule.batch)
    plan = make_plan(settings, schedule, cost, footprint=footprint_of(chosen, settings, trainer.execution))
    for warning in plan.warnings:
        log.warning(warning)
    if len(images.errors):
        first = images.errors.slice(0, 1).to_pylist()[0]
        told = f"{len(images.errors):,} of {len(chosen):,} selected images cannot be read"
        progress("plan", 0, 0, f"{told} ({first['reason']}, as {first['source']}/{first['key']})")
    progress("plan", 0, 0, str(plan))
    monitor.begin(folder, chosen, images, schedule)
    mark, times = _train(monitor, images, schedule, folder)
    if ranks.rank() == 0:
        save_backbone(folder, trainer.network, size=settings.backbone.size)
        require_same_features(folder, trainer.network, monitor.pictures[:EXPORTED])
        files.write_table(folder / "errors.parquet", images.errors)
        write_trained_on(folder, chosen.rows(), images.errors, earlier=settings.earlier)
        lost = len(images.errors)
        plan = _realized(plan, mark, settings, images.facts).without(lost - (len(chosen) - len(images.facts)))
        facts = _facts(trainer, plan, monitor.curves.rows) | {"errors": lost, **times, **monitor.facts(mark)}
        write_model_card(folder, facts, chosen)
        files.write_json(folder / RUN, facts)
        files.remove_folder(folder / FOLDER)
    ranks.wait()
    return Run.open(folder)


def _require_images_for_all(schedule: Schedule) -> None:
    if schedule.samples // schedule.steps < 2 * ranks.count():
        raise UsageError(
            f"Batches of {schedule.batch} cannot be shared by {ranks.count()} processes, two images each.",
            hint="Start fewer processes, or ask for a larger batch on more images.",
        )


def _claim(folder: Path, trainer: Trainer, selection: Selection, progress: Progress) -> tuple[TrainingImages, Schedule]:
    """The images and their schedule; the first process decodes those that are kept, the others then find them."""
    if ranks.rank() > 0:
        ranks.wait()
    claimed = _claim_first(folder, trainer, selection, progress)
    if ranks.rank() == 0:
        ranks.wait()
    return claimed


def _claim_first(
    folder: Path, trainer: Trainer, selection: Selection, progress: Progress
) -> tuple[TrainingImages, Schedule]:
    """Makes the folder this run's own and opens the images; takes it back if they are too few to begin with."""
    settings, sources = trainer.settings, open_sources(selection)
    files.write_json(folder / CONFIG, settings.document())
    try:
        images = open_images(
            selection.rows(),
            sources,
            folder,
            edge=settings.backbone.stored_edge,
            execution=trainer.execution,
            progress=progress,
        )
        return images, make_schedule(settings, images.facts)
    except (TrainingError, TooFewImagesError):
        if not is_begun(folder):
            files.remove_folder(folder)  # else images that are mended later would still count as unreadable
        raise


def _train(
    monitor: Monitor, images: TrainingImages, schedule: Schedule, folder: Path
) -> tuple[Mark, dict[str, float | None]]:
    """Takes all steps that are left, or as many as are good; returns where it ended, and how long it took and waited
    for images.
    """
    trainer, watch, first = monitor.trainer, monitor.watch, ranks.rank() == 0
    checkpoints, state = folder / "checkpoints", (trainer.learner, trainer.optimizer)
    origin = Origin(config=files.digest(trainer.settings.document()), precision=trainer.placement.precision)
    mark = load_checkpoint(checkpoints, *state, origin) or Mark()
    start = time.perf_counter() - mark.seconds

    def load(batch: Batch) -> Sample:
        own = ranks.own(len(batch.rows))
        rows, visits = batch.rows[own], batch.visits[own]
        return Sample(images.read(rows), images.facts.hashes[rows], visits)

    first_pass = math.ceil(schedule.images_per_pass * schedule.steps / schedule.samples)  # steps
    waiting = Waiting(after=first_pass - mark.step)
    with resident_heap(), stop_requests() as stop, monitor.going_on(mark):
        for batch, sample in waiting.over(read_ahead(schedule.batches(mark.step), load)):
            sizes = {"batch": schedule.batch, "images": len(batch.rows)}
            share, logged = batch.middle / schedule.samples, monitor.wants(batch)
            measured = trainer.step(sample, share=share, logged=logged, **sizes)
            halted = monitor.see(batch, measured)
            seconds = time.perf_counter() - start
            mark = Mark(step=batch.step + 1, samples_seen=batch.end, seconds=seconds)
            stopped = ranks.any_of(stop.asked)
            halted = watch.abort and ranks.any_of(halted)
            if first and (stopped or halted or crosses(batch, schedule.samples, CHECKPOINTS)):
                save_checkpoint(checkpoints, *state, mark=mark, origin=origin, keep=watch.keep)
            if stopped:
                raise KeyboardInterrupt
            monitor.progress("pretrain", batch.end, schedule.samples, monitor.note())
            if halted:
                break
    return mark, {"seconds": round(mark.seconds, 3), "waiting_share": waiting.share}


def read_ahead(items: Iterable[T], load: Callable[[T], U]) -> Iterator[tuple[T, U]]:
    """Each item with what ``load`` makes of it, in order; one thread loads up to READ_AHEAD items ahead."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[tuple[T, Future[U]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(load, item)))
            if len(waiting) > READ_AHEAD:
                ready, future = waiting.popleft()
                yield ready, future.result()
        for ready, future in waiting:
            yield ready, future.result()


def _realized(plan: Plan, mark: Mark, settings: Settings, images: Images) -> Plan:
    """The plan as it came out when the run was stopped before its end."""
    seen = mark.samples_seen
    if seen == plan.samples_seen:
        return plan
    schedule = make_schedule(settings, images)
    rows = np.concatenate([schedule[step].rows for step in range(mark.step)])
    n, stages = len(np.unique(rows)), np.bincount(images.stages[rows], minlength=int(images.stages.max()) + 1)
    present = np.unique(images.stages)[:: -1 if settings.order.name == "reversed" else 1]
    told = tuple(stages[present].tolist()) if len(plan.stage_samples) > 1 else (seen,)
    return replace(
        plan,
        unique_images=n,
        samples_seen=seen,
        epochs_equivalent=seen / n,
        diversity=n / seen,
        steps=mark.step,
        stage_samples=told,
    )


def _facts(trainer: Trainer, plan: Plan, rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What run.json says of a finished run."""
    settings = trainer.settings
    first, last = loss_ends(rows)
    versions = {name: version(name) for name in ("numpy", "pillow", "torch")}
    return {
        "schema": "curate.run/1",
        "config": settings.document(),
        "selection": settings.selection,
        **plan.to_json(),
        "loss_first": first,
        "loss_last": last,
        "device": trainer.placement.device.type,
        "precision": trainer.placement.precision,
        "versions": {"python": platform.python_version(), **versions},
    }
