"""Share of a pool's images that are exact copies of target images, by file or by decoded picture.

A pool that holds the target itself has an excellent distance and teaches nothing new: the verdict ``copies``.
"""

from __future__ import annotations

from curate.distances._samples import Vectors, as_vectors
from curate.results import Estimate


def copies(target: Vectors, pool: Vectors) -> Estimate:
    """Share of pool images whose bytes or decoded pixels equal a target image's.

    Returns:
        Estimate in 0..1 without an interval (it is a count); 0 under the null.
    """
    target, pool = as_vectors(target), as_vectors(pool)
    known = {digest for column in ("sha256", "pixels") for digest in target.column(column) if digest}
    pairs = zip(pool.column("sha256"), pool.column("pixels"), strict=True)
    count = sum(file in known or pixels in known for file, pixels in pairs)
    return Estimate(
        value=count / len(pool),
        n=(len(pool), len(target)),
        unit="share of pool images",
        lower_is_closer=False,
        method="equal file or equal decoded pixels",
        null=0.0,
    )
