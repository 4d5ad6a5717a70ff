"""How varied one set is by itself."""

from curate.diversity._duplicates import duplicates
from curate.diversity._effective_rank import effective_rank

__all__ = ["duplicates", "effective_rank"]
