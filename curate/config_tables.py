"""The tables of curate.toml as dataclasses; each refuses values that make no sense by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path

from curate.config_reading import require, said
from curate.terms import Terms, split_terms
from embeddings.errors import UsageError
from embeddings.files import is_remote
from embeddings.sources import NAMED, Address, parse_address


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """A target or a pool."""

    uri: str
    label: str | None = None
    group: str | None = None
    where: str | None = None
    price: float | str | None = None
    license: str | None = None
    cap: int | None = None
    floor: int = 0
    of: int | None = None

    def __post_init__(self) -> None:
        _ = self.terms  # refused here, before anything runs
        terms = split_terms(self.uri)[1].to_json()
        if terms:
            raise UsageError(
                f"The uri {self.uri!r} holds terms ({', '.join(terms)}).",
                hint=f"In a file they are keys of their own beside uri: {said(terms)}.",
            )

    @property
    def terms(self) -> Terms:
        """On which conditions its images are to be had."""
        price = "" if self.price is None else str(self.price)
        return Terms(price=price, license=self.license or "", cap=self.cap, floor=self.floor, of=self.of)

    def address(self, root: Path) -> str:
        """The source address, its path relative to ``root`` made whole."""
        return with_selectors(self.uri, root, where=self.where, label=self.label, group=self.group)

    def images(self, root: Path) -> Address:
        """Which images these are, whatever the columns they take their labels and groups from."""
        return replace(parse_address(self.address(root)), label=None, group=None)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """A labeled set; without ``test``, 30% of ``train`` is held out."""

    train: str
    test: str | None = None
    label: str | None = None
    group: str | None = None
    target: str | None = None  # whose runs it evaluates; None: those of every target

    def address(self, root: Path) -> str:
        """TRAIN or TRAIN::TEST with selectors and whole paths."""
        parts = [self.train] if self.test is None else [self.train, self.test]
        return "::".join(with_selectors(part, root, label=self.label, group=self.group) for part in parts)


@dataclass(frozen=True, kw_only=True)
class ArmConfig:
    """One way to choose the data, and the pretraining run on it; what it leaves None a grid varies."""

    name: str
    select: str = "near-first"
    method: str | None = None  # simclr
    samples: int | None = None
    backbone: str | None = None
    init: str | None = None  # scratch
    set: tuple[str, ...] = ()  # NAME=VALUE of knobs, as `curate pretrain --set` takes them
    images: int | None = None  # N; None: what [budget] says
    encoder: str | None = None  # whose features select; None: the file's
    seed: int | None = None  # of the draw and of the training; None: the file's
    target: str | None = None  # the only target it is for; None: all
    pools: tuple[str, ...] | None = None  # the only candidates beside the target's own images; None: all pools
    own: bool = True  # whether the target's own training images are candidates
    shares: tuple[str, ...] = ()  # SOURCE=SHARE of N, exactly; no other source gives any
    far: float | None = None  # share of far images; None: what [budget] says

    def __post_init__(self) -> None:
        require_plain("arms.name", self.name)
        of = f"of arm {self.name!r}"
        require(self.samples is None or self.samples > 0, f"samples {of}", self.samples, "a positive number")
        require(self.images is None or self.images > 0, f"images {of}", self.images, "a positive number")
        require(self.seed is None or self.seed >= 0, f"seed {of}", self.seed, "zero or more")
        require(self.far is None or 0 <= self.far < 1, f"far {of}", self.far, "a share, 0 or more and below 1")
        require(not self.shares or self.pools is None, f"pools {of}", self.pools, "either pools or shares")
        parts = self.parts  # refused here if they make no sense
        require(self.own or "target" not in parts, f"shares {of}", self.shares, "no target, as own = false")
        require(self.own or self.pools != (), f"pools {of}", [], "a pool, as own = false")
        for name in ("set", "shares", "pools"):  # in any order they say the same
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(sorted(getattr(self, name))))

    @property
    def parts(self) -> dict[str, Fraction]:
        """Source -> its share; empty without shares."""
        return parse_shares(self.shares)


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """Values that every arm is run with, in all combinations; one that an arm names itself does not vary in it."""

    targets: tuple[str, ...] = ()
    images: tuple[int, ...] = ()  # N
    samples: tuple[int, ...] = ()  # C
    methods: tuple[str, ...] = ()
    inits: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    encoders: tuple[str, ...] = ()  # whose features select
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for key in fields(self):
            values = getattr(self, key.name)
            require(len(set(values)) == len(values), f"grid.{key.name}", list(values), "values that do not repeat")
        for name, least in (("images", 1), ("samples", 1), ("seeds", 0)):
            values = getattr(self, name)
            require(all(v >= least for v in values), f"grid.{name}", list(values), f"numbers of {least} or more")


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """How the runs of a file are examined, and where they are computed."""

    also: tuple[str, ...] = ()  # further examinations, as `curate evaluate --also` takes them
    set: tuple[str, ...] = ()  # their knobs, as `curate evaluate --set` takes them
    devices: tuple[str, ...] = ()  # runs that go side by side, one per device; none: on --device
    hour_price: float | None = None  # of one device, in any currency: what the dry run tells


def parse_shares(texts: Sequence[str]) -> dict[str, Fraction]:
    """Source -> share from SOURCE=SHARE texts, exact: ``web=0.75``, ``web=3/4``.

    Raises:
        UsageError: no number of 0 or more, a source given twice, or a sum that is not 1.
    """
    shares: dict[str, Fraction] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if not name or name in shares:
            raise UsageError(f"The share {text!r} names no source, or one twice.", hint="Write SOURCE=SHARE.")
        shares[name] = _share(text, number)
    if shares and sum(shares.values()) != 1:
        raise UsageError(
            f"The shares {', '.join(texts)} add up to {float(sum(shares.values())):g}, wanted 1.",
            hint="Mend them; fractions are taken too: web=1/3.",
        )
    return shares


def require_plain(where: str, name: str) -> None:
    """Refuses a name that cannot stand for a folder anywhere.

    Raises:
        ConfigError: as said.
    """
    plain = name and name[0].isalnum() and all(c.isalnum() or c in "-_." for c in name)
    require(bool(plain), where, name, "letters, digits, '-', '_' and '.'")


def _share(text: str, number: str) -> Fraction:
    try:
        share = Fraction(number)
    except (ValueError, ZeroDivisionError):
        share = Fraction(-1)
    if share < 0:
        raise UsageError(f"The share {text!r} is no number of 0 or more.", hint="Write SOURCE=SHARE, as web=0.75.")
    return share


def located(uri: str, root: Path) -> str:
    """A path relative to ``root``, made whole; remote addresses and names (``hf:NAME``) as they are."""
    scheme, _, name = uri.partition(":")
    if scheme == "torchvision":  # NAME@FOLDER
        data_set, _, folder = name.partition("@")
        return f"{scheme}:{data_set}@{located(folder, root)}" if folder else uri
    if is_remote(uri) or scheme in NAMED:
        return uri
    return str(root / Path(uri.removeprefix("file://")).expanduser())


def with_selectors(
    uri: str, root: Path, *, where: str | None = None, label: str | None = None, group: str | None = None
) -> str:
    """An address, its paths relative to ``root`` made whole, with selectors and roles added to those it already has."""
    roles = [f"{role}:{column}" for role, column in (("label", label), ("group", group)) if column]
    added = ",".join(part for part in (where, *roles) if part)
    address = parse_address(located(uri, root))
    if address.view.roi:
        address = replace(address, view=replace(address.view, roi=located(address.view.roi, root)))
    has_selectors = address != Address(path=address.path)
    return f"{address}{',' if has_selectors else '#'}{added}" if added else str(address)
