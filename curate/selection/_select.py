"""The public faces of the path: ``select`` in one call, ``open_selector`` where several methods are asked in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from curate.results import Selection, ShiftReport
from curate.selection._gather import Gatherer
from curate.selection._inputs import open_inputs
from curate.selection._methods import find_method
from curate.selection._path import Selector, Wish
from curate.terms import Budget, Terms
from embeddings.pipeline import Embeddable, as_store
from embeddings.progress import Progress, silent


def select(  # noqa: PLR0913 - the public face is flat; inside, what belongs together travels together
    target: Embeddable,
    pools: Mapping[str, Embeddable],
    *,
    budget: int | np.integer[Any] | str | Budget,
    method: str = "near-first",
    exclude: Embeddable | Sequence[Embeddable] = (),
    include_target: bool = True,
    terms: Mapping[str, Terms] | None = None,
    weights: Mapping[str, float] | None = None,
    past_knee: bool = False,
    near_duplicates: bool = True,
    start: Embeddable | None = None,
    report: ShiftReport | None = None,
    out: Path | str | None = None,
    seed: int = 0,
    encoder: str = "lite0",
    work: Path | str | None = Path(".curate"),
    device: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
) -> Selection:
    """Chooses unique images under a budget, with a reason for each; of copies the target's own or the cheapest stays.

    Args:
        target: Store, store folder, source address or array [n, d].
        pools: Name -> the same kinds, from the same encoder.
        budget: N unique images, the target's own included; or limits on images, bytes, money and GPU-hours, caps and
            floors (``curate.terms.Budget``, or its text).
        method: A name in METHODS.
        exclude: Images never to be chosen (validation, test): one or several of the same kinds.
        include_target: Whether the target's own images may be chosen, as source ``target``.
        terms: Source -> price, license, cap, floor.
        weights: Label or group of the target, or COLUMN:VALUE -> how much its images count; 1 if not named.
        past_knee: Go on where near images have run out.
        near_duplicates: Whether near duplicates go, and what resembles excluded images.
        start: What the starting model was trained on, for ``move``.
        report: What ``score`` said of this target and these pools; if needed and not given, it is computed.
        out: Folder for the selection; the same selection is read from there, not made again.
        seed: Of draws and turns.
        encoder: As in ``score``, like the rest.
        work: Folder for embeddings and scores; None keeps nothing.
        device: auto, cpu, cuda.
        workers: Threads that decode.
        progress: Told how far the work is.

    Returns:
        Rows in the order taken: as many as the budget allows; fewer, with ``facts["stopped"] = {"reason", "at"}``, if
        the method ran out, near images did, or caps hold the rest back.

    Raises:
        UsageError: a budget without a limit or above all candidates; floors that cannot be met; no pool, or a bad name;
            nothing the method would take.
        UnknownNameError: no such method, label or limit.
        EncoderMismatchError: different encoders.
        ForeignFolderError: ``out`` holds something else; names the field that differs.
    """
    find_method(method)
    selector = open_selector(
        target,
        pools,
        budget=budget,
        exclude=exclude,
        include_target=include_target,
        terms=terms,
        weights=weights,
        past_knee=past_knee,
        near_duplicates=near_duplicates,
        start=start,
        report=report,
        seed=seed,
        encoder=encoder,
        work=work,
        device=device,
        workers=workers,
        progress=progress,
    )
    return selector.select(method, None if out is None else Path(out))


def open_selector(  # noqa: PLR0913 - as ``select``
    target: Embeddable,
    pools: Mapping[str, Embeddable],
    *,
    budget: int | np.integer[Any] | str | Budget,
    exclude: Embeddable | Sequence[Embeddable] = (),
    include_target: bool = True,
    terms: Mapping[str, Terms] | None = None,
    weights: Mapping[str, float] | None = None,
    past_knee: bool = False,
    near_duplicates: bool = True,
    start: Embeddable | None = None,
    report: ShiftReport | None = None,
    seed: int = 0,
    encoder: str = "lite0",
    work: Path | str | None = Path(".curate"),
    device: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
) -> Selector:
    """Opens or embeds what ``select`` is asked about; arguments and errors are the same.

    Returns:
        What selects by any method (``.select(method, out)``), always from the same candidates.
    """
    settings: dict[str, Any] = {"encoder": encoder, "device": device, "workers": workers, "progress": progress}
    settings["work"] = None if work is None else Path(work)
    wish = Wish.of(
        budget=budget,
        include_target=include_target,
        terms=terms,
        weights=weights,
        past_knee=past_knee,
        near_duplicates=near_duplicates,
        seed=seed,
    )
    inputs = open_inputs(target, pools, exclude, start, opener=partial(as_store, **settings))
    gatherer = Gatherer(inputs=inputs, work=settings["work"], progress=progress)
    return Selector(gatherer=gatherer, wish=wish, settings=settings, given=report)
