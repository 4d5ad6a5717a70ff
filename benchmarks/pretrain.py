"""What pretraining costs, against lightly's SimCLR with torchvision's per-image augmentation, and by itself.

    python benchmarks/pretrain.py                # all rows; writes benchmarks/results/pretrain-cpu.json
    python benchmarks/pretrain.py --only loader  # some of them, repeated; the others stay as they are in the file

    augmentation  CPU time per view: batched, and image by image with torchvision v2 and with Pillow
    step          a whole step from images in memory to new weights: ours, and lightly's recipe (its views, head and
                  loss, both views one after the other) on the same backbone, batch, optimizer and precision
    loss          the step without its views: our head and loss, and lightly's, on the same backbone and memory format
    public        a step from the public start: the frozen batch norms of Lite0 folded into its convolutions, and as
                  torch has them
    accumulation  exact gradients of a large batch in four chunks: time and memory against the batch in one piece
    loader        share of a run's time that it waits for images, read from the memory-mapped block
    methods       samples and operations per second of every method, as a share of what a large matrix product reaches

All sides of a row are timed in turn, in one process on one thread, in CPU time, and the median of each is taken, so
that ratios hold on a busy machine. Memory is the peak of what autograd keeps for the backward pass, parameters apart,
each storage once. lightly 1.6.0 (MIT) is installed into .peers/lightly where it is not there yet.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import torch
from measured import load_average, machine, measure
from PIL import Image

from curate.pretraining import trainer as pretraining_trainer
from curate.pretraining.adaptation import Adaptation
from curate.pretraining.augment.draws import VIEW_DRAWS, draw, uniforms
from curate.pretraining.augment.presets import PRESETS
from curate.pretraining.augment.views import augment
from curate.pretraining.backbones import resolve_backbone
from curate.pretraining.execution import Execution
from curate.pretraining.gradients import Step, backward
from curate.pretraining.heap import resident_heap
from curate.pretraining.images import ImageBlock
from curate.pretraining.knobs import with_knobs
from curate.pretraining.loop import read_ahead
from curate.pretraining.measure import measure_cost
from curate.pretraining.methods import METHODS, default_recipe
from curate.pretraining.sample import Sample, Seen
from curate.pretraining.schedule import Batch, Images, Schedule
from curate.pretraining.settings import Settings
from curate.pretraining.stages import Order
from curate.pretraining.trainer import Trainer
from embeddings.encoders.torchvision_import import import_torchvision
from embeddings.pipeline.batches import core_count
from embeddings.vectors import ShardedVectors

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "pretrain-cpu.json"
LIGHTLY = "lightly==1.6.0"
BATCH, LARGE, CHUNKS = 256, 128, 4
REPEATS = 3


def sample(edge: int, batch: int = BATCH) -> Sample:
    """A batch of noise, each image on its first visit."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (batch, 3, edge, edge), dtype=np.uint8)
    return Sample(pixels, np.arange(batch, dtype=np.uint64), np.zeros(batch, np.int64))


def cpu_us(sides: dict[str, Callable[[], Any]], count: int, *, ours: str) -> dict[str, float]:
    """Median CPU time per item in microseconds of each side, in turn, and how many times that of ours the others are.

    Each is called once before it is timed, as in the midst of a run, of which ours keeps the memory that it frees.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(REPEATS):
        for name, run in sides.items():
            with resident_heap() if name == ours else nullcontext():
                run()
                start = time.process_time()
                run()
                times[name].append(time.process_time() - start)
    found = {name: round(statistics.median(taken) / count * 1e6, 1) for name, taken in times.items()}
    return found | {f"{name}, times": round(found[name] / found[ours], 2) for name in sides if name != ours}


def trainer(method: str, network: str, size: int, *, init: str = "scratch", chunks: int = 1, **knobs: Any) -> Trainer:
    """What would train a run in float32."""
    recipe = with_knobs(default_recipe(method, init), knobs)
    settings = Settings(
        method=method,
        recipe=recipe,
        backbone=resolve_backbone(network, init=init, size=size),
        samples=10**6,
        order=Order(),
        adapt=Adaptation.parse("all"),
        seed=0,
        selection="",
    )
    return Trainer(settings, Execution(device="cpu", precision="float32", chunks=chunks))


def batched(images: Sample, size: int) -> torch.Tensor:
    """Our way, draws included."""
    u = uniforms(0, images.hashes, images.visits, stream=1, count=VIEW_DRAWS)
    draws = draw(PRESETS["natural"], u, stored=images.pixels.shape[-1], size=size)
    return augment(torch.from_numpy(images.pixels), draws, size=size)


def per_image_transforms(size: int) -> tuple[Any, Any]:
    """SimCLR's views with torchvision: for uint8 tensors, and for Pillow images."""
    import_torchvision()
    from torchvision import transforms as v1
    from torchvision.transforms import v2

    def build(kit: Any, last: list[Any]) -> Any:
        jitter = kit.RandomApply([kit.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8)
        kernel = 2 * max(1, size // 20) + 1
        blur = [kit.RandomApply([kit.GaussianBlur(kernel, (0.1, 2.0))], p=0.5)] if size >= 64 else []
        crop = kit.RandomResizedCrop(size, antialias=True)
        return kit.Compose([crop, kit.RandomHorizontalFlip(), jitter, kit.RandomGrayscale(), *blur, *last])

    return build(v2, [v2.ToDtype(torch.float32, scale=True)]), build(v1, [v1.ToTensor()])


def pictures(images: Sample) -> list[Image.Image]:
    """The images as Pillow has them."""
    return [Image.fromarray(pixels.transpose(1, 2, 0)) for pixels in images.pixels]


def augmentation() -> dict[str, Any]:
    """Microseconds of CPU per view, three ways."""
    found = {}
    for size in (32, 64):
        images = sample(size * 5 // 4)
        for_tensors, for_pictures = per_image_transforms(size)
        tensors, drawn = list(torch.from_numpy(images.pixels)), pictures(images)
        sides = {
            "batched": lambda images=images, size=size: batched(images, size),
            "torchvision v2": lambda way=for_tensors, tensors=tensors: [way(t) for t in tensors],
            "Pillow": lambda way=for_pictures, drawn=drawn: [way(p) for p in drawn],
        }
        found[f"{size} px"] = cpu_us(sides, BATCH, ours="batched")
    return {"unit": "microseconds of CPU per view", **found}


def import_lightly() -> Any:
    """Its modules: transforms, heads and losses."""
    folder = ROOT / ".peers" / "lightly"
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--target", folder, LIGHTLY]
        subprocess.run(command, check=True)
    sys.path.append(str(folder))
    import_torchvision()
    import lightly.loss
    import lightly.models.modules.heads
    import lightly.transforms

    return lightly


class Peer(torch.nn.Module):
    """lightly's SimCLR, as its documentation builds it, around a backbone."""

    def __init__(self, ours: Trainer) -> None:
        super().__init__()
        lightly, config = import_lightly(), ours.settings.recipe
        network = ours.settings.backbone.build(0)
        self.backbone = network.module
        self.head = lightly.models.modules.heads.SimCLRProjectionHead(network.dim, network.dim, config.dim)
        self.loss = lightly.loss.NTXentLoss(temperature=config.temperature)
        size = ours.settings.backbone.size
        self.transform = lightly.transforms.SimCLRTransform(size, cj_strength=0.5, gaussian_blur=0.0)
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=1e-2)

    def views(self, images: list[Image.Image]) -> list[torch.Tensor]:
        """Two views of each image, one image after the other."""
        return [torch.stack(view) for view in zip(*(self.transform(image) for image in images), strict=True)]

    def step(self, views: list[torch.Tensor], *, together: bool = False) -> None:
        """From views to new weights; with ``together`` both views are one batch."""
        self.optimizer.zero_grad()
        found = self.head(self.backbone(torch.cat(views))).chunk(2) if together else map(self._projected, views)
        self.loss(*found).backward()
        self.optimizer.step()

    def _projected(self, view: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(view))


def step() -> dict[str, Any]:
    """Whole steps at 32 pixels, and what of them makes the views."""
    ours = trainer("simclr", "tiny-resnet", 32)
    batch = ours.settings.recipe.training.batch
    images, peer = sample(ours.settings.backbone.stored_edge, batch), Peer(ours)
    drawn = pictures(images)
    whole = {
        "ours": lambda: ours.step(images, share=0.5, batch=batch),
        "lightly": lambda: peer.step(peer.views(drawn)),
    }
    views = {"ours": lambda: ours.views(images), "lightly": lambda: peer.views(drawn)}
    found = {"whole": cpu_us(whole, batch, ours="ours"), "views": cpu_us(views, batch, ours="ours")}
    return {"unit": "microseconds of CPU per sample, two views each", "batch": batch, **found}


def loss() -> dict[str, Any]:
    """From views to new weights, both on channels-last memory and with both views in one batch."""
    ours = trainer("simclr", "tiny-resnet", 32)
    batch = ours.settings.recipe.training.batch
    images, peer = sample(ours.settings.backbone.stored_edge, batch), Peer(ours)
    peer.to(memory_format=torch.channels_last)
    views = ours.views(images)
    ours.views = lambda _: views  # type: ignore[method-assign]
    sides = {
        "ours": lambda: ours.step(images, share=0.5, batch=batch),
        "lightly's head and loss": lambda: peer.step(views, together=True),
    }
    return {
        "unit": "microseconds of CPU per sample, two views each",
        "batch": batch,
        **cpu_us(sides, batch, ours="ours"),
    }


def public() -> dict[str, Any]:
    """SimCLR from Lite0 at 64 pixels, whose batch norms keep the statistics they were published with."""
    folded = trainer("simclr", "lite0", 64, init="public")
    with mock.patch.object(pretraining_trainer, "fold_frozen_norms"):
        plain = trainer("simclr", "lite0", 64, init="public")
    images = sample(folded.settings.backbone.stored_edge, LARGE)
    made = {"folded": folded, "as torch has them": plain}
    sides = {name: (lambda one=one: one.step(images, share=0.5, batch=LARGE)) for name, one in made.items()}
    times = cpu_us(sides, LARGE, ours="folded")
    return {"unit": "microseconds of CPU per sample, two views each", "batch": LARGE, **times}


def accumulation() -> dict[str, Any]:
    """SimCLR on the tiny ViT."""
    made = {f"{chunks} chunks": trainer("simclr", "tiny-vit", 32, chunks=chunks) for chunks in (1, CHUNKS)}
    images = sample(40, LARGE)
    sides = {name: (lambda one=one: one.step(images, share=0.5, batch=LARGE)) for name, one in made.items()}
    times = cpu_us(sides, LARGE, ours="1 chunks")
    memory = {name: _peak_mb(one, images) for name, one in made.items()}
    share = round(memory[f"{CHUNKS} chunks"] / memory["1 chunks"], 3)
    return {
        "batch": LARGE,
        "microseconds of CPU per sample": times,
        "peak MB of activations": {**memory, "share": share},
    }


class Kept:
    """A tensor that autograd keeps for the backward pass; its storage counts once, while anything keeps it."""

    count: ClassVar[Counter[int]] = Counter()
    now = peak = 0

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, storage = tensor, tensor.untyped_storage()
        self._where, self._bytes = storage.data_ptr(), storage.nbytes()
        Kept.count[self._where] += 1
        Kept.now += self._bytes * (Kept.count[self._where] == 1)
        Kept.peak = max(Kept.peak, Kept.now)

    def __del__(self) -> None:
        Kept.count[self._where] -= 1
        Kept.now -= self._bytes * (Kept.count[self._where] == 0)


def _peak_mb(made: Trainer, images: Sample) -> float:
    """Most that is kept for the backward pass at a time, parameters apart, in MB."""
    parameters = {p.untyped_storage().data_ptr() for p in made.learner.parameters()}
    seen, Kept.peak = Seen(made.views(images), images, 0), 0

    def pack(tensor: torch.Tensor) -> Kept | torch.Tensor:
        return tensor if tensor.untyped_storage().data_ptr() in parameters else Kept(tensor)

    def unpack(kept: Kept | torch.Tensor) -> torch.Tensor:
        return kept.tensor if isinstance(kept, Kept) else kept

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        backward(made.learner, seen, Step(0.5, len(images), made.execution.chunks))  # type: ignore[arg-type]
    return round(Kept.peak / 2**20, 1)


def loader() -> dict[str, Any]:
    """Two passes over 2,048 images; the first one brings the block into memory and is not timed."""
    made, n = trainer("simclr", "tiny-resnet", 32), 2048
    edge, batch = made.settings.backbone.stored_edge, made.settings.recipe.training.batch
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "00000.npy"
        np.save(path, sample(edge, n).pixels.reshape(n, -1))
        facts = Images(np.arange(n, dtype=np.uint64), np.ones(n, np.int64), np.zeros(n, np.int64))
        block = ImageBlock(ShardedVectors([np.load(path, mmap_mode="r")]), edge, facts, None)  # type: ignore[arg-type]
        block.read(np.arange(n))
        return _waiting(made, block, Schedule(facts, samples=n, batch=batch, seed=0))


def _waiting(made: Trainer, block: ImageBlock, schedule: Schedule) -> dict[str, Any]:
    """One pass with all threads; the time between steps is what the loop waits for."""

    def load(batch: Batch) -> Sample:
        return Sample(block.read(batch.rows), block.facts.hashes[batch.rows], batch.visits)

    torch.set_num_threads(core_count())
    busy, begun = 0.0, time.perf_counter()
    with resident_heap():
        for _, images in read_ahead(schedule.batches(), load):
            start = time.perf_counter()
            made.step(images, share=0.5, batch=schedule.batch)
            busy += time.perf_counter() - start
    whole = time.perf_counter() - begun
    torch.set_num_threads(1)
    return {
        "threads": core_count(),
        "samples per second": round(schedule.samples / whole, 1),
        "share of time waiting": round(1 - busy / whole, 4),
        "load of the machine meanwhile": load_average(),
    }


def methods() -> dict[str, Any]:
    """Every method from scratch on its own backbone at 32 pixels, one thread."""
    rate = _matrix_rate()
    found: dict[str, Any] = {"float32 matrix product, GFLOP per CPU second": round(rate / 1e9, 1)}
    for name in METHODS:
        made = trainer(name, METHODS[name].backbone, 32)
        batch = min(64, made.settings.recipe.training.batch)
        flops = measure_cost(made, batch=batch).flops
        images = sample(made.settings.backbone.stored_edge, batch)
        sides = {"step": lambda made=made, images=images, batch=batch: made.step(images, share=0.5, batch=batch)}
        us = cpu_us(sides, batch, ours="step")["step"]
        found[name] = {
            "backbone": METHODS[name].backbone,
            "batch": batch,
            "samples per CPU second": round(1e6 / us, 1),
            "MFLOP per sample": round(flops / 1e6, 1),
            "share of the matrix rate": round(flops / (us * 1e-6) / rate, 3),
        }
    return found


def _matrix_rate(n: int = 1024) -> float:
    """Operations per CPU second of a float32 product [n, n] @ [n, n], the best of some."""
    a, times = torch.ones(n, n), []
    for _ in range(2 * REPEATS):
        start = time.process_time()
        a @ a
        times.append(time.process_time() - start)
    return 2 * n**3 / min(times)


ROWS = {row.__name__: row for row in (augmentation, step, loss, public, accumulation, loader, methods)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    versions = machine("torch", "torchvision", "numpy", "pillow")
    measure(ROWS, RESULT, about=__doc__, facts={**versions, "peer": LIGHTLY})
