"""How varied one set is by itself, or the union of several."""

from typing import TYPE_CHECKING

from embeddings.on_first_use import on_first_use

if TYPE_CHECKING:
    from curate.diversity._duplicates import duplicates
    from curate.diversity._effective_rank import effective_rank
    from curate.diversity._unique import Unique, unique
    from curate.diversity._vendi import vendi

__all__ = ["Unique", "duplicates", "effective_rank", "unique", "vendi"]

_MODULES = {
    "Unique": "._unique",
    "duplicates": "._duplicates",
    "effective_rank": "._effective_rank",
    "unique": "._unique",
    "vendi": "._vendi",
}
__getattr__, __dir__ = on_first_use(__name__, _MODULES)
