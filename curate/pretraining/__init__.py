"""Self-supervised training on a selection, at a budget counted in samples seen.

run = curate.pretrain(selection, samples=200_000, out="runs/a")
print(curate.pretraining.plan(selection, samples=200_000))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embeddings.on_first_use import on_first_use

if TYPE_CHECKING:
    from curate.pretraining.budget import Plan, plan
    from curate.pretraining.explanation import Explanation, explain
    from curate.pretraining.knobs import read_knobs
    from curate.pretraining.loop import pretrain
    from curate.pretraining.run_folder import require_most_images

__all__ = ["Explanation", "Plan", "explain", "plan", "pretrain", "read_knobs", "require_most_images"]
_HOMES = {
    "Explanation": ".explanation",
    "Plan": ".budget",
    "explain": ".explanation",
    "plan": ".budget",
    "pretrain": ".loop",
    "read_knobs": ".knobs",
    "require_most_images": ".run_folder",
}
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
