"""What the runs of a file of arms will take, before any is begun: hours, money, and the longest of them.

    seconds of a run = C x seconds per sample of its setting

A setting is what decides the rate: method and its knobs, backbone, size of the views, start, what is trained. Its rate
is that of finished runs of the study (their median), else it is measured: a few steps on noise, a few seconds, nothing
is written. Several runs that share this machine's cores are measured on their share. Hours side by side are the larger
of the total over the devices and the longest run; the queue's own order comes out at most one longest run above that.
Runs that were begun count whole. Embedding, selection and evaluation come on top.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from curate.experiments.task import Task
from curate.numerals import counted, number
from curate.pretraining.execution import Execution
from curate.pretraining.knobs import read_knobs
from curate.pretraining.measure import measure_cost
from curate.pretraining.run_folder import RUN
from curate.pretraining.settings import Settings, resolve_execution, resolve_settings
from curate.pretraining.trainer import Trainer
from curate.results import Selection
from embeddings import files
from embeddings.errors import UsageError
from embeddings.pipeline.batches import core_count

SAMPLES = 10**9  # of the settings that are measured, which have no C of their own
ROWS = 2_048  # of the selection that stands for any: enough for every batch
RATE = ("method", "recipe", "backbone", "size", "init", "init_weights", "adapt")  # what of a setting decides it
IDLE = ("order", "abort", "probe", "tracker", "keep", "cache")  # knobs that do not


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What one sample of a setting takes on one device."""

    method: str
    backbone: str
    init: str
    runs: int  # of this setting that are to be done
    seconds_per_sample: float
    finished: int  # runs that it was taken from; 0: measured on noise


@dataclass(frozen=True, kw_only=True)
class Price:
    """The runs that are still to be done, and what they take."""

    runs: int
    done: int
    samples: int
    devices: int
    device_hours: float  # of all runs together
    hours: float  # until the last one ends, at least
    longest: str  # name of the longest run; empty if none is left
    longest_hours: float
    run_hours: Mapping[str, float]  # of every run that is still to be done, by name
    hour_price: float | None  # of one device, in any currency
    rates: tuple[Rate, ...]

    @property
    def money(self) -> float | None:
        """Of all device hours."""
        return None if self.hour_price is None else self.hour_price * self.device_hours

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return {
            "schema": "curate.price/1",
            **asdict(self),
            "rates": [asdict(r) for r in self.rates],
            "money": self.money,
        }

    def of_run(self, name: str) -> str:
        """What one of the runs takes, in words."""
        return f"{words(self.run_hours[name])} of training" if name in self.run_hours else "done"

    def lines(self) -> list[str]:
        """The same in words."""
        if not self.runs:
            return [f"All runs are done ({self.done:,})."]
        money = "" if self.money is None else f", {self.money:,.2f} at {self.hour_price:g} per hour"
        side = f", {words(self.hours)} on {self.devices} devices" if self.devices > 1 else ""
        done = f" ({self.done:,} more done)" if self.done else ""
        sizes = f"{counted(self.runs, 'run')}{done}, {self.samples:,} samples"
        return [
            f"{sizes}: {words(self.device_hours)} of training{side}{money}. "
            f"The longest run is {self.longest}, {words(self.longest_hours)}.",
            *(f"  {_rate_in_words(rate)}" for rate in self.rates),
        ]


def price(tasks: Sequence[Task], *, devices: Sequence[str], folder: Path, hour_price: float | None = None) -> Price:
    """What ``queue.run_all`` with these arguments has to do.

    Args:
        tasks: of ``curate.experiments.cells:run_cell``; one is done, too, where its run was finished without a queue.
        devices: as in ``run_all``; the first one is measured.
        folder: of the study.
        hour_price: of one device for an hour, in any currency.

    Raises:
        UsageError: a negative price, or settings that cannot be run.
        ForeignFolderError: the folder holds another study's tasks.
    """
    if hour_price is not None and not 0 <= hour_price < float("inf"):
        raise UsageError(f"An hour cannot cost {hour_price}.", hint="Give 0 or more.")
    is_done = [replace(t, folder=folder / t.folder).is_done() or _run_file(t, folder).exists() for t in tasks]
    done, left = ([task for task, over in zip(tasks, is_done, strict=True) if over is side] for side in (True, False))
    by_run = {str(_run_file(task, folder).parent.absolute()): task for task in left}
    left = [_from_its_first_start(task, by_run) for task in left]
    finished, threads = _finished(done, folder, devices[0]), max(1, core_count() // len(devices))
    rates: list[Rate] = []
    hours: dict[str, float] = {}
    for group in _by_setting(left):
        rates.append(_rate(group, finished, device=devices[0], threads=threads))
        hours |= {task.name: task.arguments["samples"] * rates[-1].seconds_per_sample / 3600 for task in group}
    longest = max(hours, key=lambda name: hours[name], default="")
    total, most = sum(hours.values()), hours.get(longest, 0.0)
    return Price(
        runs=len(left),
        done=len(done),
        samples=sum(task.arguments["samples"] for task in left),
        devices=len(devices),
        device_hours=total,
        hours=max(total / len(devices), most),
        longest=longest,
        longest_hours=most,
        run_hours=hours,
        hour_price=hour_price,
        rates=tuple(rates),
    )


def _from_its_first_start(task: Task, by_run: Mapping[str, Task]) -> Task:
    """The task; one that goes on from a run which is yet to be done starts as that one does, and is as fast."""
    place = str(Path(str(task.arguments["init"]).removeprefix("run:")).absolute())
    if place not in by_run:
        return task
    first = _from_its_first_start(by_run[place], {run: other for run, other in by_run.items() if run != place})
    told = {"init": first.arguments["init"], "backbone": task.arguments["backbone"] or first.arguments["backbone"]}
    return replace(task, arguments={**task.arguments, **told})


def words(hours: float) -> str:
    """A time as one says it."""
    if hours >= 2:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.0f} min" if hours * 60 >= 2 else f"{hours * 3600:.0f} s"


def _rate(group: Sequence[Task], finished: Mapping[str, list[float]], *, device: str, threads: int) -> Rate:
    """The rate of tasks of one setting."""
    settings = _settings(group[0].arguments)
    known = finished.get(_rate_key(settings.document()), [])
    return Rate(
        method=settings.method,
        backbone=f"{settings.backbone.network}@{settings.backbone.size}",
        init=settings.backbone.init,
        runs=len(group),
        seconds_per_sample=median(known) if known else _measured(group[0].arguments, device=device, threads=threads),
        finished=len(known),
    )


def _measured(arguments: Mapping[str, Any], *, device: str, threads: int) -> float:
    """Seconds per sample of a setting, on noise."""
    settings, execution = _settings(arguments), resolve_execution(**{"device": device, **_run_knobs(arguments)})
    with _threads(threads):
        return measure_cost(Trainer(settings, execution), batch=settings.recipe.training.batch).seconds


def _settings(arguments: Mapping[str, Any]) -> Settings:
    told = {name: arguments[name] for name in ("method", "init", "backbone")}
    return resolve_settings(_any_selection(), samples=SAMPLES, **told, **_knobs(arguments))


def _knobs(arguments: Mapping[str, Any]) -> dict[str, Any]:
    found = read_knobs(arguments["knobs"], method=arguments["method"], init=arguments["init"])
    return {name: value for name, value in found.items() if name not in IDLE}


def _run_knobs(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those that say how the run is computed."""
    return {name: value for name, value in _knobs(arguments).items() if name != "config"}


def _by_setting(tasks: Sequence[Task]) -> list[list[Task]]:
    """Tasks by what decides their rate; those that say the same are looked at once."""
    said: dict[str, list[Task]] = {}
    for task in tasks:
        key = files.digest({name: task.arguments[name] for name in ("method", "init", "backbone", "knobs")})
        said.setdefault(key, []).append(task)
    groups: dict[tuple[str, Execution], list[Task]] = {}
    for group in said.values():
        arguments = group[0].arguments
        setting = _rate_key(_settings(arguments).document()), resolve_execution(**_run_knobs(arguments))
        groups.setdefault(setting, []).extend(group)
    return list(groups.values())


def _rate_key(document: Mapping[str, Any]) -> str:
    return files.digest({name: document.get(name) for name in RATE})


def _finished(tasks: Sequence[Task], folder: Path, device: str) -> dict[str, list[float]]:
    """Seconds per sample of the finished runs on devices of this kind, by setting."""
    rates: dict[str, list[float]] = {}
    kind = device.partition(":")[0]
    for task in tasks:
        facts = files.read_json(_run_file(task, folder))
        if kind in ("auto", str(facts["device"]).partition(":")[0]):
            rates.setdefault(_rate_key(facts["config"]), []).append(facts["seconds"] / facts["samples_seen"])
    return rates


def _run_file(task: Task, folder: Path) -> Path:
    """What stands there once its run is finished."""
    return Path(os.path.normpath(folder / task.folder / task.arguments["run"])) / RUN


def _any_selection() -> Selection:
    """A selection of no images in particular."""
    numbers = np.arange(ROWS)
    table = pa.table(
        {
            "source": ["noise"] * ROWS,
            "key": numbers.astype(str),
            "stage": np.zeros(ROWS, np.int64),
            "repeats": np.ones(ROWS, np.int64),
        }
    )
    return Selection(table=table, left_out=table.slice(0, 0), facts={}, sources={})


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Torch on n threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _rate_in_words(rate: Rate) -> str:
    source = counted(rate.finished, "finished run") if rate.finished else "measured on noise"
    return (
        f"{rate.method}, {rate.backbone} from {rate.init}: {counted(rate.runs, 'run')}, "
        f"{_speed(rate.seconds_per_sample)} ({source})"
    )


def _speed(seconds_per_sample: float) -> str:
    """Samples a second, or seconds a sample where that is more than one."""
    if seconds_per_sample > 1:
        return f"{_two_digits(seconds_per_sample)} s a sample"
    return f"{_two_digits(1 / seconds_per_sample)} samples a second"


def _two_digits(value: float) -> str:
    return number(value, 1 if value < 10 else 0)
