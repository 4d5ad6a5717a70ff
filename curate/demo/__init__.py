"""A small real data set and the file of arms that ``curate demo`` runs; licenses in ATTRIBUTION.md beside it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from embeddings.errors import StorageError

__all__ = ["demo_folder"]


def demo_folder() -> Path:
    """The installed folder that holds ``curate.toml``, ``data/*.parquet`` and ``ATTRIBUTION.md``.

    Raises:
        StorageError: the package is imported from a zip file, where the data have no path.
    """
    folder = resources.files(__name__)
    if not isinstance(folder, Path):
        raise StorageError(
            "The demo data are inside a zip file and have no path.", hint="Install the wheel with pip instead."
        )
    return folder
