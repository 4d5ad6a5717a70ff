"""What kind of shift: how much of a pool's distance preprocessing would repair, and what stays as content.

Both samples are looked at (``_facts``), steps that would make them agree are proposed (``_transforms``), and both are
embedded again after each step. A distance is compared as

    r = F / tr S_target        F the headline distance, tr S the target's total variance, both after the step

because a step that destroys information shrinks F of any two sets, and tr S with it. The fall of r is measured on the
same images before and after (``_paired``). A step counts as a *repair* when

    1. facts say that the two sets differ in its factor (else nothing is tried; turns of the pool are always tried),
    2. r falls by a tenth or more, and the 95% interval of the fall excludes 0.

Repairs are combined greedily, at most three of them, the facts taken anew after each. Together they *explain* the
shift, which is then of their kind and not one of content, when

    3. at most half of r is left, and
    4. that is less than a quarter of it, or not told from zero.

All four are needed: sharp emoji of 256 pixels come half way to other emoji of 64 when both are shrunk, and stay other
emoji. benchmarks/factors.py says how often planted factors and other contents are named right.

Where facts leave several steps open (turns; backgrounds), one half of the pool, by fold, chooses among them and only
the other half is measured, so that the choice does not flatter the result.
"""

from __future__ import annotations

from curate.attribution._results import Factors
from curate.attribution._sample import Sample, Vectors
from curate.attribution._search import split
from embeddings.encoders import Encoder
from embeddings.encoders.registry import get_encoder
from embeddings.errors import CurateError, TooFewImagesError, UsageError
from embeddings.pipeline.batches import core_count
from embeddings.progress import Progress, silent
from embeddings.store import EmbeddingStore

SAMPLE = 250  # images a side
FEWEST = 40  # images a side: 20 in the half that measures


def factors(
    target: EmbeddingStore,
    pool: EmbeddingStore,
    *,
    encoder: str | Encoder = "lite0",
    sample: int = SAMPLE,
    device: str = "auto",
    workers: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Factors:
    """Splits the distance of a pool into factors that one preprocessing step would repair, and content.

    At most ``sample`` images a side, those with the lowest key hash, are read from their sources again and embedded
    once per step. Several pools of one target: ``TargetFactors(target, ...)`` and its ``of(pool)``.

    Args:
        target: Store of images.
        pool: The same, from the same encoder.
        encoder: What made both stores.
        sample: Images a side, 40 or more.
        device: Where to embed.
        workers: Threads that read and embed.
        seed: Another seed draws other folds.
        progress: Told of every step.

    Returns:
        Factors; with a ``reason`` and no figures where a source cannot be read or too few of its images can.

    Raises:
        EncoderMismatchError: a store from another encoder.
        UnknownNameError: no such encoder.
        UsageError: a sample under 40.
    """
    shared = TargetFactors(target, encoder=encoder, sample=sample, device=device, workers=workers, seed=seed)
    return shared.of(pool, progress=progress)


class TargetFactors:
    """A target, sampled and embedded once for all pools."""

    def __init__(
        self,
        target: EmbeddingStore,
        *,
        encoder: str | Encoder = "lite0",
        sample: int = SAMPLE,
        device: str = "auto",
        workers: int | None = None,
        seed: int = 0,
    ) -> None:
        """Arguments and errors as in ``factors``."""
        self._encoder = get_encoder(encoder, device=device.partition(",")[0]) if isinstance(encoder, str) else encoder
        if sample < FEWEST:
            raise UsageError(f"A sample of {sample} images, wanted {FEWEST} or more.", hint=f"Leave it at {SAMPLE}.")
        self._size, self._seed, self._workers = sample, seed, workers or core_count()
        self._vectors = Vectors(self._encoder, workers=self._workers)
        self._target = self._read(target, "target")

    def of(self, pool: EmbeddingStore, *, progress: Progress = silent) -> Factors:
        """``factors`` of one pool.

        Raises:
            EncoderMismatchError: a pool from another encoder.
        """
        theirs = self._read(pool, "pool")
        if isinstance(self._target, str) or isinstance(theirs, str):
            return Factors.unknown(self._target if isinstance(self._target, str) else str(theirs))
        try:
            return split(self._target, theirs, vectors=self._vectors, progress=progress)
        except TooFewImagesError as error:
            return Factors.unknown(error.message)

    def _read(self, store: EmbeddingStore, name: str) -> Sample | str:
        """The sample of a store, or why there is none."""
        if not (store.spec.size and store.source):
            return f"The {name} holds vectors without images to change and embed again."
        self._encoder.spec.require_same(store.spec, ("the encoder", name))
        seen = {"edge": self._vectors.edge, "workers": self._workers}
        try:
            found = Sample.read(store, self._size, salt=str(self._seed or ""), **seen)
        except (CurateError, OSError) as error:
            return f"The images of the {name} cannot be read: {getattr(error, 'message', error)}"
        if len(found) >= FEWEST:
            return found
        gone = f" ({found.left_out} more cannot be used: {found.problem})" if found.left_out else ""
        return f"The {name} has {len(found)} images{gone}; {FEWEST} are needed to tell what repairs a shift."
