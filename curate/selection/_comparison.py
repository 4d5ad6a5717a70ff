"""compare(selector, methods): what methods of selection are worth, by the half of the target that they did not see.

The target's images are split in two by group; every method runs afresh for one half, from the same candidates without
the images of the other, under the same wish. What it chose is measured against that other half: headline distance and
index as in ``curate score``, MMD, coverage. ``random`` is always among the methods: what the same budget buys blindly.
A method that chose own images of the target is held against a draw that holds the same ones (``Trial.control``).
Differences to random are paired (``_yardstick``). The same figures are then taken under judges, encoders that had no
part in selecting, on at most 500 images a side (``_judges``): selecting and judging with one encoder flatters a method.

The cost is that of one more selection per method, each on half the target, of a control's figures where one has its
own, and of one score where a method goes by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from curate.comparison import RANDOM, Comparison, Contender, Judge, Reading, called
from curate.diversity import vendi
from curate.results import TARGET, Estimate, Selection
from curate.selection._judges import JUDGES, LIMITS, MOST, Bench, Judging, has_pictures
from curate.selection._methods import find_method
from curate.selection._path import Selector
from curate.selection._trial import Pick, Trial
from curate.selection._yardstick import Measured, Readings, Yardstick, readings
from embeddings.encoders import encoder_spec
from embeddings.errors import CurateError, TooFewImagesError

DIVERSITY_IMAGES = 500  # measured of every selection
MATCHED = (
    "Own images of the target are near without any choice. A method that chose some is held against a draw with the "
    "same ones and random images of the pools: the difference is what choosing among the pools' images gained."
)


def compare(
    selector: Selector,
    methods: Sequence[str],
    *,
    images: int | None = None,
    own: int = 0,
    judges: Sequence[str] = JUDGES,
) -> Comparison:
    """Methods side by side on the half of the target that they did not see.

    Args:
        selector: What is asked, and of which images.
        methods: Names in METHODS; ``random`` is added.
        images: How many each may take, if that is less than the budget allows: what a selection stopped at.
        own: How many of these images are the target's own: the share of them that judges is not asked for.
        judges: Encoders that had no part in selecting.

    Returns:
        Comparison, nearest first; with a ``reason`` and without methods where the target is too small to be split. The
        same for any order of methods, judges, rows and shards. A method that half the target cannot carry has its own
        reason, and so has a judge that finds no images.

    Raises:
        UnknownNameError: no such method or encoder.
        MissingExtraError: a judge's weights or library are not on this machine.
        UsageError: as ``Selector.gathered``.
    """
    names = sorted({*methods, RANDOM})
    for name in names:
        find_method(name)
    bench, panel = _panel(selector, judges)
    try:
        trial = Trial.of(selector, images, own)
        yardstick = Yardstick.of(selector.inputs.target.take(trial.judging))
    except TooFewImagesError as error:
        facts = _request(selector, images, own, judges)
        return Comparison(
            encoder=_encoder(selector), seen=0, judging=0, judges=panel, facts=facts, reason=error.message
        )
    picks = _picks(trial, names)
    controls = {name: c for name, p in picks.items() if name != RANDOM and (c := trial.control(p)) is not None}
    measured, blind = (
        {name: _measure(trial, pick, yardstick) for name, pick in side.items()} for side in (picks, controls)
    )
    found = {_encoder(selector): readings(measured, blind)}
    judging = Judging(trial, picks, controls, bench)
    for number, judge in enumerate(judge for judge in panel if not judge.reason):
        found[judge.name] = judging.readings(number)
    panel = tuple(_heard(judge, found.get(judge.name)) for judge in panel)
    found = {name: by for name, by in found.items() if name == _encoder(selector) or _says_something(by.methods)}
    return Comparison(
        encoder=_encoder(selector),
        seen=len(trial.candidates.queries),
        judging=len(trial.judging),
        contenders=_contenders(trial, picks, controls, found),
        judges=panel,
        notes=tuple(_notes(trial, controls, panel, own)),
        facts=_request(selector, images, own, judges),
    )


def audited(
    selector: Selector, method: str, out: Path, *, against: Sequence[str] = (), judges: Sequence[str] = JUDGES
) -> tuple[Selection, Comparison]:
    """The selection by a method and what it is worth, both in a folder; what is there already is read.

    Args:
        selector: What is asked, and of which images.
        method: What chooses.
        out: The folder.
        against: Further methods to set beside it; ``random`` is added.
        judges: Encoders that had no part in selecting.

    Raises:
        As ``Selector.select`` and ``compare``.
    """
    chosen = selector.select(method, out)
    methods, own = [method, *against], chosen.counts().get(TARGET, 0)
    images = len(chosen) if chosen.facts["stopped"] or own else None
    comparison = _kept(out, _request(selector, images, own, judges), selector, methods)
    if comparison is None:
        comparison = compare(selector, methods, images=images, own=own, judges=judges)
        comparison.save(out)
    return chosen, comparison


def _kept(folder: Path, request: dict[str, Any], selector: Selector, methods: Sequence[str]) -> Comparison | None:
    """The comparison of this very request in a folder, if it is there."""
    try:
        found = Comparison.open(folder)
    except CurateError:
        return None
    compared = {contender.method for contender in found.contenders} or {*methods, RANDOM}
    same = found.facts == request and compared == {*methods, RANDOM}
    silent = any(judge.reason and judge.reason != _unfit(selector, judge.name) for judge in found.judges)
    return found if same and not silent else None  # a judge that found no pictures may find them now


def _request(selector: Selector, images: int | None, own: int, judges: Sequence[str]) -> dict[str, Any]:
    """What is compared, and by which judges: of a checkpoint, say, the weights may change under its name."""
    fixed = {name: name in JUDGES or bool(_unfit(selector, name)) for name in sorted(set(judges))}
    specs = {name: "" if is_fixed else encoder_spec(name).fingerprint for name, is_fixed in fixed.items()}
    compared = {"compared_at": images, **({"own": own} if own else {})}
    return {**selector.wish.to_json(), **selector.inputs.describe(), **compared, "judges": specs}


def _encoder(selector: Selector) -> str:
    return selector.inputs.target.spec.name


def _panel(selector: Selector, names: Sequence[str]) -> tuple[Bench, tuple[Judge, ...]]:
    """The judges that can judge, ready to look, and all that were named."""
    panel = tuple(
        Judge(name=name, limits=LIMITS.get(name, ""), reason=_unfit(selector, name)) for name in sorted(set(names))
    )
    settings = {name: selector.settings[name] for name in ("device", "workers")}
    return Bench.of([judge.name for judge in panel if not judge.reason], **settings), panel


def _unfit(selector: Selector, name: str) -> str:
    """Why an encoder cannot judge, as far as is known before it looks."""
    target = selector.inputs.target
    if name == target.spec.name:
        return "it selected these images"
    return "" if has_pictures(target) else "the target's images are vectors without a source of pictures"


def _picks(trial: Trial, names: Sequence[str]) -> dict[str, Pick]:
    progress, picks = trial.selector.settings["progress"], {}
    for done, name in enumerate(names):
        progress("compare", done, len(names), name)
        picks[name] = trial.pick(name)
    progress("compare", len(names), len(names))
    return picks


def _measure(trial: Trial, pick: Pick, yardstick: Yardstick) -> Measured | str:
    return pick.reason or yardstick.measure(trial.images(pick.rows))


def _heard(judge: Judge, found: Readings | None) -> Judge:
    """The judge, with its reason if it says nothing of any method."""
    if found is None or not found.methods or _says_something(found.methods):
        return judge
    return replace(judge, reason=next(iter(found.methods.values())).index.reason)


def _says_something(found: Mapping[str, Reading]) -> bool:
    return any(reading.index.value is not None for reading in found.values())


def _contenders(
    trial: Trial, picks: Mapping[str, Pick], controls: Mapping[str, Pick], found: Mapping[str, Readings]
) -> tuple[Contender, ...]:
    """Nearest first under the selecting encoder, those without images last."""
    size = min([DIVERSITY_IMAGES, *(len(pick.rows) for pick in picks.values() if len(pick.rows))])
    contenders = []
    for name, pick in picks.items():
        read = {encoder: by.methods[name] for encoder, by in found.items()}
        blind = {encoder: by.controls[name] for encoder, by in found.items() if name in by.controls}
        control = _contender(trial, RANDOM, controls[name], blind) if name in controls else None
        diversity = _diversity(trial, trial.sample(pick.rows, size)) if len(pick.rows) else None
        contenders.append(replace(_contender(trial, name, pick, read), diversity=diversity, control=control))
    encoder = _encoder(trial.selector)
    return tuple(sorted(contenders, key=lambda c: (not c.n, _distance(c.readings.get(encoder)), c.method)))


def _distance(reading: Reading | None) -> float:
    return np.inf if reading is None or reading.index.value is None else reading.index.value


def _contender(trial: Trial, name: str, pick: Pick, found: Mapping[str, Reading]) -> Contender:
    if pick.reason:
        return Contender(method=name, reason=pick.reason)
    candidates, rows = trial.candidates, pick.rows
    counts = dict(zip(candidates.names, np.bincount(candidates.source[rows]).tolist(), strict=False))
    return Contender(
        method=name,
        n=len(rows),
        counts={source: count for source, count in counts.items() if count},
        cost=0.0 if candidates.prices is None else float(candidates.prices[rows].sum()),
        readings=dict(found),
        stopped=pick.stopped,
    )


def _diversity(trial: Trial, rows: np.ndarray) -> Estimate:
    try:
        return vendi(trial.images(rows))
    except CurateError as error:
        return Estimate(value=None, reason=error.message, lower_is_closer=False)


def _notes(trial: Trial, controls: Mapping[str, Pick], panel: Sequence[Judge], own: int) -> list[str]:
    notes = [
        "Every method was run again for the half of the target that does not judge; the judging half was not used."
    ]
    if own:
        notes.append(
            f"Some own images judge, so every method took at most {trial.images_asked:,} images: as many as the "
            "selection, but for its share of those."
        )
    if any(not control.reason for control in controls.values()):
        notes.append(MATCHED)
    if trial.selector.wish.weights:
        notes.append("The judging images count alike, whatever weights the target's images have.")
    if any(not judge.reason for judge in panel):
        notes.append(f"Judges look at up to {MOST:,} images of a side, drawn by key.")
    told = "; ".join(f"{called(judge.name)} ({judge.limits})" for judge in panel if judge.limits and not judge.reason)
    if told and {judge.name for judge in panel} == set(JUDGES):
        return [*notes, f"No judge was named; these stand in: {told}. `curate select --judge ENCODER` takes another."]
    return notes + ([f"What a judge sees: {told}."] if told else [])
