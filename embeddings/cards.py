"""How a result shows itself: two to six lines of text in a terminal, a small table in a notebook.

Both say the same and end with what to call next. Whatever came from outside (names, addresses, reasons) is escaped and
kept on one line; there is no script and no style sheet, since a notebook holds many of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embeddings.store import EmbeddingStore

TEXT_LINES = 4  # between the title and what to call next
HTML_ROWS = 20
LONGEST = 150  # characters of a line of text
LEFT = 'style="text-align:left"'  # notebooks align to the right


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is shown of one result."""

    title: str
    notes: Sequence[str] = ()  # sentences
    columns: Sequence[str] = ()  # headings; without them a row is a name and what it is
    rows: Sequence[Sequence[str]] = ()  # the first cell is a name; cells may be empty
    then: str = ""  # what to call next
    picture: str = ""  # SVG, safe as it is; in a notebook only

    def text(self) -> str:
        """For ``__repr__``."""
        body = [*self.notes, *(self._line(row) for row in self.rows)]
        if len(body) > TEXT_LINES:
            body = [*body[: TEXT_LINES - 1], f"... and {len(body) - TEXT_LINES + 1:,} more"]
        lines = [_one_line(line) for line in [self.title, *body, self.then] if line]
        return "\n  ".join(line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..." for line in lines)

    def html(self) -> str:
        """For ``_repr_html_``."""
        more = len(self.rows) - HTML_ROWS
        notes = [*self.notes, *([f"... and {more:,} more"] if more > 0 else [])]
        return "".join(
            [
                f"<div><b>{_escaped(self.title)}</b>",
                self._table(),
                self.picture,
                *(f"<div>{_escaped(note)}</div>" for note in notes),
                f"<div>Next: <code>{_escaped(self.then)}</code></div>" if self.then else "",
                "</div>",
            ]
        )

    def _table(self) -> str:
        if not self.rows:
            return ""
        head = "".join(f"<th {LEFT}>{_escaped(name)}</th>" for name in self.columns)
        lines = ["".join(f"<td {LEFT}>{_escaped(cell)}</td>" for cell in row) for row in self.rows[:HTML_ROWS]]
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"

    def _line(self, row: Sequence[str]) -> str:
        name, *cells = row
        headings = [f"{heading} " for heading in self.columns[1:]] or [""] * len(cells)
        told = [heading + cell for heading, cell in zip(headings, cells, strict=False) if cell]
        return f"{name}: {', '.join(told)}" if told else name


def store_card(store: EmbeddingStore) -> Card:
    """Of a store; reads nothing from disk."""
    rows = [("source", store.source), ("folder", str(store.path or "in memory"))]
    errors = store.facts.get("errors", 0) if store.path else len(store.errors)
    return Card(
        title=f"EmbeddingStore({len(store):,} x {store.spec.dim}, {store.spec.name}, {errors} errors)",
        rows=[row for row in rows if row[1]],
        then=".vectors() .rows() .column(name); curate.score(store, pools)",
    )


def _one_line(text: str) -> str:
    """Without line breaks, and without what a terminal would take for a command."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))


def _escaped(text: str) -> str:
    return escape(_one_line(text))
