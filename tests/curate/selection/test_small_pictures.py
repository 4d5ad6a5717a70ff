"""Which pictures could be had: marks of rows against sets, kept, restored and bounded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.selection._small_pictures import PictureColors, SmallPictures, _Marks
from embeddings.store import EmbeddingStore

SIZES = (5, 0, 3)
PLACES = st.lists(st.sampled_from([(0, row) for row in range(5)] + [(2, row) for row in range(3)]))


@given(st.lists(PLACES))
def test_places_are_marked_as_a_set_would_hold_them(parts):
    marks, known = _Marks(SIZES), set()
    for part in parts:
        marks.add(np.array(part, np.int64).reshape(-1, 2))
        known |= set(part)
    assert len(marks) == len(known)
    assert marks.to_array().tolist() == [list(place) for place in sorted(known)]
    assert (marks.to_array().shape[1], marks.to_array().dtype) == (2, np.int64)
    marks.clear()
    assert len(marks) == 0


class Colors(PictureColors):
    """Those of one store in memory, some of which cannot be read."""

    def __init__(self, rows, gone=()):
        self.stores = [EmbeddingStore.from_vectors(np.zeros((rows, 1), np.float32))]
        super().__init__(self.stores)
        self._sources, self.gone, self.asked = [object()], set(gone), []

    def read(self, place):
        self.asked.append(place[1])
        return None if place[1] in self.gone else np.zeros((5, 192), np.int16)


def search(colors):
    return SmallPictures(colors.stores, colors)


def test_what_was_had_and_what_was_lost_is_counted_and_goes_on(monkeypatch):
    monkeypatch.setattr("curate.selection._small_pictures.KEPT", 2)
    pictures = search(Colors(6, gone=[3]))
    found = pictures.contrast([(0, 0), (0, 0), (0, 2)], [(0, 1), (0, 2), (0, 3)])
    assert found == pytest.approx([0, 0, np.nan], nan_ok=True)
    assert pictures.read == 3
    state = pictures.to_arrays()
    assert state["pictures"].tolist() == [[0, 0], [0, 1], [0, 2]]
    assert state["lost"].tolist() == [[0, 3]]
    assert not pictures.is_back(state)
    again = search(Colors(6))
    again.contrast([(0, 5)], [(0, 4)])
    again.restore(state)  # in place of what it knew
    assert {name: places.tolist() for name, places in again.to_arrays().items()} == {
        name: places.tolist() for name, places in state.items()
    }
    assert again.is_back(state)


def test_a_second_search_reads_what_is_new_or_was_lost_and_counts_what_it_asked_for():
    colors = Colors(6, gone=[1, 3])
    first = [(0, 0), (0, 0), (0, 2)], [(0, 1), (0, 2), (0, 3)]
    search(colors).contrast(*first)
    colors.gone, colors.asked = {3}, []
    second, alone = search(colors), search(Colors(6, gone=[3]))
    pairs = [(0, 0), (0, 3)], [(0, 1), (0, 5)]
    np.testing.assert_array_equal(second.contrast(*pairs), alone.contrast(*pairs))
    assert sorted(colors.asked) == [1, 3, 5]
    assert {name: places.tolist() for name, places in second.to_arrays().items()} == {
        "pictures": [[0, 0], [0, 1], [0, 5]],
        "lost": [[0, 3]],
    }
    assert second.read == alone.read == 3


def test_memory_does_not_grow_with_the_pictures_read(monkeypatch):
    monkeypatch.setattr("curate.selection._small_pictures.KEPT", 4)
    colors = Colors(1000)
    pictures = search(colors)
    for row in range(0, 1000, 2):
        pictures.contrast([(0, row)], [(0, row + 1)])
    assert pictures.read == 1000
    assert len(colors._known) <= 4
    assert sum(rows.nbytes for marks in (pictures._had, pictures._lost) for rows in marks._rows) == 2000
