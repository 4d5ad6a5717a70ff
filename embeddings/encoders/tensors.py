"""Weights files read without running anything in them, and networks that take them whole or not at all."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from embeddings.errors import CorruptError, one_line


def read_tensors(path: Path) -> dict[str, Any]:
    """The tensors in a weights file by name: safetensors, or PyTorch's own format without anything but tensors.

    Raises:
        CorruptError: truncated, of another kind, or a pickle that wants to run code (which is not done).
    """
    try:
        state: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except pickle.UnpicklingError as error:
        raise _unreadable(path, f"it holds more than tensors, and nothing in it was run: {one_line(error)}") from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise _unreadable(path, one_line(error)) from error
    if not isinstance(state, dict):
        raise _unreadable(path, f"it holds a {type(state).__name__}, wanted tensors by name")
    return state


def load_tensors(module: nn.Module, state: dict[str, Any], path: Path) -> None:
    """Puts tensors into a network; every one must find its place and every place be filled.

    Raises:
        CorruptError: names or shapes are not those of the network.
    """
    with fitting(path):
        module.load_state_dict(state)


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Turns what a library raises when tensors do not fit its network into our error.

    Raises:
        CorruptError: the block failed.
    """
    try:
        yield
    except (AttributeError, AssertionError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CorruptError(
            f"The weights in {path} do not fit the network ({one_line(error, width=300)}).",
            hint="Put the file of exactly this encoder there, or delete it.",
        ) from error


def _unreadable(path: Path, why: str) -> CorruptError:
    return CorruptError(f"{path.name} is no readable weights file ({why}).", hint=f"Delete {path}.")
