"""What pretraining costs: augmentation per view against per-image torchvision and Pillow, and whole steps.

    python benchmarks/pretrain.py            # writes benchmarks/results/pretrain-cpu.json

All ways are timed in one process on one thread, in CPU time, so that their ratios hold on a busy machine; the steps are
timed on the clock with all threads as well.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from curate.pretraining.augment.draws import VIEW_DRAWS, draw, uniforms
from curate.pretraining.augment.presets import PRESETS
from curate.pretraining.augment.views import augment
from curate.pretraining.backbones import resolve_backbone
from curate.pretraining.execution import Execution
from curate.pretraining.heap import resident_heap
from curate.pretraining.methods import default_recipe
from curate.pretraining.sample import Sample
from curate.pretraining.settings import Settings
from curate.pretraining.trainer import Trainer
from embeddings.encoders.torchvision_import import import_torchvision
from embeddings.pipeline.batches import core_count

RESULT = Path(__file__).parent / "results" / "pretrain-cpu.json"
BATCH = 256
REPEATS = 5
BACKBONES = (("tiny-resnet", "scratch", 32), ("lite0", "public", 64))


def sample(edge: int, batch: int = BATCH) -> Sample:
    """A batch of noise, each image on its first visit."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (batch, 3, edge, edge), dtype=np.uint8)
    return Sample(pixels, np.arange(batch, dtype=np.uint64), np.zeros(batch, np.int64))


def cpu_us(run: Callable[[], Any], count: int) -> float:
    """Median CPU time per item in microseconds, after one call to warm up."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return round(statistics.median(times) / count * 1e6, 1)


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


def augmentation(size: int) -> dict[str, float]:
    """Microseconds of CPU per view, three ways."""
    images = sample(size * 5 // 4)
    tensors = list(torch.from_numpy(images.pixels))
    pictures = [Image.fromarray(pixels.transpose(1, 2, 0)) for pixels in images.pixels]
    for_tensors, for_pictures = per_image_transforms(size)
    found = {
        "batched": cpu_us(lambda: batched(images, size), BATCH),
        "torchvision v2, per image": cpu_us(lambda: [for_tensors(t) for t in tensors], BATCH),
        "Pillow, per image": cpu_us(lambda: [for_pictures(p) for p in pictures], BATCH),
    }
    times = {f"times slower than batched: {name}": round(us / found["batched"], 1) for name, us in found.items()}
    return found | {name: ratio for name, ratio in times.items() if ratio != 1.0}


def steps(network: str, init: str, size: int) -> dict[str, float]:
    """Samples per second of whole training steps, and the share of it that makes the views."""
    backbone = resolve_backbone(network, init=init, size=size)
    recipe = default_recipe("simclr", init)
    settings = Settings(method="simclr", recipe=recipe, backbone=backbone, samples=BATCH, seed=0, selection="")
    trainer, batch = Trainer(settings, Execution(device="cpu")), recipe.training.batch
    images = sample(backbone.stored_edge, batch)
    cpu = cpu_us(lambda: trainer.step(images, share=0.5, batch=batch), batch)
    views = cpu_us(lambda: trainer.views(images), batch)
    load = os.getloadavg()[0]
    torch.set_num_threads(core_count())
    start = time.perf_counter()
    for _ in range(REPEATS):
        trainer.step(images, share=0.5, batch=batch)
    wall = (time.perf_counter() - start) / REPEATS
    torch.set_num_threads(1)
    return {
        "batch": batch,
        "samples per CPU second, one thread": round(1e6 / cpu, 1),
        "samples per second, all threads": round(batch / wall, 1),
        "load of the machine meanwhile": round(load, 1),
        "share of views": round(views / cpu, 3),
    }


def measure() -> None:
    result = {
        "unit": "microseconds of CPU per view; samples (two views each)",
        "hardware": {
            "machine": platform.machine(),
            "cores": core_count(),
            "torch": torch.backends.cpu.get_cpu_capability(),
        },
        "versions": {name: version(name) for name in ("torch", "torchvision", "numpy", "pillow")},
        "augmentation": {f"{size} px": augmentation(size) for size in (32, 64)},
        "step": {f"{network}@{size}": steps(network, init, size) for network, init, size in BACKBONES},
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def main() -> None:
    torch.set_num_threads(1)
    with resident_heap():
        measure()


if __name__ == "__main__":
    main()
