"""Weights files made on the spot for every family that needs one, and a user's own encoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from embeddings.encoders import build_network, hub_weights
from embeddings.encoders.networks import seeded
from embeddings.encoders.torchvision_import import import_timm, import_torchvision
from embeddings.encoders.transform import Transform

TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
}
TINY_CLIP_WEIGHTS = {
    "hf_hub": "nobody/tiny/",
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.25, 0.3),
    "interpolation": "bilinear",
    "resize_mode": "squash",
}


class Weights:
    """Seeded weights where those put by hand belong; each method returns the encoder's name."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, monkeypatch
        monkeypatch.setenv("CURATE_WEIGHTS", str(folder))
        monkeypatch.setattr(hub_weights, "_check_hash", lambda path: None)  # seeded weights are not the promised ones

    def place(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def torchvision(self, name: str, *, seed: int = 0) -> str:
        models = import_torchvision().models
        with seeded(seed):
            module = models.get_model(name, weights=None)
        file = models.get_model_weights(name).DEFAULT.url.rsplit("/", 1)[-1]
        torch.save(module.state_dict(), self.place(f"torchvision/{file}"))
        return f"torchvision:{name}"

    def timm(self, name: str, *, seed: int = 0) -> str:
        with seeded(seed):
            module = import_timm().create_model(name)
        save_file(module.state_dict(), self.place(f"timm/{name}.safetensors"))
        return f"timm:{name}"

    def inception(self, *, seed: int = 0) -> str:
        from embeddings.encoders.inception import build_inception

        with seeded(seed):
            module = build_inception()
        file = "pt_inception-2015-12-05-6726825d.pth"
        torch.save(module.state_dict(), self.place(f"inception/{file}"))
        return "inception"

    def open_clip(self, *, seed: int = 0) -> str:
        """A tiny model under a name of its own, with its whole state dict in the file."""
        import_torchvision()
        open_clip = pytest.importorskip("open_clip")
        config = self.place("tiny.json")
        config.write_text(json.dumps(TINY_CLIP))
        open_clip.add_model_config(config)
        self._patch.setitem(open_clip.pretrained._PRETRAINED, "tiny", {"made": TINY_CLIP_WEIGHTS})
        with seeded(seed):
            module = open_clip.create_model("tiny")
        save_file(module.state_dict(), self.place("open_clip/tiny/made.safetensors"))
        return "open_clip:tiny/made"

    def run(self, *, seed: int = 1) -> str:
        folder, network = self.place("run/backbone.json").parent, build_network("tiny-resnet", seed=seed)
        save_file(network.module.state_dict(), folder / "backbone.safetensors")
        facts = {"schema": "curate.backbone/1", "network": network.name, "dim": network.dim, "size": 32}
        (folder / "backbone.json").write_text(json.dumps({**facts, "mean": network.mean, "std": network.std}))
        return f"run:{folder}"


def pooled():
    """A user's own encoder, as the documentation has it."""
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten())
    return network, Transform(size=64, mean=127.5, std=127.5)
