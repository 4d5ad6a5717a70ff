"""What a run will cost, before it starts: images, samples, repeats, steps, time, and what speaks against it."""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from curate.pretraining.images import images_of
from curate.pretraining.schedule import Images, Schedule
from curate.pretraining.settings import Options, Settings, open_selection, resolve_settings
from curate.results import Selection

if TYPE_CHECKING:
    from curate.pretraining.trainer import Trainer

FROM_SCRATCH_NEEDS = 50_000  # images; below, self-supervision from scratch is not known to pay (arXiv 2404.17202)
PROBE_IMAGES, PROBE_STEPS = 32, 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The realized budget of a run: N unique images, C samples seen, E = C / N, D = N / C."""

    unique_images: int
    samples_seen: int
    epochs_equivalent: float
    diversity: float
    stage_samples: tuple[int, ...]  # of C, in the order of training
    steps: int
    batch: int  # largest
    backbone: str
    init: str
    seconds: float  # estimated, of training alone
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return {**asdict(self), "stage_samples": list(self.stage_samples), "warnings": list(self.warnings)}

    def __str__(self) -> str:
        return (
            f"{self.backbone} from {self.init} weights on N = {self.unique_images:,} images, C = {self.samples_seen:,} "
            f"samples: E = {self.epochs_equivalent:.1f} times each, diversity D = {self.diversity:.4f}; "
            f"{self.steps:,} steps of {self.batch}, about {_words(self.seconds)}"
        )

    def lines(self) -> list[str]:
        """The plan and what speaks against it, for people."""
        return [str(self), *self.warnings]


def plan(selection: Selection | str | Path, *, samples: int, device: str = "auto", **options: Unpack[Options]) -> Plan:
    """What ``pretrain`` with these arguments will do and about how long it takes; reads no image and writes nothing.

    The estimate times a few steps on noise. Images that turn out unreadable lower N afterwards. Arguments and errors
    are those of ``pretrain``.
    """
    from curate.pretraining.trainer import Trainer

    chosen = open_selection(selection)
    settings = resolve_settings(chosen, samples=samples, **options)
    schedule = make_schedule(settings, images_of(chosen.rows()))
    trainer = Trainer(settings, device)
    return make_plan(settings, schedule, seconds_per_sample=measure_seconds_per_sample(trainer, batch=schedule.batch))


def make_schedule(settings: Settings, images: Images) -> Schedule:
    """The batches of a run over some images."""
    batch, order = settings.recipe.training.batch, settings.order
    return Schedule(images, samples=settings.samples, batch=batch, seed=settings.seed, order=order)


def make_plan(settings: Settings, schedule: Schedule, *, seconds_per_sample: float) -> Plan:
    """The plan of a run with this schedule."""
    n, samples = schedule.unique_images, schedule.samples
    return Plan(
        unique_images=n,
        samples_seen=samples,
        epochs_equivalent=samples / n,
        diversity=n / samples,
        stage_samples=tuple(schedule.stage_samples),
        steps=schedule.steps,
        batch=schedule.batch,
        backbone=f"{settings.backbone.network}@{settings.backbone.size}",
        init=settings.backbone.init,
        seconds=samples * seconds_per_sample,
        warnings=tuple(_warnings(settings, schedule)),
    )


def measure_seconds_per_sample(trainer: Trainer, *, batch: int) -> float:
    """Times a few steps on noise with a copy of the trainer, so that the run itself is not touched."""
    from curate.pretraining.sample import Sample

    twin, edge = copy.deepcopy(trainer), trainer.settings.backbone.stored_edge
    n = min(batch, PROBE_IMAGES)
    numbers = np.arange(n, dtype=np.uint64)
    noise = np.random.default_rng(0).integers(0, 256, (n, 3, edge, edge), dtype=np.uint8)
    sample = Sample(noise, hashes=numbers, visits=np.zeros(n, np.int64))
    times = []
    for _ in range(PROBE_STEPS):
        start = time.perf_counter()
        twin.step(sample, share=0.0, batch=batch)
        times.append(time.perf_counter() - start)
    return min(times) / n


def _warnings(settings: Settings, schedule: Schedule) -> list[str]:
    n, wished = schedule.unique_images, settings.recipe.training.batch
    warnings = []
    if settings.backbone.init == "scratch" and n < FROM_SCRATCH_NEEDS:
        warnings.append(
            f"{n:,} images are few for training from scratch: below about {FROM_SCRATCH_NEEDS:,} it is not known to "
            "help (arXiv 2404.17202). Use public weights (init public), or expect the frozen public encoder to win."
        )
    if schedule.batch < wished:
        warnings.append(f"The batch is {schedule.batch} instead of {wished}, a quarter of the {n:,} images.")
    if settings.samples < schedule.images_per_pass:
        warnings.append(f"C = {settings.samples:,} samples do not reach every image once.")
    return warnings


def _words(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
