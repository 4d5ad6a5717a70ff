"""The table of what a run has seen: its own images, those of the runs before it, and what is not known."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curate.exports.originals import ERRORS
from curate.pretraining.settings import resolve_settings
from curate.pretraining.trained_on import EARLIER, NAME, TRAINED_ON, read_digests, write_trained_on
from curate.results import SELECTION
from embeddings import files
from embeddings.errors import CorruptError

NONE = ERRORS.empty_table()


def chosen(*keys, source="pool"):
    """Rows of a selection; digests are named after the key."""
    rows = [{"source": source, "key": key, "sha256": f"s{key}", "pixels": f"p{key}"} for key in keys]
    return SELECTION.empty_table().from_pylist(rows, schema=SELECTION)


def images(folder):
    """Source and key of every row."""
    return [(row["source"], row["key"]) for row in files.read_table(folder / NAME).to_pylist()]


def test_images_that_could_not_be_read_are_not_among_them(tmp_path):
    rows = pa.concat_tables([chosen("a", "b"), chosen("a", source="other")])
    lost = ERRORS.empty_table().from_pylist([{"source": "pool", "key": "a", "reason": "gone"}], schema=ERRORS)
    write_trained_on(tmp_path, rows, lost, earlier=[])
    assert images(tmp_path) == [("pool", "b"), ("other", "a")]
    assert read_digests(tmp_path).to_pylist() == [{"sha256": f"s{key}", "pixels": f"p{key}"} for key in "ba"]
    assert files.read_table(tmp_path / NAME).schema.equals(TRAINED_ON)


def test_a_run_inherits_the_images_of_those_before_it_once(tmp_path):
    write_trained_on(tmp_path / "first", chosen("a", "b"), NONE, earlier=[])
    write_trained_on(tmp_path / "teacher", chosen("c", "d"), NONE, earlier=[])
    write_trained_on(tmp_path / "second", chosen("b", "c"), NONE, earlier=[tmp_path / "first", tmp_path / "teacher"])
    assert images(tmp_path / "second") == [("pool", key) for key in "bcad"]
    write_trained_on(tmp_path / "third", chosen("e"), NONE, earlier=[tmp_path / "second"])
    assert images(tmp_path / "third") == [("pool", key) for key in "ebcad"]


@pytest.mark.parametrize("content", [None, b"PAR1 no more", "foreign"])
def test_what_an_earlier_run_does_not_tell_is_one_unknown_image(tmp_path, content):
    earlier = tmp_path / "first"
    earlier.mkdir()
    if content == "foreign":
        files.write_table(earlier / NAME, pa.table({"sha256": [1], "pixels": [2]}))
    elif content:
        (earlier / NAME).write_bytes(content)
    write_trained_on(tmp_path / "second", chosen("a"), NONE, earlier=[earlier])
    write_trained_on(tmp_path / "third", chosen("b"), NONE, earlier=[tmp_path / "second"])
    assert images(tmp_path / "third") == [("pool", "b"), ("pool", "a"), (EARLIER, None)]
    assert read_digests(tmp_path / "third")["sha256"].to_pylist() == ["sb", "sa", None]
    if content is None:
        assert read_digests(earlier) is None
    else:
        with pytest.raises(CorruptError):
            read_digests(earlier)


def test_which_runs_are_earlier_ones(selection, tiny_teacher, tmp_path):
    from curate.pretraining.backbones import save_backbone
    from curate.pretraining.methods.distill import RECIPES, Config
    from embeddings.encoders.networks import build_network

    options = {"samples": 16, "batch": 8}
    assert resolve_settings(selection, **options).earlier == ()
    save_backbone(tmp_path, build_network("tiny-resnet", seed=1), size=32)
    started = resolve_settings(selection, init=f"run:{tmp_path}", **options)
    assert started.earlier == (tmp_path,)
    assert str(tmp_path) not in str(started.document())
    config = Config(training=RECIPES["scratch"].training, teacher="run:results/teacher")
    taught = resolve_settings(selection, method="distill", config=config, **options)
    assert [str(place) for place in taught.earlier] == ["results/teacher"]
