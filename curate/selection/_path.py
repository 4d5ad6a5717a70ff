"""select(target, pools, budget=N): the path that every method takes, controls included.

Open and embed -> exact duplicates and excluded images out -> the method -> manifest. The Selection has the same bytes
for any order of arguments, rows and shards, with and without FAISS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from curate.results import Selection, ShiftReport
from curate.scoring import score
from curate.selection._candidates import Choice
from curate.selection._folder import find_selection
from curate.selection._gather import Gathered, gather
from curate.selection._inputs import Inputs, open_inputs
from curate.selection._manifest import build_manifest
from curate.selection._methods import NEEDS_REPORT, load_method
from embeddings.errors import UsageError
from embeddings.pipeline import Embeddable, as_store
from embeddings.progress import Progress, silent


def select(  # noqa: PLR0913 - the public face is flat; inside, what belongs together travels together
    target: Embeddable,
    pools: Mapping[str, Embeddable],
    *,
    budget: int,
    method: str = "near-first",
    exclude: Embeddable | Sequence[Embeddable] = (),
    include_target: bool = True,
    report: ShiftReport | None = None,
    out: Path | str | None = None,
    seed: int = 0,
    encoder: str = "lite0",
    work: Path | str | None = Path(".curate"),
    device: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
) -> Selection:
    """Chooses N unique images, with a reason for each; of copies one stays, the target's own or the first pool's.

    Args:
        target: Store, store folder, source address or array [n, d].
        pools: Name -> the same kinds, from the same encoder.
        budget: N, unique images; the target's own count.
        method: A name in METHODS.
        exclude: Images never to be chosen (validation, test): one or several of the same kinds.
        include_target: Whether the target's own images may be chosen, as source ``target``.
        report: What ``score`` said of this target and these pools; if needed and not given, it is computed.
        out: Folder for the selection; the same selection is read from there, not made again.
        seed: Of draws and turns.
        encoder: As in ``score``, like the rest.
        work: Folder for embeddings and scores; None keeps nothing.
        device: auto, cpu, cuda.
        workers: Threads that decode.
        progress: Told how far the work is.

    Returns:
        N rows in the order taken; fewer, with ``facts["stopped"] = {"reason", "at"}``, if the method ran out.

    Raises:
        UsageError: a budget below 1 or above all candidates; no pool, or a bad name; nothing the method would take.
        UnknownNameError: no such method.
        EncoderMismatchError: different encoders.
        ForeignFolderError: ``out`` holds something else; names the field that differs.
    """
    choose, budget = load_method(method), _checked(budget)
    settings: dict[str, Any] = {"encoder": encoder, "device": device, "workers": workers, "progress": progress}
    settings["work"] = None if work is None else Path(work)
    inputs = open_inputs(target, pools, exclude, partial(as_store, **settings))
    report = _report(inputs, report, settings) if method in NEEDS_REPORT else None
    request = {"method": method, "budget": budget, "seed": int(seed), "include_target": include_target}
    request |= {**inputs.describe(), "verdicts": report and [[pool.name, pool.verdict] for pool in report.pools]}
    found = find_selection(Path(out), request, inputs.sources) if out is not None else None
    if found is not None:
        return found
    selection = _make(inputs, request, choose, report, progress)
    return selection if out is None else selection.save(Path(out))


def _make(
    inputs: Inputs,
    request: dict[str, Any],
    choose: Callable[..., Choice],
    report: ShiftReport | None,
    progress: Progress,
) -> Selection:
    """The selection of a request: candidates, choice, manifest."""
    gathered = _gather(inputs, request["include_target"], request["budget"])
    candidates = replace(gathered.candidates, report=report, progress=progress)
    choice = _require_some(choose(candidates, budget=request["budget"], seed=request["seed"]))
    return Selection(
        table=build_manifest(candidates, choice),
        left_out=gathered.left_out,
        facts={**request, **_outcome(gathered, choice)},
        sources=inputs.sources,
    )


def _checked(budget: int) -> int:
    if isinstance(budget, bool) or not isinstance(budget, int | np.integer) or budget < 1:
        raise UsageError(
            f"The budget is {budget!r}; wanted a whole number of images, at least 1.", hint="Give --budget N."
        )
    return int(budget)


def _report(inputs: Inputs, report: ShiftReport | None, settings: dict[str, Any]) -> ShiftReport:
    """The report given, if it is of these images; else a new one."""
    if report is None:
        return score(inputs.target, inputs.pools, **settings)
    inputs.require_report(report)
    return replace(report, pools=tuple(pool for pool in report.pools if pool.name in inputs.pools))


def _gather(inputs: Inputs, include_target: bool, budget: int) -> Gathered:
    """The candidates, if there are enough of them."""
    gathered = gather(inputs.stores, inputs.excluded, include_target=include_target)
    n, names = len(gathered.candidates), "the pools and the target" if include_target else "the pools"
    if not len(gathered.candidates.queries):
        raise UsageError(
            "Every image of the target is excluded: nothing is left to select for.",
            hint="Give the target's training part as --target, its test part as --exclude.",
        )
    if budget > n:
        total = n + gathered.duplicates + gathered.excluded
        raise UsageError(
            f"The budget is {budget:,}, but there are {n:,} candidates: {names} hold {total:,} images, "
            f"of which {gathered.duplicates:,} are exact duplicates and {gathered.excluded:,} are excluded.",
            hint=f"Ask for at most {n:,}, or add pools." if n else "Add pools.",
        )
    return gathered


def _require_some(choice: Choice) -> Choice:
    if not len(choice.rows):
        raise UsageError(
            f"Nothing to select: {choice.stopped}.",
            hint="Find nearer pools; near-first and random choose whatever the score says.",
        )
    return choice


def _outcome(gathered: Gathered, choice: Choice) -> dict[str, Any]:
    """What came of a request, as JSON."""
    stopped = {"reason": choice.stopped, "at": len(choice.rows)} if choice.stopped else None
    candidates = gathered.candidates
    chosen = np.bincount(candidates.source[choice.rows], minlength=len(candidates.names)).tolist()
    return {
        "candidates": candidates.counts(),
        "chosen": dict(zip(candidates.names, chosen, strict=True)),
        "dropped": {"duplicates": gathered.duplicates, "excluded": gathered.excluded},
        "parameters": choice.parameters,
        "stopped": stopped,
    }
