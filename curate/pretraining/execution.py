"""How a run is computed: on what, in which precision, in how many pieces; its result depends on this by rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embeddings.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from embeddings.encoders.torch_encoder import Placement

PRECISIONS = ("auto", "float32", "bfloat16", "float64")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What ``pretrain`` takes about the machine."""

    device: str = "auto"
    precision: str = "auto"  # bfloat16 on a GPU, else float32; float64 to compare runs
    chunks: int = 1  # parts in which a batch passes the backbone; the gradient stays exact
    chunk_stats: bool = False  # let batch norms see each chunk by itself
    compile: bool = False
    cache: float = 20.0  # GB of disk for the decoded images; more are decoded at each visit
    workers: int | None = None  # threads that decode; default one per core

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UnknownNameError("precision", self.precision, PRECISIONS)
        if self.chunks < 1:
            raise UsageError(f"A batch cannot pass in {self.chunks} chunks.", hint="Ask for 1 or more.")
        if not self.cache >= 0 or (self.workers is not None and self.workers < 1):
            raise UsageError(
                f"Images cannot be decoded by {self.workers} workers into {self.cache:g} GB.",
                hint="Give 1 worker or more, and cache=0 or more GB.",
            )

    def place(self) -> Placement:
        """The device of this process, and the precision on it.

        Raises:
            UsageError: no such device on this machine.
        """
        from curate.pretraining.ranks import local_device
        from embeddings.encoders.torch_encoder import Placement

        double = self.precision == "float64"
        found = Placement.choose(local_device(self.device), "float32" if double else self.precision)
        return Placement(found.device, "float64") if double else found
