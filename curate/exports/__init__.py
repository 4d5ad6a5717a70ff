"""A selection in the form that the next program wants; the sources themselves are only read.

curate.exports.export(chosen, to="webdataset", out="shards/")
loader = torch.utils.data.DataLoader(curate.exports.SelectionDataset(chosen, transform), num_workers=2)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embeddings.on_first_use import on_first_use

if TYPE_CHECKING:
    from curate.exports.preview import forecast
    from curate.exports.torch_dataset import SelectionDataset
    from curate.exports.writing import Export, export, require_most_images

__all__ = ["Export", "SelectionDataset", "export", "forecast", "require_most_images"]
_HOMES = {
    "Export": ".writing",
    "SelectionDataset": ".torch_dataset",
    "export": ".writing",
    "forecast": ".preview",
    "require_most_images": ".writing",
}
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
