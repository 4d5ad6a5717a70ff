"""What a run will cost, before it starts: images, samples, repeats, steps, time, and what speaks against it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from curate.pretraining.images import images_of
from curate.pretraining.schedule import Images, Schedule
from curate.pretraining.settings import Options, Settings, open_selection
from curate.pretraining.supply import Footprint
from curate.results import Selection

if TYPE_CHECKING:
    from curate.pretraining.execution import Execution
    from curate.pretraining.measure import Cost
    from curate.pretraining.trainer import Trainer

FROM_SCRATCH_NEEDS = 50_000  # images; below, self-supervision from scratch is not known to pay (arXiv 2404.17202)


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
    flops_per_sample: float  # of matrix products and convolutions, all views and the backward pass included
    seconds: float  # estimated, of training alone
    footprint: Footprint  # of the decoded images
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        facts = asdict(self) | {"stage_samples": list(self.stage_samples), "warnings": list(self.warnings)}
        del facts["footprint"]
        return {**facts, "decoded_bytes": self.footprint.bytes, "streamed": self.footprint.streamed}

    def without(self, images: int) -> Plan:
        """The plan as it came out when some of its unique images could not be read whenever their turn came."""
        n = self.unique_images - images
        return replace(self, unique_images=n, epochs_equivalent=self.samples_seen / n, diversity=n / self.samples_seen)

    def __str__(self) -> str:
        return (
            f"{self.backbone} from {self.init} weights on N = {self.unique_images:,} images, C = {self.samples_seen:,} "
            f"samples: E = {self.epochs_equivalent:.1f} times each, diversity D = N / C = {self.diversity:.4f} "
            f"(the share of first looks); "
            f"{self.steps:,} steps of {self.batch}, {self.flops_per_sample / 1e9:.2g} GFLOP a sample, "
            f"about {_words(self.seconds)}; {self.footprint}"
        )

    def lines(self) -> list[str]:
        """The plan and what speaks against it, for people."""
        return [str(self), *self.warnings]


def plan(selection: Selection | str | Path, *, samples: int | str, **options: Unpack[Options]) -> Plan:
    """What ``pretrain`` with these arguments will do and about how long it takes; reads no image and writes nothing.

    The estimate times a few steps on noise. Images that turn out unreadable lower N afterwards. Arguments and errors
    are those of ``pretrain``.
    """
    from curate.pretraining.spend import resolve
    from curate.pretraining.trainer import Trainer
    from curate.pretraining.watch import require_watchable

    require_watchable(**options)
    chosen = open_selection(selection)
    settings, execution = resolve(chosen, samples=samples, **options)
    return plan_of(chosen, settings, Trainer(settings, execution))


def plan_of(selection: Selection, settings: Settings, trainer: Trainer) -> Plan:
    """The plan of a run with these settings, which this trainer would make."""
    from curate.pretraining.measure import measure_cost

    schedule = make_schedule(settings, images_of(selection.rows()))
    cost = measure_cost(trainer, batch=schedule.batch)
    return make_plan(settings, schedule, cost, footprint=footprint_of(selection, settings, trainer.execution))


def footprint_of(selection: Selection, settings: Settings, execution: Execution) -> Footprint:
    """What the decoded images of a run take."""
    return Footprint.of(len(selection), edge=settings.backbone.stored_edge, execution=execution)


def make_schedule(settings: Settings, images: Images) -> Schedule:
    """The batches of a run over some images."""
    batch, order = settings.recipe.training.batch, settings.order
    return Schedule(images, samples=settings.samples, batch=batch, seed=settings.seed, order=order)


def make_plan(settings: Settings, schedule: Schedule, cost: Cost, *, footprint: Footprint) -> Plan:
    """The plan of a run with this schedule, from what one sample and all images cost."""
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
        flops_per_sample=cost.flops,
        seconds=samples * cost.seconds,
        footprint=footprint,
        warnings=tuple(_warnings(settings, schedule)),
    )


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
