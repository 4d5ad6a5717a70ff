"""``inception``: the pool features of the Inception v3 of published FIDs, 2048 of them, at 299 px.

The network of 2015 that TensorFlow's FID runs, in its public port to PyTorch. It differs from torchvision's: average
pools beside the convolutions leave the padding out of their mean, the last block takes the maximum where the paper has
the mean, and there are 1008 classes (whose layer is dropped). Torchvision's blocks are kept but for these pools, so the
names of all tensors are those of the public file.

Images are squashed to 299x299 by Pillow's bicubic filter and scaled by (x - 128) / 128. The features are comparable
to clean-fid's, up to the rounding to 8 bits after the resize (clean-fid resizes in float); not to those of tools that
resize without a low-pass filter (TensorFlow's bilinear, pytorch-fid), whose FIDs differ by several points.
The weights are fetched once, or put at ``inception/pt_inception-2015-12-05-6726825d.pth`` below the weights folder.

Source: Szegedy et al., Rethinking the Inception Architecture, CVPR 2016; Heusel et al., GANs Trained by a Two
Time-Scale Update Rule, NeurIPS 2017; Parmar et al., On Aliased Resizing, CVPR 2022. Weights: TensorFlow's Inception of
2015-12-05 (Apache-2.0), ported by M. Seitzer for pytorch-fid.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from embeddings.encoders.folding import fold_if_equal
from embeddings.encoders.hub_weights import TorchHubFile, find_weights
from embeddings.encoders.tensors import load_tensors, read_tensors
from embeddings.encoders.torch_encoder import Placement, TorchEncoder, weights_digest
from embeddings.encoders.torchvision_import import import_torchvision
from embeddings.encoders.transform import Transform
from embeddings.errors import UnknownNameError
from embeddings.spec import EncoderSpec

NAME = "inception"
DIM = 2048
SIZE = 299
CLASSES = 1008
URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
blocks: Any = import_torchvision().models.inception


def make_inception(name: str, placement: Placement) -> TorchEncoder:
    """Builds ``inception``.

    Raises:
        UnknownNameError: a size or variant was asked for; there is one only.
        MissingExtraError: the weights are neither on this machine nor to be had.
        CorruptError: the weights file is damaged or another network's.
    """
    if name != NAME:
        raise UnknownNameError("encoder", name, (NAME,))
    origin = TorchHubFile(URL)
    path = find_weights(NAME, f"{NAME}/{origin.name}", origin)
    module = build_inception()
    load_tensors(module, read_tensors(path), path)
    module.fc = nn.Identity()
    transform = Transform(size=SIZE, mean=128.0, std=128.0)
    spec = EncoderSpec(
        name=NAME,
        dim=DIM,
        size=SIZE,
        preprocessing=f"{transform}; global mean of the last block",
        weights=weights_digest(module),
        license="Apache-2.0",
    )
    return TorchEncoder(fold_if_equal(module, SIZE), spec=spec, transform=transform, placement=placement)


def build_inception() -> nn.Module:
    """The network with its classifier, without weights worth the name; its tensors are named as in the public file."""
    module: nn.Module = import_torchvision().models.inception_v3(
        weights=None, num_classes=CLASSES, aux_logits=False, init_weights=False
    )
    module.Mixed_5b, module.Mixed_5c, module.Mixed_5d = PoolA(192, 32), PoolA(256, 64), PoolA(288, 64)
    module.Mixed_6b, module.Mixed_6c = PoolC(768, 128), PoolC(768, 160)
    module.Mixed_6d, module.Mixed_6e = PoolC(768, 160), PoolC(768, 192)
    module.Mixed_7b, module.Mixed_7c = PoolE(1280), MaxPoolE(2048)
    return module


class PoolA(blocks.InceptionA):  # type: ignore[misc]
    """Four ways through 35x35 features: 1x1, 5x5, twice 3x3, and a pool."""

    def _forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        wide = self.branch5x5_2(self.branch5x5_1(x))
        deep = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return [self.branch1x1(x), wide, deep, self.branch_pool(_mean_pool(x))]


class PoolC(blocks.InceptionC):  # type: ignore[misc]
    """Four ways through 17x17 features: 1x1, 7x7 as two strips, the same twice, and a pool."""

    def _forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return [self.branch1x1(x), once, twice, self.branch_pool(_mean_pool(x))]


class PoolE(blocks.InceptionE):  # type: ignore[misc]
    """Four ways through 8x8 features: 1x1, 3x3 as two strips side by side, the same after a 3x3, and a pool."""

    def _forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        flat = self.branch3x3_1(x)
        deep = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        strips = [self.branch3x3_2a(flat), self.branch3x3_2b(flat)]
        deep_strips = [self.branch3x3dbl_3a(deep), self.branch3x3dbl_3b(deep)]
        return [self.branch1x1(x), *strips, *deep_strips, self.branch_pool(self._pool(x))]

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        return _mean_pool(x)


class MaxPoolE(PoolE):
    """The last block, which takes the maximum."""

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(x, kernel_size=3, stride=1, padding=1)


def _mean_pool(x: torch.Tensor) -> torch.Tensor:
    """Mean over 3x3 neighborhoods, of those pixels that exist."""
    return functional.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)
