"""Curves of runs, made by hand."""

import numpy as np


def rows(losses, spread=0.5, chance=5.0, every=1, **more):
    """One logged step for each loss, ``every`` so many steps; None in ``more`` is not logged."""
    return [
        {"samples_seen": 10 * (i + 1), "step": every * (i + 1), "loss": value, "chance_loss": chance}
        | {"feature_spread": spread}
        | {name: values[i] for name, values in more.items() if values[i] is not None}
        for i, value in enumerate(losses)
    ]


def looked(unseen, seen, *, noise=0.0, probe=None):
    """A run whose loss falls, looked at in every tenth of C; ``noise`` in each part's own loss, not shared by looks."""
    rng, extra = np.random.default_rng(0), {"probe": probe or [None] * len(unseen)}
    curve = rows(list(np.linspace(5, 2, len(unseen))), **extra, probe_se=[0.02 if p else None for p in extra["probe"]])
    for row, ours, theirs in zip(curve, unseen, seen, strict=True):
        parts = ours + 0.3 * np.linspace(-1, 1, 8) + noise * rng.normal(size=8)
        row |= {"unseen_loss": ours, "unseen_parts": parts.tolist()}
        row |= {"seen_loss": theirs, "seen_parts": (parts - ours + theirs).tolist()}
    return curve


def late(curve):
    """The same, looked at in the last two rows only."""
    return [{k: v for k, v in row.items() if "seen_" not in k} for row in curve[:-2]] + curve[-2:]


def begun(unseen=4.0, seen=4.0, share=0.0):
    """A look before the first step."""
    return {k: v for k, v in looked([unseen], [seen])[0].items() if "seen_" in k} | {"seen_share": share}
