"""Image towers of OpenCLIP: ``open_clip:ViT-B-32/laion2b_s34b_b79k``, an architecture and the tag of its weights.

Features are the image embedding (projected, not normalized); the text tower is never built, and nothing of the file
but the image tower is kept. Images are resized, cropped and scaled as the weights' preprocessing says. QuickGELU is
used where the weights were trained with it, whatever the architecture's own name says.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from embeddings.encoders.folding import fold_if_equal
from embeddings.encoders.hub_weights import HuggingFaceFile, find_weights
from embeddings.encoders.naming import UNKNOWN_LICENSE, unknown_encoder
from embeddings.encoders.tensors import fitting, read_tensors
from embeddings.encoders.timm import license_of
from embeddings.encoders.torch_encoder import Placement, TorchEncoder, feature_count, weights_digest
from embeddings.encoders.torchvision_import import import_torchvision
from embeddings.encoders.transform import Transform
from embeddings.errors import MissingExtraError, install_command, one_line
from embeddings.spec import EncoderSpec

PREFIX = "open_clip:"
DEFAULT_FILES = (  # what a repository may call its weights, the preferred first
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)


class Tower(nn.Module):
    """An image tower under the name that it has within a whole model."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual


def open_clip_names() -> list[str]:
    """Every name this file serves.

    Raises:
        MissingExtraError: OpenCLIP is not installed.
    """
    return [f"{PREFIX}{architecture}/{tag}" for architecture, tag in _open_clip().list_pretrained()]


def make_open_clip(name: str, placement: Placement) -> TorchEncoder:
    """Builds ``open_clip:ARCH/TAG``.

    Raises:
        MissingExtraError: OpenCLIP is not installed, or the weights are neither on this machine nor to be had.
        UnknownNameError: no such architecture, or no such weights for it.
        CorruptError: the weights file is damaged or another network's.
    """
    known = open_clip_names()
    if name not in known:
        raise unknown_encoder(name, known)
    architecture, tag = name.removeprefix(PREFIX).split("/")
    weights = _open_clip().pretrained.get_pretrained_cfg(architecture, tag)
    config = _open_clip().get_model_config(architecture)
    module = _load_tower(name, config, weights)
    transform = weights_transform(config, weights)
    spec = EncoderSpec(
        name=name,
        dim=feature_count(module, transform.size),
        size=transform.size,
        preprocessing=f"{transform}; projected image embedding",
        weights=weights_digest(module),
        license=_license(weights),
    )
    module = fold_if_equal(module, transform.size)
    return TorchEncoder(module, spec=spec, transform=transform, placement=placement)


def describe(name: str) -> dict[str, Any]:
    """Size in pixels, dimension and license of a name, without its weights."""
    architecture, tag = name.removeprefix(PREFIX).split("/")
    config = _open_clip().get_model_config(architecture)
    weights = _open_clip().pretrained.get_pretrained_cfg(architecture, tag)
    size = weights_transform(config, weights).size
    return {"size": size, "dim": config["embed_dim"], "license": _license(weights)}


def weights_transform(config: dict[str, Any], weights: dict[str, Any]) -> Transform:
    """What OpenCLIP's own evaluation transform does for these weights."""
    size = config["vision_cfg"].get("image_size", 224)
    edge = size if isinstance(size, int) else size[0]
    return Transform(
        size=edge,
        shorter_side=None if weights["resize_mode"] == "squash" else edge,
        resampling=weights["interpolation"],
        mean=tuple(round(255 * v, 4) for v in weights["mean"]),
        std=tuple(round(255 * v, 4) for v in weights["std"]),
    )


def _load_tower(name: str, config: dict[str, Any], weights: dict[str, Any]) -> nn.Module:
    open_clip = _open_clip()
    place = f"{name.replace(':', '/', 1)}.safetensors"
    path = find_weights(name, place, _origin(weights["hf_hub"]))
    state = read_tensors(path)
    quick = bool(weights.get("quick_gelu") or config.get("quick_gelu"))
    vision = {**config["vision_cfg"], "output_tokens": False, "timm_model_pretrained": False}
    tower = Tower(open_clip.model._build_vision_tower(config["embed_dim"], vision, quick))
    with fitting(path):
        state = open_clip.convert.convert_state_dict(tower, state)
        tower.load_state_dict({key: tensor for key, tensor in state.items() if key.startswith("visual.")})
    return tower.visual


def _origin(address: str) -> HuggingFaceFile:
    """OpenCLIP writes REPOSITORY/FILE, with no file where it has the usual name."""
    repository, _, file = address.rpartition("/")
    return HuggingFaceFile(repository, (file,) if file else DEFAULT_FILES)


def _license(weights: dict[str, Any]) -> str:
    """OpenCLIP records none, but timm does for the weights that both share."""
    owner, network = weights["hf_hub"].split("/")[:2]
    return license_of(network) if owner == "timm" else UNKNOWN_LICENSE


def _open_clip() -> Any:
    import_torchvision()  # which open_clip imports
    try:
        import open_clip
        import open_clip.convert
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Encoders of OpenCLIP need the package open-clip-torch ({one_line(error)}).",
            hint=install_command("clip"),
        ) from error
    return open_clip
