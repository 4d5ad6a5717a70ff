"""What is looked at while a run trains: its curves, its health, the probe; and whether to stop it.

None of it touches the training: a run with a probe and one without end with the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
import torch.nn.functional as F

from curate.pretraining import ranks
from curate.pretraining.checkpoint import KEPT, Mark
from curate.pretraining.curves import Curves
from curate.pretraining.features import features_of
from curate.pretraining.health import Health, feature_spread, judge, should_stop, weight_norm
from curate.pretraining.overfitting import by_heart
from curate.pretraining.probe import TIMES, Probe, Reading, require_probe
from curate.pretraining.schedule import Batch, Schedule
from curate.pretraining.settings import Options
from curate.pretraining.supply import FOLDER, TrainingImages
from curate.pretraining.trackers import Guarded, find_tracker
from curate.pretraining.trainer import Measured, Trainer
from curate.pretraining.unseen import Unseen, find_unseen
from curate.results import Selection
from embeddings.errors import TrainingError, UsageError
from embeddings.progress import Progress, silent

PICTURES = 64  # images that are also seen without augmentation


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What ``pretrain`` takes about watching; the weights do not depend on it, unless it stops the run."""

    abort: bool = False  # stop a run that has been ill for long
    probe: str = ""  # address of labeled images
    tracker: str = ""  # beside curves.jsonl
    keep: int = KEPT  # checkpoints

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise UsageError(f"A run cannot keep {self.keep} checkpoints.", hint="Keep 1 or more.")
        if self.tracker:
            find_tracker(self.tracker)


def resolve_watch(**options: Unpack[Options]) -> Watch:
    """What is looked at in a run with these options.

    Raises:
        UnknownNameError: no such tracker.
        MissingExtraError: it is not installed.
        UsageError: no checkpoint to be kept.
    """
    names = Watch.__dataclass_fields__
    return Watch(**{name: value for name, value in options.items() if name in names})  # type: ignore[arg-type]


def require_watchable(**options: Unpack[Options]) -> None:
    """Refuses a probe that a run with these options could not be watched by, before it is trained.

    Raises:
        SourceError, UsageError, TooFewImagesError: as ``require_probe``.
    """
    if address := options.get("probe"):
        require_probe(address)


class Monitor:
    """Looks at a run after each step. In all processes but the first it looks at nothing."""

    def __init__(self, trainer: Trainer, watch: Watch, *, progress: Progress = silent) -> None:
        """Makes the probe ready.

        Raises:
            UsageError: its source does not do; see ``require_probe``.
        """
        self.trainer, self.watch, self.progress = trainer, watch, progress
        self._first = ranks.rank() == 0
        self._probe: Probe | None = None
        if watch.probe and self._first:
            self._probe = Probe(watch.probe, placement=trainer.placement, progress=progress)
        self._start: Reading | None = None
        self._last: Reading | None = None
        self._unseen: Unseen | str = ""  # or why there are none
        self._begun: dict[str, Any] = {}  # what health compares with, before the first step
        self._before: tuple[Batch, Measured] | None = None  # a step whose loss was not asked for yet
        self._loss: float | None = None  # the last one that was
        self.curves = Curves(None, steps=1)

    def begin(self, folder: Path, selection: Selection, images: TrainingImages, schedule: Schedule) -> None:
        """Finds unseen images and reads the probe before the first step, with the weights that the run starts from."""
        self._folder, self._schedule = folder, schedule
        rows = np.unique(np.linspace(0, len(images.facts) - 1, PICTURES).astype(np.int64))
        self.pictures = squeezed(images.read(rows), self.trainer.settings.backbone.size)
        if self._first:
            edge = self.trainer.settings.backbone.stored_edge
            self._unseen = find_unseen(selection, images, folder / FOLDER, samples=schedule.samples, edge=edge)
        self._begun = {"weight_norm": weight_norm(self.trainer.learner)}
        if isinstance(self._unseen, Unseen):
            self._begun |= self._unseen.begin(self.trainer, batch=schedule.batch)
        if self._probe:
            self._start = self._last = self._read_probe(self._probe)
            self._begun |= {"probe": self._start.accuracy, "probe_se": self._start.se}

    @contextmanager
    def going_on(self, mark: Mark) -> Iterator[None]:
        """Opens the curves where the run stands, and closes them."""
        path = self._folder / "curves.jsonl" if self._first else None
        name = self.watch.tracker
        tracker = None
        if name and self._first:
            tracker = Guarded(name, lambda: find_tracker(name)(self._folder, mark.samples_seen))
        self.curves = Curves(path, steps=self._schedule.steps, samples_seen=mark.samples_seen, tracker=tracker)
        try:
            yield
        finally:
            self.curves.close()

    def wants(self, batch: Batch) -> bool:
        """True if the step is logged; the same in all processes."""
        return self._looks(batch) or self.curves.wants(batch.step)

    def see(self, batch: Batch, measured: Measured) -> bool:
        """Logs a step if it is one of those; True if the run had better stop.

        The loss of a step that is not logged is asked for one step later, when a GPU has it ready.

        Raises:
            TrainingError: the loss is not finite.
            StorageError: no space for the curves.
        """
        before, self._before = self._before, (batch, measured)
        if before:
            self._take_loss(*before)
        if not self.wants(batch):
            return False
        self._take_loss(batch, measured)
        self._before = None
        if not self._first:
            return False
        row: dict[str, Any] = {"samples_seen": batch.end, "step": batch.step + 1, **measured.to_json()}
        row |= {"weight_norm": weight_norm(self.trainer.learner), **self._stage(batch)}
        self.curves.append(row | (self._look(batch) if self._looks(batch) else {}))
        return self.watch.abort and should_stop(self.health(), self.curves.rows, samples=self._schedule.samples)

    def note(self) -> str:
        """What progress shows of the run."""
        told = [] if self._loss is None else [f"loss {self._loss:.3f}"]
        if self._last is not None and self._probe is not None:
            told.append(f"probe {self._last.accuracy:.1%} (frozen {self._probe.frozen.accuracy:.1%})")
        return ", ".join(told)

    def health(self) -> Health:
        """The verdict so far."""
        return judge(self.curves.rows, method=self.trainer.settings.method, start=self._begun)

    def facts(self, mark: Mark) -> dict[str, Any]:
        """What run.json says: health, probe, and where it was stopped."""
        health, samples = self.health(), self._schedule.samples
        stopped = None
        if mark.samples_seen < samples:
            reason = f"{health.verdict} since step {health.step}. {health.detail}"
            stopped = {"reason": reason, "at": mark.samples_seen, "saved": 1 - mark.samples_seen / samples}
        told = {"health": asdict(health), "probe": self._probe_facts(), "unseen": self._unseen_facts()}
        return {**told, "stopped": stopped}

    def _stage(self, batch: Batch) -> dict[str, int]:
        """Which of several stages, one after the other, a batch is of: their losses do not compare."""
        sizes = self._schedule.stage_samples
        if len(sizes) < 2 or self.trainer.settings.order.name == "ramp":
            return {}
        return {"stage": int(np.searchsorted(np.cumsum(sizes), batch.middle, side="right"))}

    def _looks(self, batch: Batch) -> bool:
        return crosses(batch, self._schedule.samples, TIMES)

    def _take_loss(self, batch: Batch, measured: Measured) -> None:
        self._loss = measured.loss
        if not np.isfinite(self._loss):
            row = {"samples_seen": batch.end, "step": batch.step + 1, "loss": self._loss}
            raise TrainingError(
                f"The run diverged. {judge([row]).detail}",
                hint="Lower the learning rate (--set learning_rate=...) and choose a new folder; the last checkpoints "
                "are kept.",
            )

    def _look(self, batch: Batch) -> dict[str, Any]:
        """What is looked at in some steps only: a few images without augmentation, unseen images, and the probe."""
        trainer = self.trainer
        features = features_of(trainer.network, self.pictures, trainer.placement)
        row: dict[str, Any] = {"picture_spread": feature_spread(torch.from_numpy(features))}
        if isinstance(self._unseen, Unseen):
            row |= self._unseen.read(trainer, share=batch.end / self._schedule.samples)
        if self._probe:
            self._last = self._read_probe(self._probe)
            row |= {"probe": self._last.accuracy, "probe_se": self._last.se}
        return row

    def _read_probe(self, probe: Probe) -> Reading:
        backbone = self.trainer.settings.backbone
        return probe.read(self.trainer.network, size=backbone.size, folder=self._folder / FOLDER)

    def _unseen_facts(self) -> dict[str, Any]:
        if not isinstance(self._unseen, Unseen):
            return {"images": 0, "reason": self._unseen}
        looks = [row for row in self.curves.rows if "unseen_loss" in row]
        ends = {"start": self._begun, "end": looks[-1] if looks else self._begun}
        losses = {when: {name: look[f"{name}_loss"] for name in ("unseen", "seen")} for when, look in ends.items()}
        return {**self._unseen.facts(), **losses, "by_heart": by_heart(self.curves.rows, self._begun)}

    def _probe_facts(self) -> dict[str, Any] | None:
        if self._probe is None or self._start is None or self._last is None:
            return None
        readings = {"frozen": self._probe.frozen, "start": self._start, "end": self._last}
        return {**self._probe.facts(), **{name: reading.to_json() for name, reading in readings.items()}}


def squeezed(pixels: np.ndarray, size: int) -> np.ndarray:
    """Images uint8 [n, 3, S, S] at another edge in pixels."""
    small = F.interpolate(torch.from_numpy(pixels).float(), size=(size, size), mode="bilinear", antialias=True)
    return small.round().to(torch.uint8).numpy()


def crosses(batch: Batch, samples: int, times: int) -> bool:
    """True if the batch crosses one of so many equal shares of C."""
    before, after = (seen * times // samples for seen in (batch.start, batch.end))
    return after > before
