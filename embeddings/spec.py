"""What made a vector; vectors compare only where it is the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from embeddings import files
from embeddings.errors import EncoderMismatchError


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """What made a vector. Two stores compare only if their specs are equal."""

    name: str
    dim: int
    size: int  # input edge in pixels; 0 where there is no image
    preprocessing: str
    weights: str  # sha256 of the weights; "" where there are none
    license: str = ""

    @property
    def fingerprint(self) -> str:
        """Short digest that stands for the whole spec."""
        return files.digest(asdict(self))[:16]

    def require_same(self, other: EncoderSpec, names: tuple[str, str]) -> None:
        """Refuses a comparison across encoders.

        Raises:
            EncoderMismatchError: the specs differ; names both and the first field that does.
        """
        if self == other:
            return
        mine, theirs = asdict(self), asdict(other)
        field = next(k for k in mine if mine[k] != theirs[k])
        raise EncoderMismatchError(
            f"{names[0]} was embedded by {self.name} and {names[1]} by {other.name} "
            f"({field}: {mine[field]!r} against {theirs[field]!r}).",
            hint="Embed both with the same encoder; distances across encoders mean nothing.",
        )
