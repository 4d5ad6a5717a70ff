"""Test images that a run has seen before, without their labels: what it gains on them is no gain on new images.

A test image counts where its file, its picture in another file, or the image that it was cut from is among those that
the run's folder lists (``curate.pretraining.trained_on``). Pictures that are merely alike are not looked for; selection
keeps those away that resemble what ``--exclude`` names. A few are told, more than MOST of a test part are refused. Runs
of earlier versions list nothing: how many it were is then not known (None).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.pretraining.trained_on import DIGESTS, read_digests
from embeddings.errors import UsageError

SEEN = "test_images_pretrained_on"  # among the facts of an arm
MOST = 0.5
TOLD = ("frozen", "run")  # kinds of arms; what is fine-tuned stands beside the arm that it was


def count_pretrained_on(folder: Path, rows: pa.Table) -> int | None:
    """How many of some images, as rows of a store, a run was pretrained on; None where that is not known.

    Raises:
        CorruptError: the run's table does not read back.
    """
    listed = read_digests(folder)
    if listed is None:
        return None
    columns = [rows[name].combine_chunks() for name in (*DIGESTS, "file")]
    wanted = pa.concat_arrays(columns).drop_null()
    found = pa.chunked_array(
        [chunk for name in DIGESTS for chunk in _among(listed[name], wanted).chunks], type=pa.string()
    )
    known = np.logical_or.reduce(
        [pc.is_in(column, value_set=found).to_numpy(zero_copy_only=False) for column in columns]
    )
    is_whole = not pc.any(pc.and_(*(listed[name].is_null() for name in DIGESTS))).as_py()
    return int(known.sum()) if known.any() or is_whole else None


def require_mostly_new(arm: str, labeled: str, count: int | None, n_test: int) -> None:
    """Refuses to judge a run by images that it knows.

    Raises:
        UsageError: it was pretrained on more than half of them.
    """
    if count is None or count <= MOST * n_test:
        return
    raise UsageError(
        f"{arm!r} was pretrained on {count:,} of {n_test:,} test images of {labeled!r}, without their labels; its "
        "accuracy there would not be that on new images.",
        hint="Keep them out of the selection (curate select --exclude SOURCE) and pretrain again, or give a test part "
        "that it has not seen: TRAIN::TEST.",
    )


def warning(arm: str, kind: str, facts: Mapping[str, Any], n_test: int) -> list[str]:
    """What there is to say of an arm with these facts, in a clause; nothing where it has seen no test image."""
    count = facts.get(SEEN)
    if not count or kind not in TOLD:
        return []
    told = f"{arm} was pretrained on {count:,} of {n_test:,} test images (without labels)"
    return [f"{told}, so its figures may be too good"]


def _among(column: pa.ChunkedArray, wanted: pa.Array) -> pa.ChunkedArray:
    return column.filter(pc.is_in(column, value_set=wanted))
