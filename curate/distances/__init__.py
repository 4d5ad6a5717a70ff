"""Distances between a target and a pool.

Every function takes arrays [n, d] or stores, says in its docstring which direction is closer, and returns an Estimate
with its error or its null; ``frechet_full`` alone returns the bare figure that other tools quote.
"""

from typing import TYPE_CHECKING

from embeddings.on_first_use import on_first_use

if TYPE_CHECKING:
    from curate.distances._c2st import TwoSample, c2st
    from curate.distances._cmmd import cmmd
    from curate.distances._copies import copies
    from curate.distances._coverage import coverage
    from curate.distances._fd_infinity import fd_infinity
    from curate.distances._frechet import frechet
    from curate.distances._frechet_full import frechet_full
    from curate.distances._influence import influence, influence_by
    from curate.distances._kid import Kid, kid
    from curate.distances._knn import Neighbors, knn
    from curate.distances._manifold import Manifold, prdc
    from curate.distances._mmd import mmd
    from curate.distances._mmd_permutation import mmd_permutation
    from curate.distances._neurons import NeuronShift, neurons
    from curate.distances._otdd import otdd
    from curate.distances._sinkhorn import sinkhorn
    from curate.distances._sliced import sliced
    from curate.distances._usable import Usable, usable
    from embeddings.histograms import NeuronHistograms

__all__ = [
    "Kid",
    "Manifold",
    "Neighbors",
    "NeuronHistograms",
    "NeuronShift",
    "TwoSample",
    "Usable",
    "c2st",
    "cmmd",
    "copies",
    "coverage",
    "fd_infinity",
    "frechet",
    "frechet_full",
    "influence",
    "influence_by",
    "kid",
    "knn",
    "mmd",
    "mmd_permutation",
    "neurons",
    "otdd",
    "prdc",
    "sinkhorn",
    "sliced",
    "usable",
]

_MODULES = {
    "Kid": "curate.distances._kid",
    "Manifold": "curate.distances._manifold",
    "Neighbors": "curate.distances._knn",
    "NeuronHistograms": "embeddings.histograms",
    "NeuronShift": "curate.distances._neurons",
    "TwoSample": "curate.distances._c2st",
    "Usable": "curate.distances._usable",
    "c2st": "curate.distances._c2st",
    "cmmd": "curate.distances._cmmd",
    "copies": "curate.distances._copies",
    "coverage": "curate.distances._coverage",
    "fd_infinity": "curate.distances._fd_infinity",
    "frechet": "curate.distances._frechet",
    "frechet_full": "curate.distances._frechet_full",
    "influence": "curate.distances._influence",
    "influence_by": "curate.distances._influence",
    "kid": "curate.distances._kid",
    "knn": "curate.distances._knn",
    "mmd": "curate.distances._mmd",
    "mmd_permutation": "curate.distances._mmd_permutation",
    "neurons": "curate.distances._neurons",
    "otdd": "curate.distances._otdd",
    "prdc": "curate.distances._manifold",
    "sinkhorn": "curate.distances._sinkhorn",
    "sliced": "curate.distances._sliced",
    "usable": "curate.distances._usable",
}
__getattr__, __dir__ = on_first_use(__name__, _MODULES)
