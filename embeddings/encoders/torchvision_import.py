"""The one place that imports torchvision, so that it also works beside a CPU-only torch.

The published torchvision wheel links CUDA. Beside a CPU build of torch its native library does not load, and the
import stops with "operator torchvision::nms does not exist", although models, transforms and data sets need none of it.
Declaring the two missing operator schemas lets the import through; ``torchvision.ops.nms`` and ``torchvision.io`` stay
unusable. A torchvision that works is left alone: declaring first would break it.
"""

from __future__ import annotations

import importlib
import sys
import threading
import warnings
from functools import cache
from typing import Any

NO_WIDGETS = "IProgress not found"  # tqdm in a notebook, of bars that are never drawn: timm's hub imports it
MISSING = "operator torchvision::nms does not exist"
_lock = threading.Lock()
_declared: list[Any] = []  # torch drops the schemas when the library object dies


def import_torchvision() -> Any:
    """The torchvision package, with ``models`` and ``transforms`` loaded.

    Raises:
        ImportError: torchvision is not installed, or fails for another reason than the missing operators.
    """
    with _lock:
        return _import("torchvision")


def import_timm() -> Any:
    """The timm package, which imports torchvision itself."""
    import_torchvision()
    with _lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=NO_WIDGETS)
        return _import("timm")


@cache
def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if MISSING not in str(error):
            raise
    for module in [m for m in sys.modules if m == "torchvision" or m.startswith("torchvision.")]:
        del sys.modules[module]
    _declare_operators()
    return importlib.import_module(name)


def _declare_operators() -> None:
    import torch

    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
