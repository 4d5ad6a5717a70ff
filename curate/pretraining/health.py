"""Is it learning? A verdict in words from the curves of a run, with the step at which it began and what to do.

diverged       a loss or gradient that is not finite, a loss far above where it began and above its chance value, or
               weights GROWN times as long as they were: behind norms the loss may look well for a while
collapsed      the features do not tell images apart
overfitting    while the loss of the training images falls, the probe gets worse; where there is none, the loss of
               images that are not trained on rises, or falls much less (``overfitting``)
forgetting     the same from the first step on: the weights it began with were better
not learning   the loss does not fall beyond its noise, or ends at its chance value, that of a network that tells
               nothing apart, after SETTLED steps or more; after fewer only if not even the weights moved
too early      the same after fewer steps or under much noise; or the loss falls, but is still above its chance value
healthy        none of these

What each sign can see. The loss is of the training images alone: a network that learns them by heart looks healthy. It
is judged as a share of its chance value, within one stage of the selection: the next one's images may be harder. The
feature spread says that views differ, be it only by their colors. The share of the image in the features' variance
says whether two views of one image are more alike than those of two images; methods of a single view have none, so a
few images are also seen as they are at TIMES shares of C. RankMe counts the directions the features use, and is shown,
not judged: what is a good one depends on network and data.

Why the weights' length. A norm after a layer makes its weights' length L meaningless and the gradient fall as 1 / L, at
right angles to them: steps of a share e of the first length give L^4 = 2 e^2 t after t of them, 12 for e = .1 and a
million steps. 100 times is no training. Measured in 4,000 samples: 1.0 to 1.2 in runs at the recipes' rates, 470 and
more at absurd ones (SGD at 1e3 to 1e5), the loss of SimCLR and DINO then being finite and below chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from curate.numerals import counted
from curate.pretraining.gradients import split
from curate.pretraining.overfitting import doubt, worse_probe, worse_unseen
from curate.pretraining.trends import (
    ERRORS,
    LEAST_SHARES,
    TOLERANCE,
    Found,
    Row,
    by_stage,
    falls,
    few,
    first,
    last_known,
    loss_ends,
    onset,
    smooth,
    smoothed,
    standard_error,
    window,
)

COLLAPSED_SPREAD = 0.02
TOLD_APART = 0.1  # share of the image in the features' variance; surely less counts as none
BLOWN_UP = 2.0  # times the larger of chance loss and first loss
RANK_ROWS = 1_024  # images that RankMe looks at
GROWN = 100.0  # times the length that the weights began with
STILL = 1e-9  # share of that length; at right angles to the weights, a move of 0.005% of it changes it by as much
SETTLED = 100  # steps in which a run that learns shows it
CLEAR = 0.1  # share of the chance loss: a fall that the noise must not hide

TELLS_NOTHING = "It is that of a network which tells nothing apart."
PATIENCE = {"diverged": 0.0, "collapsed": 0.1, "not learning": 0.2}  # shares of C that a verdict must last
NEVER_BEFORE = 0.2  # share of C

REMEDIES = {
    "diverged": "Lower the learning rate (learning_rate), or warm up for longer (warmup).",
    "collapsed": "See whether the images differ at all; else lower the learning rate, or take milder augmentation.",
    "overfitting": "Stop at that step (fewer samples), or select more images.",
    "forgetting": "Lower the learning rate, train fewer stages (adapt=last:1), or keep the weights it began with.",
    "not learning": "Try another learning rate: higher if the loss does not move, lower if it jumps.",
    "too early": "Spend more samples; if the loss then stays where it is, try another learning rate.",
}
OF_METHODS = {
    ("barlow", "collapsed"): "Raise off_diagonal or the batch: the projections vary together.",
    ("byol", "collapsed"): "Let the teacher move more slowly (teacher_momentum), and lower the learning rate.",
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


def weight_norm(module: nn.Module) -> float:
    """Length of all weights that are trained, as one vector; biases and norms are not among them."""
    weights = [p.detach() for p in module.parameters() if p.requires_grad and p.ndim > 1]
    squares = [torch.linalg.vector_norm(weight, dtype=torch.float64) ** 2 for weight in weights]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def judge(curves: Sequence[Row], *, method: str = "", start: Row | None = None) -> Health:
    """The verdict on a run.

    Args:
        curves: its logged steps, each with ``step``, ``samples_seen``, ``loss``, ``chance_loss``, ``feature_spread``;
            some with ``stage``, ``weight_norm``, ``teacher_entropy``, ``image_share``, ``picture_spread``, ``probe``
            and ``probe_se``, or ``unseen_loss``, ``unseen_parts``, ``seen_loss`` and ``seen_parts``.
        method: whose remedies are told.
        start: the same before the first step, as far as known: ``weight_norm``; the probe; the losses of the looks,
            then with ``seen_share``, the share of the training images that are looked at, and ``look_chance``, the
            chance loss of a look as a share of that of a training batch.
    """
    found = (
        _diverged(curves)
        or _collapsed(curves)
        or _blown_up(curves, start)
        or worse_probe(curves, start)
        or worse_unseen(curves, start)
        or _unmoved(curves, start)
        or _too_early(curves)
    )
    if not found:
        return Health("healthy", _path(curves) + doubt(curves, start))
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
    loss = smooth(rows, "loss")
    limit = BLOWN_UP * max(first(rows), rows[-1]["chance_loss"])
    return ("diverged", onset(rows, [x > limit for x in loss]), _path(rows)) if loss[-1] > limit else None


def _collapsed(rows: Sequence[Row]) -> Found:
    for name, images in (("feature_spread", "All images"), ("picture_spread", "Images without augmentation, too,")):
        spread = smooth(rows, name) if name == "feature_spread" else last_known(rows, name)
        if spread[-1] < COLLAPSED_SPREAD:
            words = f"{images} give nearly the same features (spread {spread[-1]:.3f} of at most 1)."
            return "collapsed", onset(rows, [x < COLLAPSED_SPREAD for x in spread]), words
    shares, tail = smooth(rows, "image_share", LEAST_SHARES), rows[-window(rows, LEAST_SHARES) :]
    if shares[-1] + ERRORS * standard_error([row.get("image_share", math.inf) for row in tail]) >= TOLD_APART:
        return None
    words = f"Views of one image are no more alike than those of different images (share {shares[-1]:.2f} of 1)."
    words += _teacher(rows)
    return "collapsed", onset(rows, [x < TOLD_APART for x in shares]), words


def _blown_up(rows: Sequence[Row], start: Row | None) -> Found:
    """Norms hide weights that are far too large: only later steps show it, too short for them."""
    begun = (start or {}).get("weight_norm", math.inf)
    grown = [row.get("weight_norm", 0.0) > GROWN * begun for row in rows]
    if not grown[-1]:
        return None
    times = f"{rows[-1]['weight_norm'] / begun:,.0f} times"
    words = f"The weights grew to {times} their length: what they had learned, or began with, is lost."
    return "diverged", onset(rows, grown), f"{words} {_path(rows)}"


def _unmoved(rows: Sequence[Row], start: Row | None) -> Found:
    """A loss at its chance value, or that fell in no stage; in few steps that is too early, but if weights rest."""
    *before, now = by_stage(rows)
    levels = smoothed(now, share_of_chance)
    there, fell = [abs(level - 1) <= TOLERANCE for level in levels], any(map(_fell, [*before, now]))
    if fell and not there[-1]:
        return None
    words = _path(rows) + (f" {TELLS_NOTHING}{_teacher(rows)}" if there[-1] else " That is no fall beyond noise.")
    steps = int(now[-1]["step"] - (before[-1][-1]["step"] if before else 0))
    if not _stands_still(rows, start):
        if steps < SETTLED:
            return "too early", 0, f"{words} {counted(steps, 'step')} may be too few for it to move."
        if ERRORS * falls(now, share_of_chance)[-1][1] > CLEAR:
            return "too early", 0, f"{words} It is too noisy to tell."
    return "not learning", onset(now, there) if there[-1] else int(rows[0]["step"]), words


def share_of_chance(row: Row) -> float:
    """Loss as a share of its chance value: 1 = tells nothing apart, 0 = the least there can be.

    A student cannot come below the entropy of its teacher's distributions: both count from there. Teachers that are
    uniform leave nothing to learn: 1.
    """
    least, chance = row.get("teacher_entropy", 0.0), row["chance_loss"]
    room: float = chance - least
    return (row["loss"] - least) / room if room > TOLERANCE * chance else 1.0


def _fell(rows: Sequence[Row]) -> bool:
    return any(fall > max(ERRORS * error, TOLERANCE) for fall, error in falls(rows, share_of_chance))


def _stands_still(rows: Sequence[Row], start: Row | None) -> bool:
    """True if the weights are as long as they were: steps that small teach nothing, however few they are."""
    begun = (start or {}).get("weight_norm", math.nan)
    return all(abs(row.get("weight_norm", math.inf) - begun) <= STILL * begun for row in rows)


def _too_early(rows: Sequence[Row]) -> Found:
    if smoothed(by_stage(rows)[-1], share_of_chance)[-1] <= 1:
        return None
    return "too early", 0, f"{_path(rows)} It is still on its way there."


def _teacher(rows: Sequence[Row]) -> str:
    """What a teacher's entropy says of a collapse to uniform targets, or to a single one."""
    entropy, most = rows[-1].get("teacher_entropy"), rows[-1]["chance_loss"]
    return (
        "" if entropy is None else f" The teacher's entropy is {entropy:.2f}; {most:.2f} is uniform, 0 one prototype."
    )


def _path(rows: Sequence[Row]) -> str:
    (begun, ended), chance = loss_ends(rows), smooth(rows, "chance_loss")[-1]
    means = f"means of the first {few(rows)} and the last {window(rows)} of the logged steps"
    return f"The loss went from {begun:.3f} to {ended:.3f} ({means}); its chance value is {chance:.3f}."
