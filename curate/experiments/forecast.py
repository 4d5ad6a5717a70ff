"""What a study can tell, before any run is begun: the difference that its primary contrast would tell 80 times of 100.

All but two things of the variance in ``statistics`` are known beforehand: seeds S, targets K, and how much every test
unit weighs (w_u, from the listing of the labeled sets and their split). What is not known is how much runs differ:

    D       share of the test images on which two runs of one seed disagree          D sum_u w_u^2 is the variance
    lasting share of that which is the same in every seed                              of their difference over images
    sigma   standard deviation of the difference over seeds, beyond what images make

    V_e = (1 - lasting) D sum_u w_u^2 / S      V_i = lasting D sum_u w_u^2      V_s = x (V_e + sigma^2 / S)

x is drawn from chi^2 over its S - 1 degrees of freedom, for every target; of 9,999 studies that are drawn, the one with
the median interval is told. The three come from a finished study in the same folder or beside it, on one of these
targets and from the same start, averaged over pairs of its arms; else they are assumed. Several settings of one arm (N,
method and so on) are averaged by a contrast, which is not counted here: the forecast errs to the wide side.

Checked on the studies from which the assumption is: D was 0.05 (1,500 to 4,000 samples from public weights, 266 test
images), 0.09 (the same, 1,487 images), 0.08 and 0.16 (4,000 samples from scratch, the same two sets), lasting 0 to
0.06, sigma 0 to 0.006. Points that the pairs of their arms told 80 times of 100, median and middle half, beside the
forecast from these assumptions and from the study's own noise:

    both sets, 3 seeds, public weights, 4,000 samples    1.4 (1.4 to 1.5)    2.3    1.7
    both sets, 3 seeds, from scratch                     2.6 (2.0 to 3.3)    2.3    2.3
    the set of 266 images alone, from scratch            4.3 (3.3 to 6.4)    4.4    4.1
    the same, 2 seeds, public weights, 1,500 samples     4.0 (3.3 to 16)     5.2    3.7
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import special

from curate.evaluation._split import split_labeled
from curate.experiments.analysis import FILE, open_targets
from curate.experiments.matching import Evidence
from curate.experiments.outcomes import Outcomes, averaged, outcome
from curate.experiments.protocol import Contrast, Protocol, open_protocol
from curate.experiments.statistics import (
    MIN_UNITS,
    MOST_SEEDS,
    MOST_UNITS,
    POWER,
    Draws,
    Spread,
    fewest,
    outlook,
    quantile,
)
from curate.reporting.wording import counted, in_points, listed, number, percent
from embeddings import files
from embeddings.errors import CurateError
from embeddings.moments import block_names
from embeddings.sources import open_source
from embeddings.store import ROWS

EXPLORES = "No primary contrast is written down ([protocol] primary): whatever this study finds is to be tested anew."
STUDIES = 9_999  # that are drawn
PAIRS = 120  # of arms of an earlier study that are looked at
PLAN = "study.json"
LISTED = ("key", "uri", "label", "group", "meta")  # what a listing knows of an image


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How much two runs of one seed differ, beyond what their arms differ by."""

    discordant: float  # D
    lasting: float
    of_seeds: float  # sigma^2


ASSUMED = Noise(discordant=0.1, lasting=0.03, of_seeds=0.005**2)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What the primary contrast can tell; figures are None where nothing can be told, and ``reason`` says why."""

    contrast: tuple[str, str]
    matters: float
    seeds: int = 0
    targets: int = 0
    units: int = 0  # test units
    detectable: float | None = None  # difference that is told with 80% power
    power: float | None = None  # to tell one of ``matters``
    seeds_needed: int | None = None  # for 80% at ``matters``; None: more than 100
    units_needed: int | None = None
    is_split: bool = False  # whether labeled sets are cut into a training and a test part
    noise: Noise = ASSUMED
    source: str = ""  # folder of the study from which the noise is; empty: assumed
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return {**asdict(self), "contrast": list(self.contrast)}

    def lines(self) -> list[str]:
        """The same in words."""
        head = f"Primary contrast, {self.contrast[0]} against {self.contrast[1]}"
        if self.reason:
            return [f"{head}: {self.reason}"]
        sizes = ((self.seeds, "seed"), (self.targets, "target"), (self.units, "test unit"))
        least = "no difference" if self.detectable is None else f"a difference of about {in_points(self.detectable)}"
        told = f"{head}: {listed([counted(n, noun) for n, noun in sizes])} tell {least} 80 times of 100"
        if self.power is not None and self.power >= POWER:
            return [f"{told}, enough for the {in_points(self.matters)} that matter. {self._basis()}"]
        return [f"{told}. {self._what_is_lost()} {self._basis()}"]

    def _what_is_lost(self) -> str:
        """How often a difference that matters is missed, and what to raise."""
        missed = f"{number(100 * (1 - (self.power or 0.0)))} times of 100"
        lost = f"One of {in_points(self.matters)}, which matters, would stay undecided {missed}"
        ways = [f"{counted(self.seeds_needed, 'seed')} an arm"] if self.seeds_needed else []
        ways += [f"{_rounded(self.units_needed)} test units"] if self.units_needed else []
        takes = (
            f"about {' or '.join(ways)} would tell it" if ways else "to tell it takes more seeds and more test units"
        )
        free = ' [study] set = ["folds=5"] would test every labeled image.' if self.is_split else ""
        return f"{lost}; {takes}.{free}"

    def _basis(self) -> str:
        disagree = f"two runs of one seed disagree on {percent(self.noise.discordant, 0)} of the test units"
        return f"This takes it that {disagree}, as in {self.source}." if self.source else f"Assumed: {disagree}."


@dataclass(frozen=True, kw_only=True)
class TargetUnits:
    """The test units of one target: their names, and how much the accuracy moves when one is told wrongly."""

    units: np.ndarray  # [U]
    weights: np.ndarray  # [U]


def forecast(
    protocol: Protocol,
    cells: Sequence[Mapping[str, Any]],
    labeled: Mapping[str, Mapping[str, str]],
    *,
    folds: int = 1,
    earlier: Mapping[str, Noise] | None = None,
    source: str = "",
) -> Forecast | None:
    """What the primary contrast of a study can tell; None where there is no such contrast.

    Args:
        protocol: Of the file.
        cells: Every cell as cells.json tells it.
        labeled: Target -> its labeled sets, name -> TRAIN or TRAIN::TEST.
        folds: In which every labeled image is tested.
        earlier: Target -> how runs differed in an earlier study; the mean stands for other targets.
        source: Where that is.
    """
    if protocol.primary is None:
        return None
    seeds = _seeds(protocol, cells)
    said: dict[str, Any] = {"contrast": protocol.primary, "matters": protocol.matters}
    if not seeds or min(seeds.values()) < 2:
        reason = "one seed of an arm decides nothing, whatever comes out; give [grid] two seeds or more."
        return Forecast(**said, reason=reason)
    try:
        tested = [_tested(labeled[name], protocol, folds) for name in seeds]
    except CurateError as error:
        return Forecast(**said, reason=f"its test images cannot be counted ({error.message.rstrip('.')}).")
    mean = _mean(list((earlier or {}).values()) or [ASSUMED])
    noises = [(earlier or {}).get(name, mean) for name in seeds]
    found = typical(tested, noises, seeds=min(seeds.values()))
    said |= {"seeds": found.seeds, "targets": len(seeds), "units": found.units}
    if found.units < MIN_UNITS:
        return Forecast(**said, reason=f"it takes {MIN_UNITS} test units or more, and there are {found.units}.")
    told = outlook(found, matters=protocol.matters, level=protocol.level)
    needed = {} if told["power"] >= POWER else _needed(tested, noises, found, protocol)
    addresses = [address for name in seeds for address in labeled[name].values()]
    figures = {"detectable": told["detectable"], "power": told["power"], **needed}
    figures["is_split"] = folds == 1 and not any("::" in address for address in addresses)
    return Forecast(**said, **figures, noise=_mean(noises), source=source)


def _needed(
    targets: Sequence[TargetUnits], noises: Sequence[Noise], found: Spread, protocol: Protocol
) -> dict[str, int | None]:
    """Seeds, or test units, with which a typical study tells what matters with 80% power."""
    seeds, units = found.seeds, found.units
    rule = {"matters": protocol.matters, "alpha": 1 - protocol.level}

    def with_seeds(count: int) -> Spread:
        return typical(targets, noises, seeds=count).at_difference(protocol.matters)

    def with_units(count: int) -> Spread:
        return typical(targets, noises, seeds=seeds, times=count / units).at_difference(protocol.matters)

    return {
        "seeds_needed": fewest(with_seeds, MOST_SEEDS, **rule),
        "units_needed": fewest(with_units, MOST_UNITS, **rule),
    }


def typical(targets: Sequence[TargetUnits], noises: Sequence[Noise], *, seeds: int, times: float = 1.0) -> Spread:
    """Variance of the mean difference over targets that a study typically finds, with two seeds or more.

    Args:
        targets: Their test units.
        noises: How much runs differ, by target.
        seeds: Of every arm.
        times: So many times the test units.
    """
    n, rest = len(targets), seeds - 1
    squares = np.array([float((target.weights**2).sum()) for target in targets]) / times
    shares, lasting, luck = np.array([[x.discordant, x.lasting, x.of_seeds] for x in noises]).T
    both = (1 - lasting) * shares * squares / seeds / n**2
    number_of = np.unique(np.concatenate([target.units for target in targets]), return_inverse=True)[1]
    weights = np.bincount(number_of, weights=np.concatenate([target.weights for target in targets])) / n
    units = round(len(weights) * times)
    from_images = float((lasting * shares * squares).sum() / n**2 + (weights**2).mean() / times**2)
    drawn = np.random.default_rng(0).chisquare(rest, (STUDIES, n)) / rest
    of_seeds = drawn * (both + luck / seeds / n**2)
    from_seeds = np.maximum(of_seeds, both).sum(axis=1)
    square = (of_seeds**2 / rest + both**2 / (rest * max(units - 1, 1))).sum(axis=1)
    reach = special.stdtrit(from_seeds**2 / square, 0.975) * from_seeds + quantile(0.975, units - 1) * from_images
    middle = np.argsort(reach / np.sqrt(from_seeds + from_images))[STUDIES // 2]
    return Spread(
        from_seeds=float(from_seeds[middle]),
        together=float(both.sum()),
        from_images=from_images,
        seeds_square=float(square[middle]),
        discordant=float((shares * squares).sum() / squares.sum() + 1 / units),
        seeds=seeds,
        units=units,
    )


def noise_of(conditions: Iterable[Draws]) -> Noise:
    """How much the runs of a finished contrast differed, two seeds or more in every condition."""
    found = []
    for draws in conditions:
        seeds, squares = len(draws.values), float((draws.weights**2).sum())
        mean = draws.influence.mean(axis=0)
        together = float(((draws.influence - mean) ** 2).sum()) / (seeds - 1)
        images = float((draws.influence**2).sum(axis=1).mean())
        lasting = (float((mean**2).sum()) - together / seeds) / images if images else 0.0
        found.append((images / squares, lasting, float(draws.values.var(ddof=1)) - together))
    discordant, lasting, of_seeds = np.mean(found, axis=0)
    return Noise(discordant=float(discordant), lasting=float(lasting), of_seeds=float(of_seeds))


def earlier_noise(
    out: Path, targets: Mapping[str, str], protocol: Protocol, cells: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Noise], str]:
    """How runs differed in a finished study on one of these targets, and its folder; nothing where there is none.

    Args:
        out: Folder of the study that is planned; a study in it goes before those beside it, these by name.
        targets: Name -> address.
        protocol: Whose metric counts.
        cells: Their starts are those that count.
    """
    known = {address: name for name, address in targets.items()}
    starts = {"init": tuple(dict.fromkeys(cell["init"] for cell in cells))}
    for folder in (out, *sorted(place for place in out.parent.glob("*") if place != out)):
        try:
            is_study = (folder / FILE).is_file() and (folder / PLAN).is_file()
            found = _noises(folder, known, protocol, starts) if is_study else {}
        except (CurateError, OSError, KeyError, TypeError, AttributeError):
            continue  # unreadable, somebody else's, or of another version: no evidence
        if found:
            return found, str(folder)
    return {}, ""


def _noises(
    folder: Path, known: Mapping[str, str], protocol: Protocol, starts: Mapping[str, tuple[Any, ...]]
) -> dict[str, Noise]:
    """By the names of this study's targets."""
    named = {theirs: known[at] for theirs, at in files.read_json(folder / PLAN)["targets"].items() if at in known}
    theirs = open_protocol(folder)[0]
    targets = [target for target in open_targets(folder, theirs)[0] if target.target in named]
    if not targets:
        return {}
    own = Protocol(metric=protocol.metric, labeled=theirs.labeled)
    evidence, found = Evidence(targets=tuple(targets), protocol=own), dict[str, list[Noise]]()
    for first, second in islice(combinations(evidence.arms, 2), PAIRS):
        match = evidence.compare(Contrast.of_arms(first, second, "noise"), starts)
        for name, draws in zip(match.targets, match.conditions, strict=True):
            if len(draws.values) > 1:
                found.setdefault(named[name], []).append(noise_of([draws]))
    return {name: _mean(noises) for name, noises in found.items()}


def _mean(noises: Sequence[Noise]) -> Noise:
    """Of several; no variance is less than none."""
    discordant, lasting, of_seeds = np.mean([[n.discordant, n.lasting, n.of_seeds] for n in noises], axis=0)
    return Noise(discordant=float(discordant), lasting=max(float(lasting), 0.0), of_seeds=max(float(of_seeds), 0.0))


def _seeds(protocol: Protocol, cells: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Target -> seeds that both arms of the primary contrast have, of targets that have both arms."""
    seeds: dict[str, list[set[Any]]] = {}
    for cell in cells:
        if cell["arm"] in (protocol.primary or ()) and all(cell.get(k) in v for k, v in protocol.where.items()):
            sides = seeds.setdefault(str(cell["target"]), [set(), set()])
            sides[(protocol.primary or ()).index(cell["arm"])].add(cell["seed"])
    return {target: len(first & second) for target, (first, second) in seeds.items() if first & second}


def _tested(labeled: Mapping[str, str], protocol: Protocol, folds: int) -> TargetUnits:
    """The test units of one target's labeled sets, as an evaluation will find them; copies are not known yet."""
    wanted = [name for name in labeled if name in protocol.labeled] or list(labeled)
    parts = [_of_set(labeled[name], protocol.metric, folds) for name in wanted]
    found = averaged(parts)
    return TargetUnits(units=found.units, weights=found.by_arm[""].weights)


def _of_set(address: str, metric: str, folds: int) -> Outcomes:
    """The test units of one labeled set, and the weights that they have for any arm."""
    train, _, test = address.partition("::")
    rows = _listed(test or train)
    if not test:
        rows = rows.take(pa.array(split_labeled(rows, folds=folds).test))
    rows = rows.filter(rows["label"].is_valid())
    truth, unit = (np.unique(names, return_inverse=True)[1] for names in (rows["label"], block_names(rows)))
    keys = np.array(rows["key"].to_pylist(), dtype=str)[np.unique(unit, return_index=True)[1]]
    right = np.zeros(len(rows), bool)
    found = outcome(right, truth, unit, metric=metric, folds=folds if not test else 1)
    return Outcomes(units=keys, by_arm={"": found})


def _listed(address: str) -> pa.Table:
    """The rows of a source as far as its listing knows them."""
    images = open_source(address).listing().images
    known = {name: images[name] for name in LISTED}
    columns = [known.get(field.name, pa.nulls(len(images), field.type)) for field in ROWS]
    return pa.table(columns, schema=ROWS)


def _rounded(count: int) -> str:
    """A number of which no more than two digits are known."""
    return number(round(count, 2 - len(str(count))))
