"""Readable names of the measures beside the index, and what each of them says, for people who have not met it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from curate.reporting.wording import Figure, decimals_for, number, percent, span

IN_TABLE = ("frechet", "coverage", "copies", "frechet_full")  # the table of pools has these
LOWER, HIGHER, COPIES = "lower is nearer", "higher is nearer", "low where a pool copies"


class Named(NamedTuple):
    """How a measure is called, in what it is counted, and how it is read."""

    title: str
    unit: str
    says: str
    direction: str = LOWER
    as_percent: bool = False


MEASURES = {
    "mean_gap": Named("Offset of the means", "squared embedding units", "the part of the distance all images share"),
    "mmd": Named("MMD², degree 2", "squared kernel means", "weighs directions by their variance"),
    "mmd_gaussian": Named("MMD², Gaussian", "squared kernel means", "sees differences of any shape, large ones best"),
    "mmd_gaussian_p": Named("p of that MMD", "p", "small: not one distribution; permutations", HIGHER),
    "kid": Named("KID", "squared kernel means", "as published: kernel of degree 3 on random subsets"),
    "cmmd": Named("CMMD", "thousandths of squared kernel means", "as published, biased up: read it against its null"),
    "fd_infinity": Named("FD∞", "squared embedding units", "full FD extrapolated to any number of images"),
    "sliced": Named("Sliced Wasserstein", "squared embedding units per dimension", "transport along random directions"),
    "sinkhorn": Named("Sinkhorn divergence", "squared embedding units", "transport in the leading directions"),
    "otdd": Named("OTDD", "squared embedding units", "transport where a change of class costs too; needs labels"),
    "to_pool": Named("Target to pool", "spacings of the target", "how far target images find their fifth pool image"),
    "to_target": Named("Pool to target", "spacings of the target", "how far pool images find their fifth target image"),
    "precision": Named("Precision", "share of the pool", "pool images within reach of a target image", HIGHER, True),
    "recall": Named("Recall", "share of the target", "target images within reach of a pool image", HIGHER, True),
    "density": Named("Density", "target balls a pool image lies in, over k", "above 1: in dense places only", HIGHER),
    "authenticity": Named(
        "Authenticity", "share of the pool", "pool images no nearer to the target than it is to itself", COPIES, True
    ),
    "auc": Named("Classifier AUC", "AUC", "how well a linear classifier tells the two apart; 0.5: not at all"),
    "auc_p": Named("p of that classifier", "p", "small: the two differ in their means", HIGHER),
    "pad": Named("Proxy A-distance", "0 to 2", "the classifier's balanced accuracy on another scale"),
    "neurons": Named("Neuron histograms", "activation", "how far the activations of single dimensions have moved"),
}


def measured(pools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per measure that any pool has beside those of the main table: its name, and a cell per pool."""
    present = {name for pool in pools for name in pool["metrics"] if name not in IN_TABLE}
    ordered = [*(name for name in MEASURES if name in present), *sorted(present - {*MEASURES})]
    return [_row(name, [pool["metrics"].get(name) for pool in pools]) for name in ordered]


def _row(name: str, figures: Sequence[Figure | None]) -> dict[str, Any]:
    named = MEASURES.get(name) or _unnamed(name, next(f for f in figures if f))
    return {**named._asdict(), "cells": [_cell(f, named, _digits(named, figures)) for f in figures]}


def _digits(named: Named, figures: Sequence[Figure | None]) -> int:
    """Decimals of a row: two digits of its smallest value, and as many as its intervals need."""
    if named.as_percent or named.unit == "p":
        return 0 if named.as_percent else 3
    known = [f for f in figures if f and f["value"] is not None]
    widths = [10 * (f["high"] - f["low"]) for f in known if f["low"] is not None and f["high"] is not None]
    return max(decimals_for(f["value"] for f in known), min(3, decimals_for(widths)))


def _unnamed(name: str, figure: Figure) -> Named:
    return Named(name, figure["unit"], figure["method"], LOWER if figure["lower_is_closer"] else HIGHER)


def _cell(figure: Figure | None, named: Named, digits: int) -> dict[str, str]:
    """Value, interval and null as text; the reason where there is no value."""
    if figure is None or figure["value"] is None:
        reason = figure["reason"] if figure else "not taken"
        return {"value": "n/a", "span": "", "null": "", "reason": reason}
    show, scale = (percent, 100) if named.as_percent else (number, 1)
    null = "" if figure["null"] is None else show(figure["null"], digits if figure["null"] else 0)
    ends = span(figure, digits, scale=scale)
    return {"value": show(figure["value"], digits), "span": ends, "null": null, "reason": ""}
