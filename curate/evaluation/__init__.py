"""Did it pay? Runs against the frozen public encoder, on labeled images, with intervals.

result = evaluate({"near-first": "runs/near"}, {"inspection": "labeled/"})   # EvalReport
for line in verdicts(result): ...

Names are imported on first use, so that this package costs nothing until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embeddings.on_first_use import on_first_use

if TYPE_CHECKING:
    from curate.evaluation._knn import knn_probe
    from curate.evaluation._label_equivalents import label_equivalents, learning_curve
    from curate.evaluation._linear import linear_probe
    from curate.evaluation._split import split_labeled, split_store
    from curate.evaluation._trajectory import trajectory
    from curate.evaluation._transfer import transfer
    from curate.evaluation._verdict import verdict, verdicts
    from curate.evaluation.arms import evaluate
    from curate.evaluation.augmentations import audit_augmentations
    from curate.evaluation.examinations import find_examinations
    from curate.evaluation.heeded import require_heeded
    from curate.evaluation.settings import read_settings

_HOME = {
    "audit_augmentations": ".augmentations",
    "evaluate": ".arms",
    "find_examinations": ".examinations",
    "knn_probe": "._knn",
    "label_equivalents": "._label_equivalents",
    "learning_curve": "._label_equivalents",
    "linear_probe": "._linear",
    "read_settings": ".settings",
    "require_heeded": ".heeded",
    "split_labeled": "._split",
    "split_store": "._split",
    "trajectory": "._trajectory",
    "transfer": "._transfer",
    "verdict": "._verdict",
    "verdicts": "._verdict",
}

__all__ = [
    "audit_augmentations",
    "evaluate",
    "find_examinations",
    "knn_probe",
    "label_equivalents",
    "learning_curve",
    "linear_probe",
    "read_settings",
    "require_heeded",
    "split_labeled",
    "split_store",
    "trajectory",
    "transfer",
    "verdict",
    "verdicts",
]
__getattr__, __dir__ = on_first_use(__name__, _HOME)
