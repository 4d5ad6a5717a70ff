"""C as what it costs: GPU-hours, or money at a price per GPU-hour, turned into samples by a measured warm-up.

    200000                  samples
    hours=2                 GPU-hours, of all processes together
    money=20,rate=2.5       money, at a price per GPU-hour

The rate of this machine is measured once, before the run; a run that goes on keeps the samples it was begun with.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import torch

from curate.pretraining import ranks
from curate.pretraining.execution import Execution
from curate.pretraining.measure import measure_cost
from curate.pretraining.run_folder import CONFIG
from curate.pretraining.settings import Options, Settings, resolve_execution, resolve_settings
from curate.pretraining.trainer import Trainer
from curate.results import Selection
from embeddings import files
from embeddings.errors import UsageError

PROVISIONAL = 10**9  # samples, until their cost is known
COUNT = re.compile(r"[0-9]+(_[0-9]+)*|[0-9]{1,3}(,[0-9]{3})+")  # 200000, 200_000 or 200,000
HINT = "Write a number of samples, hours=2, or money=20,rate=2.5."


def read_samples(wish: int | str) -> tuple[int | None, float | None]:
    """Samples, or GPU-hours, from what the user wrote; the other one is None.

    Raises:
        UsageError: neither, or not positive.
    """
    if isinstance(wish, int):
        return wish, None
    if COUNT.fullmatch(wish.strip()):
        return int(re.sub("[_,]", "", wish)), None
    parts = [part.strip().partition("=")[::2] for part in wish.split(",")]
    try:
        values = {name: float(value) for name, value in parts}
    except ValueError:
        values = {}
    if (
        len(values) < len(parts)
        or set(values) not in ({"hours"}, {"money", "rate"})
        or not all(0 < v < math.inf for v in values.values())
    ):
        raise UsageError(f"{wish!r} is not an amount of training.", hint=HINT)
    return None, values["hours"] if "hours" in values else values["money"] / values["rate"]


def resolve(
    selection: Selection, *, samples: int | str, folder: Path | None = None, **options: Unpack[Options]
) -> tuple[Settings, Execution]:
    """What a run is and how it is computed, before anything is written.

    Args:
        selection: what to train on.
        samples: C, in samples or as what it costs.
        folder: of the run, which may have been begun.
        **options: see ``Options``.

    Raises:
        UsageError: what cannot be met; see ``resolve_settings``.
    """
    execution = resolve_execution(**options)
    given, hours = read_samples(samples)
    if hours is None:
        return resolve_settings(selection, samples=given or 0, **options), execution
    settings = replace(resolve_settings(selection, samples=PROVISIONAL, **options), spend=str(samples))
    return _with_samples(settings, hours, execution, folder), execution


def _with_samples(settings: Settings, hours: float, execution: Execution, folder: Path | None) -> Settings:
    """The settings with as many samples as fit into some GPU-hours, or as the run in the folder was begun with.

    Raises:
        UsageError: not even a batch fits into them.
    """
    begun = files.read_json(folder / CONFIG) if folder is not None and (folder / CONFIG).exists() else {}
    if begun.get("spend") == settings.spend:
        return replace(settings, samples=int(begun["samples"]))
    batch = settings.recipe.training.batch
    cost = measure_cost(Trainer(settings, execution), batch=batch)
    fit = int(hours * 3600 / (cost.seconds * ranks.count()))
    samples = int(ranks.total(torch.tensor(fit if ranks.rank() == 0 else 0)))
    if samples < batch:
        raise UsageError(
            f"{settings.spend!r} pays for {samples} samples here ({cost.seconds:.2g} s each), less than one batch of "
            f"{batch}.",
            hint="Spend more, or take a smaller backbone, size or batch.",
        )
    return replace(settings, samples=samples)
