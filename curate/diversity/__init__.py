"""How varied one set is by itself, or the union of several."""

from curate.diversity._duplicates import duplicates
from curate.diversity._effective_rank import effective_rank
from curate.diversity._unique import Unique, unique
from curate.diversity._vendi import vendi

__all__ = ["Unique", "duplicates", "effective_rank", "unique", "vendi"]
