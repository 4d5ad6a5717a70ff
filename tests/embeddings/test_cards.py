"""Cards: two to six lines of text, a small table of HTML in which nothing from outside is markup."""

from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.cards import HTML_ROWS, LONGEST, TEXT_LINES, Card
from embeddings.pipeline import embed
from embeddings.store import EmbeddingStore

ALLOWED = {"div", "b", "table", "thead", "tbody", "tr", "th", "td", "code", "svg", "path", "polyline"}


class Reader(HTMLParser):
    """Collects tags and text, and notices what is not closed."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.said = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


def read(html):
    """The page's tags and texts; fails where it is not well formed or holds a tag that no card has."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    assert set(reader.tags) <= ALLOWED
    return reader


@given(st.lists(st.lists(st.text(max_size=12), min_size=2, max_size=4), max_size=30), st.text(max_size=30))
def test_any_content_stays_text(rows, title):
    card = Card(title=f"x{title}", columns=("a", "b", "c", "d"), rows=rows, notes=[title], then=title)
    assert read(card.html()).said[0].startswith("x")
    lines = card.text().split("\n")
    assert 1 <= len(lines) <= TEXT_LINES + 2
    assert max(len(line) for line in lines) <= LONGEST + 2
    assert all(line.isprintable() for line in lines)


def test_markup_line_breaks_and_commands_to_a_terminal_are_text():
    card = Card(title="<b>&amp;\n</b>\x1b[2J", rows=[("a", "<i>")])
    assert read(card.html()).said == ["<b>&amp; </b>\N{REPLACEMENT CHARACTER}[2J", "a", "<i>"]
    assert card.text() == "<b>&amp; </b>\N{REPLACEMENT CHARACTER}[2J\n  a: <i>"


def test_text_names_columns_skips_empty_cells_and_counts_the_rest():
    rows = [("web", "4.9", "near"), ("open", "", "far"), *[(f"p{i}", "1", "x") for i in range(5)]]
    card = Card(title="Report", columns=("pool", "index", "verdict"), rows=rows, then=".rows()")
    assert card.text().split("\n") == [
        "Report",
        "  web: index 4.9, verdict near",
        "  open: verdict far",
        "  p0: index 1, verdict x",
        "  ... and 4 more",
        "  .rows()",
    ]


def test_html_says_what_is_not_shown():
    card = Card(title="Report", rows=[(f"p{i}", "1") for i in range(HTML_ROWS + 3)])
    page = read(card.html())
    assert page.tags.count("tr") == HTML_ROWS
    assert page.said[-1] == "... and 3 more"


def test_a_store_shows_itself_also_when_its_folder_is_gone(tmp_path):
    np.save(tmp_path / "mine.npy", np.eye(4, 3, dtype=np.float32))
    embed(tmp_path / "mine.npy", out=tmp_path / "store")
    store = EmbeddingStore.open(tmp_path / "store")
    said = repr(store)
    for part in (tmp_path / "store").iterdir():
        part.unlink()
    assert repr(store) == said
    assert said.startswith("EmbeddingStore(4 x 3, vectors, 0 errors)\n  source: ")
    assert str(tmp_path / "store") in "".join(read(store._repr_html_()).said)


@pytest.mark.parametrize("n", [1, 3])
def test_a_store_in_memory_shows_itself(n):
    store = EmbeddingStore.from_vectors(np.ones((n, 2)), name="<b>mine</b>")
    assert repr(store).split("\n")[:2] == [f"EmbeddingStore({n} x 2, <b>mine</b>, 0 errors)", "  folder: in memory"]
    assert "&lt;b&gt;mine&lt;/b&gt;" in store._repr_html_()
