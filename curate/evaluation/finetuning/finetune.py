"""Fine-tuning on the labels, and training on the labels alone: what the features are worth where they may change.

Fine-tuning goes on from the linear probe (LP-FT): the head starts as the probe that was fitted on the frozen features,
so that the first steps do not distort them. The learning rate is the one that is most accurate on the first held-out
part of the training images, and "not at all" is among them: where no rate does better, the probe stays, and the facts
say so. What is chosen is then trained on all training images; where that diverges, the probe stays too. A network with
random weights has another recipe: a higher rate for all stages alike, batch norms that learn, stronger augmentation,
more samples.

``train_accuracy`` far below 1 tells a network that has not seen enough samples yet, as Lite0 with random weights after
6,000 (.54): give more (``samples``) before such a figure is held against another.

With several starts (other orders and views; other weights where they are random) figures are the means over them, and
so is whether a test image is told right; features, probabilities and predictions are the first one's. How far one
start alone would be from the next is not known.

Cost: rates + starts trainings. On one CPU core Lite0 trains on about 90 images of 64 pixels a second.

Sources: Kumar et al., "Fine-tuning can distort pretrained features and underperform out-of-distribution", ICLR 2022
(arXiv 2202.10054).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from torch import nn

from curate.evaluation._comparison import Probed
from curate.evaluation._intervals import Measured
from curate.evaluation._pictures import Prepare, read_pictures
from curate.evaluation._view import View
from curate.evaluation.finetuning import tuned_files
from curate.evaluation.finetuning.layers import Depth
from curate.evaluation.finetuning.starts import Start, pretrained, untrained
from curate.evaluation.finetuning.supervised import Classifier, Head, Lesson, Recipe, train
from curate.pretraining.augment.draws import image_hash
from curate.pretraining.augment.presets import Preset
from curate.pretraining.schedule import MIN_IMAGES
from embeddings import files
from embeddings.encoders import Encoder
from embeddings.encoders.folding import fold_if_equal
from embeddings.encoders.torch_encoder import Placement, TorchEncoder, weights_digest
from embeddings.errors import SourceError, TrainingError
from embeddings.pipeline.batches import core_count

FOLDER = "finetuned"  # below the folder of the embeddings
IN_MEMORY = 1 << 30  # bytes of squares; more of them lie in a file
CHUNK = 512  # images decoded at once
SCRATCH_PENALTY = 1e-4

FINETUNE = Recipe(
    rates=(2e-4, 1e-3),
    passes=10,
    fewest=2_000,
    most=20_000,
    preset=Preset(crop_area=(0.6, 1.0), jitter=0.0, gray=0.0, blur=0.0),
)
SCRATCH = Recipe(
    rates=(2e-3,),
    passes=30,
    fewest=4_000,
    most=40_000,
    preset=Preset(crop_area=(0.4, 1.0), brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, gray=0.0, blur=0.0),
    decay=1.0,
    smoothing=0.1,
    keep_statistics=False,
)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A network trained with the labels, as an arm sees it."""

    network: str  # its name
    eye: Callable[[], Encoder]
    features: np.ndarray  # float32 [n, d] of all rows of the labeled images
    probed: Probed  # by its own head
    facts: dict[str, Any]
    saw_labels: bool = True  # False where the probe stays: the view as it was


def finetune(view: View, encoder: str, *, from_scratch: bool) -> Tuned:
    """Trains a network on the training images of a labeled set, or takes what an earlier call kept.

    Args:
        view: an arm on the labeled set, its probe fitted.
        encoder: its name.
        from_scratch: train ``settings.backbone``, or the encoder's network, from random weights.

    Raises:
        UsageError: the encoder is no network that can be trained, or has fewer stages than ``settings.depth`` asks for.
        SourceError: an image no longer reads as it did.
        TrainingError: the loss of a training from random weights is not finite.
    """
    return _Course(view=view, encoder=encoder, from_scratch=from_scratch).tuned()


@dataclass(frozen=True)
class _Choice:
    """A learning rate, and the accuracies on held-out training images that it was chosen by."""

    rate: float  # 0: the probe stays
    held_out: dict[str, float]  # by rate, "0" for the probe; empty if nothing could be held out
    failed: str = ""  # why what was chosen could not be trained on all training images

    def facts(self, penalty: float) -> dict[str, float]:
        """As those of a probe."""
        found = {"learning_rate": self.rate, "penalty": penalty}
        named = f"{self.rate:g}"
        return {**found, **({"held_out_accuracy": self.held_out[named]} if named in self.held_out else {})}


@dataclass(frozen=True, kw_only=True)
class _Course:
    """One network on one labeled set."""

    view: View
    encoder: str
    from_scratch: bool

    def tuned(self) -> Tuned:
        """The trained network's figures; the probe's where it stays."""
        choice, states = self._kept()
        if not choice.rate:
            return self._as_it_was(choice)
        starts = [self._restored(state, seed) for seed, state in enumerate(states)]
        seen = [self._features(eye, np.arange(len(self.view.images.rows))) for eye, _ in starts]
        parts = [self._judged(choice, head, features) for (_, head), features in zip(starts, seen, strict=True)]
        (eye, head), features, probed = starts[0], seen[0], parts[0]
        accuracies = [p.measured["linear"].value for p in parts]
        mean = {name: _mean([p.measured[name] for p in parts]) for name in probed.measured}
        spread = float(np.std(accuracies, ddof=1)) if len(parts) > 1 else None
        learned = _accuracy(head, features[self._train], np.unique(self._labels), self._labels)
        told = {**self._told(choice), "train_accuracy": learned, "accuracies": accuracies, "spread": spread}
        facts = {"encoder": eye.spec.name, "fingerprint": eye.spec.fingerprint, "finetune": told}
        probed = replace(probed, measured=mean, correct=np.mean([p.correct for p in parts], axis=0))
        return Tuned(network=self.start.name, eye=lambda: eye, features=features, probed=probed, facts=facts)

    @cached_property
    def start(self) -> Start:
        """The network before training."""
        if self.from_scratch:
            return untrained(self.view.settings.backbone, self.view.eye())
        return pretrained(self.encoder, self.view.eye())

    @cached_property
    def depth(self) -> Depth:
        """What of it is trained."""
        return Depth() if self.from_scratch else Depth.parse(self.view.settings.depth)

    @property
    def recipe(self) -> Recipe:
        """How."""
        return SCRATCH if self.from_scratch else FINETUNE

    @property
    def samples(self) -> int:
        """Images seen per training."""
        return self.view.settings.samples or self.recipe.samples(len(self._train))

    @property
    def penalty(self) -> float:
        """Of the head's weights: the probe's."""
        return SCRATCH_PENALTY if self.from_scratch else self.view.probed.chosen["linear"]["penalty"]

    @cached_property
    def placement(self) -> Placement:
        """Where it is trained, as it is embedded."""
        return Placement.choose(self.view.embedding.device.partition(",")[0])

    def _kept(self) -> tuple[_Choice, list[tuned_files.State]]:
        work = self.view.embedding.work
        folder = work and work / FOLDER / files.digest(self._document())[:16]
        if folder and (found := tuned_files.find(folder)):
            return _Choice(**found[0]), found[1]
        choice, states = self._trained_on_all(self._chosen())
        if folder:
            tuned_files.keep(folder, vars(choice), states)
        return choice, states

    def _trained_on_all(self, choice: _Choice) -> tuple[_Choice, list[tuned_files.State]]:
        """Every start of what was chosen; the probe, and why, where one diverges."""
        seeds = range(self.view.settings.starts if choice.rate else 0)
        try:
            return choice, [self._trained(np.arange(len(self._train)), choice.rate, seed) for seed in seeds]
        except TrainingError as error:
            if self.from_scratch:
                raise
            return replace(choice, rate=0.0, failed=str(error)), []

    def _document(self) -> dict[str, Any]:
        """What the weights depend on."""
        rows = self.view.images.rows.take(self._train)
        columns = {name: rows[name].to_pylist() for name in ("key", "sha256", "pixels", "label")}
        fit, held = self._fold
        named = {"start": asdict(self.start.spec), "depth": str(self.depth), "recipe": asdict(self.recipe)}
        place = {"device": self.placement.device.type, "precision": self.placement.precision}
        counts = {"samples": self.samples, "starts": self.view.settings.starts, "penalty": self.penalty}
        return {**named, **place, **counts, "images": columns, "fit": fit.tolist(), "held": held.tolist()}

    def _chosen(self) -> _Choice:
        """The best of the rates and of the probe as it is; equal accuracies go to the probe, then the lower rate."""
        fit, _ = self._fold
        recipe = self.recipe
        if len(fit) < MIN_IMAGES or (self.from_scratch and len(recipe.rates) == 1):
            return _Choice(recipe.rates[-1] if self.from_scratch else 0.0, {})
        found = {} if self.from_scratch else {0.0: self._probe_accuracy()}
        found |= {rate: self._held_out_accuracy(rate) for rate in recipe.rates}
        best = max(found, key=lambda rate: (found[rate], -rate))
        return _Choice(best, {f"{rate:g}": accuracy for rate, accuracy in found.items()})

    def _probe_accuracy(self) -> float:
        fit, held = self._fold
        features, labels = self.view.features[self._train], self._labels
        present, compact = np.unique(labels[fit], return_inverse=True)
        return _accuracy(Head.of_probe(features[fit], compact, self.penalty), features[held], present, labels[held])

    def _held_out_accuracy(self, rate: float) -> float:
        """Of a training on the other images; 0 if it diverges."""
        fit, held = self._fold
        try:
            state = self._trained(fit, rate, seed=0)
        except TrainingError:
            return 0.0
        eye, head = self._restored(state, seed=0)
        features, labels = self._features(eye, self._train[held]), self._labels
        return _accuracy(head, features, np.unique(labels[fit]), labels[held])

    def _trained(self, part: np.ndarray, rate: float, seed: int) -> tuned_files.State:
        """Network and head after training on some positions of the training part."""
        network = self.start.build(seed)
        self.depth.apply(network)
        present, compact = np.unique(self._labels[part], return_inverse=True)
        if self.from_scratch:
            head = Head(self.start.spec.dim, len(present))
        else:
            head = Head.of_probe(self.view.features[self._train[part]], compact, self.penalty)
        lesson = Lesson(self._squares, part, self._hashes[part], compact)
        told = partial(self._tell, rate, seed)
        how = {"rate": rate, "penalty": self.penalty, "samples": self.samples, "seed": seed}
        classifier = Classifier(network, head, self.start.transform, self.placement)
        train(classifier, lesson, self.recipe, **how, told=told)  # type: ignore[arg-type]
        return {f"{owner}.{name}": tensor.detach().cpu() for owner, name, tensor in _tensors(network, head)}

    def _tell(self, rate: float, seed: int, seen: int) -> None:
        note = f"{self.start.name}, learning rate {rate:g}, start {seed + 1}"
        self.view.embedding.progress("finetune", seen, self.samples, note)

    def _restored(self, state: tuned_files.State, seed: int) -> tuple[TorchEncoder, Head]:
        """The trained network as an encoder, and its head."""
        network, head = self.start.build(seed), Head(*reversed(state["head.linear.weight"].shape))
        for owner, module in (("network.", network), ("head.", head)):
            module.load_state_dict({k.removeprefix(owner): v for k, v in state.items() if k.startswith(owner)})
        kind = "supervised" if self.from_scratch else "finetuned"
        start = self.start.spec
        spec = replace(start, name=f"{kind}:{start.name}", weights=weights_digest(network))
        folded = fold_if_equal(network, spec.size)
        return TorchEncoder(folded, spec=spec, transform=self.start.transform, placement=self.placement), head

    def _judged(self, choice: _Choice, head: Head, features: np.ndarray) -> Probed:
        """Figures of a start's own head."""
        comparison = self.view.comparison
        split, present = comparison.split, np.unique(self._labels)

        def classify(features: np.ndarray, at: np.ndarray) -> np.ndarray:
            found = np.zeros((len(features), split.n_classes))
            found[:, present] = head.probabilities(features)
            return found

        probabilities = {"linear": classify(features[split.test], split.test)}
        return comparison.judge(probabilities, {"linear": choice.facts(self.penalty)}, classify)

    def _as_it_was(self, choice: _Choice) -> Tuned:
        """The view itself, by its own probes."""
        view = self.view
        probed = replace(view.probed, chosen={**view.probed.chosen, "linear": choice.facts(self.penalty)})
        spec = self.start.spec
        facts = {"encoder": spec.name, "fingerprint": spec.fingerprint, "finetune": self._told(choice)}
        return Tuned(
            network=self.start.name,
            eye=view.eye,
            features=view.features,
            probed=probed,
            facts=facts,
            saw_labels=False,
        )

    def _told(self, choice: _Choice) -> dict[str, Any]:
        """What is known of the training."""
        starts = self.view.settings.starts if choice.rate else 0
        tried = sum(name != "0" for name in choice.held_out)
        return {
            "network": self.start.name,
            "depth": str(self.depth),
            "outcome": self._outcome(choice),
            "learning_rate": choice.rate,
            "layer_decay": self.recipe.decay,
            "held_out": choice.held_out,
            "samples": self.samples if choice.rate else 0,
            "samples_with_choice": self.samples * (tried + starts),
            "starts": starts,
            "predictions": "of the first start" if starts > 1 else "",
        }

    def _outcome(self, choice: _Choice) -> str:
        if self.from_scratch:
            return "trained on the labels alone"
        if choice.rate:
            return "fine-tuned"
        if choice.failed:
            return f"the probe stays: training on all training images failed. {choice.failed}"
        if choice.held_out:
            return "the probe stays: no learning rate did better on held-out images"
        return "the probe stays: too few training images to choose a learning rate on"

    @property
    def _train(self) -> np.ndarray:
        return self.view.comparison.split.train

    @property
    def _fold(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the training part to train on, and to choose on."""
        return self.view.comparison.split.held_out[0]

    @cached_property
    def _labels(self) -> np.ndarray:
        return np.asarray(self.view.comparison.split.labels[self._train])

    @cached_property
    def _hashes(self) -> np.ndarray:
        keys = self.view.images.rows["key"].take(self._train).to_pylist()
        return np.array([image_hash("", key) for key in keys], np.uint64)

    @cached_property
    def _squares(self) -> np.ndarray:
        """uint8 [n, E, E, 3] of the training images."""
        transform = self.start.larger
        shape = (len(self._train), transform.size, transform.size, 3)
        small = np.prod(shape, dtype=np.int64) <= IN_MEMORY
        found = np.empty(shape, np.uint8) if small else _in_a_file(shape)
        for where, pixels in self._decoded(self._train, transform):
            found[where] = pixels
        return found

    def _features(self, eye: TorchEncoder, rows: np.ndarray) -> np.ndarray:
        """float32 [k, d] of some rows."""
        found = np.empty((len(rows), eye.spec.dim), np.float32)
        for where, pixels in self._decoded(rows, self.start.transform):
            found[where] = eye.encode(pixels)
        return found

    def _decoded(self, rows: np.ndarray, transform: Prepare) -> Iterator[tuple[slice, np.ndarray]]:
        """Squares of some rows, a chunk at a time."""
        workers, size = self.view.embedding.workers or core_count(), self.start.transform.size
        for first in range(0, len(rows), CHUNK):
            where = slice(first, first + CHUNK)
            pixels, at = read_pictures(self.view.images, rows[where], size=size, workers=workers, prepare=transform)
            if len(at) < len(rows[where]):
                gone = np.setdiff1d(np.arange(len(rows[where])), at)[0]
                key = self.view.images.rows["key"][int(rows[where][gone])].as_py()
                raise SourceError(
                    f"Image {key!r} of {self.view.images.name!r} no longer reads as it did when it was embedded.",
                    hint="Run the same command again once the source is at rest.",
                )
            yield where, pixels


def _in_a_file(shape: tuple[int, ...]) -> np.ndarray:
    """An array that goes with the process: its file has no name."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.uint8, shape=shape)


def _tensors(network: nn.Module, head: Head) -> Iterator[tuple[str, str, Any]]:
    for owner, module in (("network", network), ("head", head)):
        for name, tensor in module.state_dict().items():
            yield owner, name, tensor


def _accuracy(head: Head, features: np.ndarray, classes: np.ndarray, truth: np.ndarray) -> float:
    """Share of features [n, d] that a head names as they are, its columns being these classes."""
    named = classes[head.probabilities(features).argmax(axis=1)]
    return float((named == truth).mean())


def _mean(measured: list[Measured]) -> Measured:
    """The mean of a figure over starts, on the whole and on each resample."""
    values, draws = zip(*((m.value, m.draws) for m in measured), strict=True)
    return Measured(value=float(np.mean(values)), draws=np.mean(draws, axis=0))
