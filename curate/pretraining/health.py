"""Is it learning? A verdict in words from the curves of a run, with the step at which it began and what to do.

diverged       a loss or gradient that is not finite, a loss far above where it began and above its chance value, or
               gradients that vanish behind batch norms long before the loss is low
collapsed      the features do not tell images apart
overfitting    while the loss of the training images falls, the probe gets worse; where there is none, the loss of
               images that are not trained on rises, or falls much less
forgetting     the same from the first step on: the weights it began with were better
not learning   the loss does not move, or sits at its chance value, that of a network that tells nothing apart
too early      the loss is above its chance value and falls
healthy        none of these

What each sign can see. The loss is of the training images alone: a network that learns them by heart looks healthy. The
feature spread says that views differ, be it only by their colors. The share of the image in the features' variance
says whether two views of one image are more alike than those of two images; methods of a single view have none, so a
few images are also seen as they are at TIMES shares of C. RankMe counts the directions the features use, and is shown,
not judged: what is a good one depends on network and data. Overfitting shows in the probe, which decides because it
reads what the run is for; else in the loss of unseen images (``unseen``), in one of two ways that must hold at the last
two looks. It lies more than ERRORS of the difference's standard errors above its lowest, while that of training images
lies below what it was there. Or, since the start, it fell by less than 1 - BY_HEART of what theirs fell, by LIKELY
standard errors: where views vary much, the unseen loss stands still rather than rises. With neither, ``healthy`` does
not exclude it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F

from curate.pretraining.gradients import split

COLLAPSED_SPREAD = 0.02
TOLD_APART = 0.1  # share of the image in the features' variance; surely less counts as none
TOLERANCE = 0.02  # share of the chance loss that counts as no difference
ERRORS = 3.0  # standard errors that count as no difference
BLOWN_UP = 2.0  # times the larger of chance loss and first loss
TAIL = 0.1  # share of the logged steps that is averaged
LEAST_ROWS, LEAST_SHARES = 10, 24  # of them, if that is not more than half
RANK_ROWS = 1_024  # images that RankMe looks at
LEAST_LOOKS = 3  # at unseen images
BY_HEART = 1 / 3  # share of the fall of the loss that only training images have
LIKELY = 2.0  # standard errors above it
VANISHED = 3e-3  # of the first gradients' norm: weights that are far too large

Row = Mapping[str, Any]  # numbers, and lists of them
Found = tuple[str, int, str] | None  # verdict, the step at which it began, why

TELLS_NOTHING = "It is that of a network which tells nothing apart."
PATIENCE = {"diverged": 0.0, "collapsed": 0.1, "not learning": 0.2}  # shares of C that a verdict must last
NEVER_BEFORE = 0.2  # share of C

REMEDIES = {
    "diverged": "Lower the learning rate (learning_rate), or warm up for longer (warmup).",
    "collapsed": "See whether the images differ at all; else lower the learning rate, or take milder augmentation.",
    "overfitting": "Stop at that step (fewer samples), or select more images.",
    "forgetting": "Lower the learning rate, train fewer stages (adapt=last:1), or keep the weights it began with.",
    "not learning": "Try another learning rate: higher if the loss does not move, lower if it jumps.",
    "too early": "Spend more samples.",
}
OF_METHODS = {
    ("barlow", "collapsed"): "Raise off_diagonal or the batch: the projections vary together.",
    ("byol", "collapsed"): "Let the teacher move more slowly (momentum), and lower the learning rate.",
    ("dino", "collapsed"): "Lower the learning rate, or let the prototypes stand still for longer (freeze).",
    ("dino", "not learning"): "Lower teacher_temperature, or let the prototypes stand still for longer (freeze).",
    ("distill", "not learning"): "Raise the learning rate, or choose a teacher that knows such images.",
    ("mae", "not learning"): "Raise the learning rate or C: it paints patches in their mean for long at first.",
    ("mae", "collapsed"): "See whether the images differ at all; else lower the learning rate.",
    ("mocov3", "not learning"): "Try another learning rate, or a lower temperature; transformers need a longer warmup.",
    ("simclr", "not learning"): "Try another learning rate, a larger batch or another temperature.",
    ("vicreg", "collapsed"): "Raise the weight of the variance, or lower the learning rate.",
    ("vicreg", "not learning"): "Raise the weight of the invariance, or try another learning rate.",
}


@dataclass(frozen=True)
class Health:
    """A verdict and its reason."""

    verdict: str
    detail: str
    step: int = 0  # at which it began; 0 for the verdicts that need nothing done
    remedy: str = ""


def feature_spread(features: torch.Tensor) -> float:
    """Root mean squared distance of the normalized features [n, d] from their mean: 0 = all alike, at most 1.

    sqrt(1 - |mean(f / |f|)|^2)
    """
    center = F.normalize(features.detach().float(), dim=1).mean(dim=0)
    return math.sqrt(max(0.0, 1.0 - float(center.square().sum())))


def rank_me(features: torch.Tensor) -> float:
    """RankMe of features [n, d]: how many directions they use, 1 to min(n, d); higher is richer.

    exp( - sum_k p_k log p_k ),   p_k = s_k / sum s + 1e-7, s the singular values, through the smaller Gram matrix; of
    at most RANK_ROWS images, evenly spaced. 0 if the features are not finite.

    Source: Garrido et al., "RankMe: assessing the downstream performance of pretrained self-supervised representations
    by their rank", ICML 2023 (arXiv 2210.02885), equation 2.
    """
    x = features.detach()[:: -(-len(features) // RANK_ROWS)].double()
    gram = (x @ x.mT if len(x) < x.shape[1] else x.mT @ x).cpu()
    if not torch.isfinite(gram).all():
        return 0.0
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    p = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny) + 1e-7
    return float(torch.exp(-(p * p.log()).sum()))


def by_view(features: torch.Tensor, images: int, chunks: int) -> torch.Tensor:
    """Views [k, b, d] of b images from what an encoder gave for them, chunk after chunk and view after view."""
    count = len(features) // images
    sizes = [count * (part.stop - part.start) for part in split(images, chunks)]
    return torch.cat([part.reshape(count, -1, features.shape[1]) for part in torch.split(features, sizes)], dim=1)


def image_share(views: torch.Tensor) -> float | None:
    """Share of the image in the variance of the normalized features of views [k, b, d]; None with one view or image.

    The intraclass correlation (B - W) / (B + (k - 1) W), B and W the mean squares between and within images: 1 = views
    of an image are the same, 0 expected = they are no more alike than those of different images.

    Source: Shrout, Fleiss, "Intraclass correlations", 1979, ICC(1, 1).
    """
    k, b, _ = views.shape
    if k < 2 or b < 2:
        return None
    x = F.normalize(views.detach().double(), dim=2)
    means = x.mean(dim=0)
    between = float(k * (means - means.mean(dim=0)).square().sum() / (b - 1))
    within = float((x - means).square().sum() / (b * (k - 1)))
    total = between + (k - 1) * within
    return (between - within) / total if total > 0 else 0.0


def judge(curves: Sequence[Row], *, method: str = "", start: Row | None = None) -> Health:
    """The verdict on a run.

    Args:
        curves: its logged steps, each with ``step``, ``samples_seen``, ``loss``, ``chance_loss``, ``feature_spread``;
            some with ``image_share``, ``picture_spread``, ``probe`` and ``probe_se``, or ``unseen_loss``,
            ``unseen_parts``, ``seen_loss`` and ``seen_parts``.
        method: whose remedies are told.
        start: what was read of the probe before the first step, or of unseen images; then with ``seen_share``, the
            share of the training images that are looked at.
    """
    found = (
        _diverged(curves)
        or _collapsed(curves)
        or _blown_up(curves)
        or _worse_probe(curves, start)
        or _worse_unseen(curves, start)
        or _unmoved(curves)
        or _too_early(curves)
    )
    if not found:
        return Health("healthy", _path(curves) + _blind(curves))
    verdict, step, detail = found
    return Health(verdict, detail, step, OF_METHODS.get((method, verdict), REMEDIES[verdict]))


def should_stop(health: Health, curves: Sequence[Row], *, samples: int) -> bool:
    """True if a verdict has lasted so long that the rest of C is better saved.

    Never before a fifth of C; a collapse must last for a tenth of C, "not learning" for a fifth.
    """
    patience = PATIENCE.get(health.verdict)
    seen: float = curves[-1]["samples_seen"]
    if patience is None or seen < NEVER_BEFORE * samples:
        return False
    began: float = next((row["samples_seen"] for row in curves if row["step"] >= health.step), seen)
    return seen - began >= patience * samples


def _diverged(rows: Sequence[Row]) -> Found:
    for row in rows:
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(row.get(name, 0.0)):
                words = f"The {name.replace('_', ' ')} was {row[name]} after {row['samples_seen']:,} samples."
                return "diverged", int(row["step"]), words
    loss = _smooth(rows, "loss")
    limit = BLOWN_UP * max(_first(rows), rows[-1]["chance_loss"])
    return ("diverged", _onset(rows, [x > limit for x in loss]), _path(rows)) if loss[-1] > limit else None


def _collapsed(rows: Sequence[Row]) -> Found:
    for name, images in (("feature_spread", "All images"), ("picture_spread", "Images without augmentation, too,")):
        spread = _smooth(rows, name) if name == "feature_spread" else _last_known(rows, name)
        if spread[-1] < COLLAPSED_SPREAD:
            words = f"{images} give nearly the same features (spread {spread[-1]:.3f} of at most 1)."
            return "collapsed", _onset(rows, [x < COLLAPSED_SPREAD for x in spread]), words
    shares, few = _smooth(rows, "image_share", LEAST_SHARES), rows[-_window(rows, LEAST_SHARES) :]
    if shares[-1] + 2 * _error([row.get("image_share", math.inf) for row in few]) >= TOLD_APART:
        return None
    words = f"Views of one image are no more alike than those of different images (share {shares[-1]:.2f} of 1)."
    words += _teacher(rows)
    return "collapsed", _onset(rows, [x < TOLD_APART for x in shares]), words


def _blown_up(rows: Sequence[Row]) -> Found:
    """Batch norms hide weights that are far too large: only the gradients vanish, long before the loss is low."""
    norms = _smooth(rows, "gradient_norm")
    limit = VANISHED * rows[0].get("gradient_norm", 0.0)
    if norms[-1] >= limit or _smooth(rows, "loss")[-1] < rows[-1]["chance_loss"] / 2:
        return None
    words = (
        f"The gradients shrank to {norms[-1] / rows[0]['gradient_norm']:.0e} of the first ones: the weights blew up."
    )
    return "diverged", _onset(rows, [x < limit for x in norms]), f"{words} {_path(rows)}"


def _worse_probe(rows: Sequence[Row], start: Row | None) -> Found:
    """The last two readings, on average, are worse than the best one by more than its standard error."""
    read = [row for row in rows if "probe" in row]
    if len(read) < 2 or _smooth(rows, "loss")[-1] >= _first(rows):
        return None
    best = max([*([start] if start and "probe" in start else []), *read], key=lambda row: row["probe"])
    last = (read[-1]["probe"] + read[-2]["probe"]) / 2
    if best is read[-1] or best["probe"] - last <= best["probe_se"]:
        return None
    words = f"The probe fell from {best['probe']:.1%} (standard error {best['probe_se']:.1%}) to {last:.1%}"
    if best is start:
        return "forgetting", int(rows[0]["step"]), f"{words} since before the first step, while the loss fell."
    return "overfitting", int(best["step"]), f"{words} while the loss fell."


def _worse_unseen(rows: Sequence[Row], start: Row | None) -> Found:
    """Without a probe: the loss of unseen images rises while that of training images falls, or fell much less."""
    looks = _looks(rows)
    if len(looks) < LEAST_LOOKS or any("probe" in row for row in rows):
        return None
    return _risen(looks) or (_by_heart(looks, start) if start and "unseen_loss" in start else None)


def _risen(looks: Sequence[Row]) -> Found:
    best, last = min(looks, key=lambda row: row["unseen_loss"]), looks[-2:]
    rises = [_change(best, row, "unseen") for row in last]
    if any(value <= ERRORS * error for value, error in rises) or max(r["seen_loss"] for r in last) >= best["seen_loss"]:
        return None
    value, error = rises[-1]
    words = (
        f"The loss of images that are not trained on rose by {value:.3f} (standard error {error:.3f}) to "
        f"{last[-1]['unseen_loss']:.3f}, while that of images that are, seen likewise, fell from "
        f"{best['seen_loss']:.3f} to {last[-1]['seen_loss']:.3f}."
    )
    return "overfitting", int(best["step"]), words


def _by_heart(looks: Sequence[Row], start: Row) -> Found:
    holds = [_is_by_heart(start, row) for row in looks]
    share = by_heart(start, looks[-1])
    if share is None or not all(holds[-2:]):
        return None
    words = (
        f"Since the start the loss of images that are trained on fell from {start['seen_loss']:.3f} to "
        f"{looks[-1]['seen_loss']:.3f}, that of others from {start['unseen_loss']:.3f} to "
        f"{looks[-1]['unseen_loss']:.3f}: {min(1.0, share):.0%} of what was learned is learned by heart."
    )
    return "overfitting", _onset(looks, holds), words


def by_heart(start: Row, look: Row) -> float | None:
    """Share of the fall of the training images' loss that unseen images do not have; above 1 if theirs rose.

    None where the training images' loss did not fall beyond its noise.
    """
    fall, error = _seen_fall(start, look)
    return 1 - (start["unseen_loss"] - look["unseen_loss"]) / fall if fall > ERRORS * error else None


def _seen_fall(start: Row, look: Row) -> tuple[float, float]:
    """How far the training images' loss fell, and its error: none where all of them are looked at."""
    fall, error = _change(look, start, "seen")
    return fall, error * math.sqrt(1 - start["seen_share"])


def _is_by_heart(start: Row, look: Row) -> bool:
    """True if that share is likely above BY_HEART."""
    (seen, noise), (unseen, error) = _seen_fall(start, look), _change(look, start, "unseen")
    missing = (1 - BY_HEART) * seen - unseen
    return seen > ERRORS * noise and missing > LIKELY * math.hypot((1 - BY_HEART) * noise, error)


def _looks(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if "unseen_loss" in row]


def _change(before: Row, after: Row, name: str) -> tuple[float, float]:
    """How much the loss of unseen or seen images rose between two looks, and its standard error: a paired jackknife."""
    parts = [b - a for a, b in zip(before[f"{name}_parts"], after[f"{name}_parts"], strict=True)]
    mean, count = _mean(parts), len(parts)
    variance = (count - 1) / count * sum((part - mean) ** 2 for part in parts)
    return after[f"{name}_loss"] - before[f"{name}_loss"], math.sqrt(variance)


def _blind(rows: Sequence[Row]) -> str:
    if any("probe" in row for row in rows) or len(_looks(rows)) >= LEAST_LOOKS:
        return ""
    return " Neither a probe nor unseen images were looked at, so overfitting would not show."


def _unmoved(rows: Sequence[Row]) -> Found:
    loss, chance = _smooth(rows, "loss"), _smooth(rows, "chance_loss")
    there = [abs(x - c) <= TOLERANCE * c for x, c in zip(loss, chance, strict=True)]
    if there[-1]:
        return "not learning", _onset(rows, there), f"{_path(rows)} {TELLS_NOTHING}{_teacher(rows)}"
    return (
        ("not learning", int(rows[0]["step"]), f"{_path(rows)} That is no fall beyond noise.") if _still(rows) else None
    )


def _still(rows: Sequence[Row]) -> bool:
    """True if the loss is not below its first few values, nor below those of its first tenth, beyond their noise."""
    values = [row["loss"] for row in rows]
    window, steps = _window(rows), [b - a for a, b in pairwise(values)]
    noise = math.sqrt(sum(step * step for step in steps) / (2 * max(1, len(steps))))  # of one row, whatever the trend
    end = _mean(values[-window:])
    for count in (max(1, window // 4), window):
        error = noise * math.sqrt(1 / count + 1 / window)
        start = _mean(values[:count])
        if start - end > max(ERRORS * error, TOLERANCE * abs(start)):
            return False
    return True


def _too_early(rows: Sequence[Row]) -> Found:
    if _smooth(rows, "loss")[-1] <= _smooth(rows, "chance_loss")[-1]:
        return None
    return "too early", 0, f"{_path(rows)} It is still on its way there."


def _teacher(rows: Sequence[Row]) -> str:
    """What a teacher's entropy says of a collapse to uniform targets, or to a single one."""
    entropy, most = rows[-1].get("teacher_entropy"), rows[-1]["chance_loss"]
    return (
        "" if entropy is None else f" The teacher's entropy is {entropy:.2f}; {most:.2f} is uniform, 0 one prototype."
    )


def _path(rows: Sequence[Row]) -> str:
    loss, chance = _smooth(rows, "loss")[-1], _smooth(rows, "chance_loss")[-1]
    return f"The loss went from {_first(rows):.3f} to {loss:.3f}; its chance value is {chance:.3f}."


def _first(rows: Sequence[Row]) -> float:
    """Mean loss of the first few rows, before much is learned."""
    return _mean([row["loss"] for row in rows[: max(1, _window(rows) // 4)]])


def _window(rows: Sequence[Row], least: int = LEAST_ROWS) -> int:
    return max(1, min(len(rows) // 2, max(least, round(TAIL * len(rows)))))


def _smooth(rows: Sequence[Row], name: str, least: int = LEAST_ROWS) -> list[float]:
    """Mean of each row and those just before it; infinite where nothing is known."""
    window = _window(rows, least)
    values = [row.get(name, math.inf) for row in rows]
    return [_mean(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))]


def _error(values: Sequence[float]) -> float:
    """Standard error of the mean; infinite where it is not known."""
    mean = _mean(values)
    if len(values) < 2 or not math.isfinite(mean):
        return math.inf
    return math.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1) / len(values))


def _last_known(rows: Sequence[Row], name: str) -> list[float]:
    return list(accumulate((row.get(name, math.nan) for row in rows), _later, initial=math.inf))[1:]


def _later(before: float, now: float) -> float:
    return before if math.isnan(now) else now


def _onset(rows: Sequence[Row], holds: Sequence[bool]) -> int:
    """The step from which on it held to the end."""
    first = len(holds) - 1
    while first > 0 and holds[first - 1]:
        first -= 1
    return int(rows[first]["step"])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
