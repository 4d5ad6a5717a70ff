"""The file of exported moments comes from others: whatever it holds, it reads back whole or is refused with a hint."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from embeddings import moments_file
from embeddings.class_moments import ClassMoments
from embeddings.errors import CorruptError, SourceError, UsageError
from embeddings.histograms import NeuronHistograms
from embeddings.moments import FOLDS, Moments, pack
from embeddings.moments_file import FIELD, ExportedMoments, is_moments_file, read_moments, write_moments
from embeddings.principal_moments import PrincipalMoments
from embeddings.spec import EncoderSpec

D = 6
SPEC = EncoderSpec(name="lite0", dim=D, size=128, preprocessing="squash", weights="abc", license="Apache-2.0")


def made(*, rank=None, classes=True, histograms=True):
    x = np.random.default_rng(0).normal(size=(300, D))
    folds = np.arange(300) % FOLDS
    moments = Moments.from_vectors(x, folds, encoder=SPEC.fingerprint)
    members = {"cat": np.arange(100), "dög": np.arange(100, 300)}
    return ExportedMoments(
        spec=SPEC,
        statistics=moments if rank is None else PrincipalMoments.of(moments, rank, 2),
        classes=ClassMoments.of(x, members) if classes else None,
        histograms=NeuronHistograms.spanning(x, bins=9, encoder=SPEC.fingerprint).count(x, folds)
        if histograms
        else None,
    )


def taken_apart(path):
    data = path.read_bytes()
    whole = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(whole["__metadata__"][FIELD]), {name: array.copy() for name, array in load(data).items()}


def put_together(path, header, arrays):
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    path.write_bytes(save(arrays, metadata={FIELD: json.dumps(header)}))


@pytest.fixture
def path(tmp_path):
    write_moments(tmp_path / "m", made())
    return tmp_path / "m"


@pytest.fixture
def projected(tmp_path):
    write_moments(tmp_path / "p", made(rank=2))
    return tmp_path / "p"


@pytest.mark.parametrize("rank", [None, 2])
def test_what_was_written_reads_back(tmp_path, rank):
    export = made(rank=rank)
    size = write_moments(tmp_path / "m", export)
    found = read_moments(tmp_path / "m")
    assert size == (tmp_path / "m").stat().st_size
    assert (found.spec, found.rank, len(found)) == (SPEC, rank, 300)
    np.testing.assert_allclose(found.moments.scatter, export.moments.scatter, rtol=1e-6, atol=1e-5)
    for ours, theirs in ((found.classes, export.classes), (found.histograms, export.histograms)):
        for name, value in vars(theirs).items():
            np.testing.assert_array_equal(getattr(ours, name), value)
            assert getattr(getattr(ours, name), "dtype", None) == getattr(value, "dtype", None)


def test_the_same_statistics_give_the_same_bytes_and_digest(tmp_path):
    for name in ("a", "b"):
        write_moments(tmp_path / name, made())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_moments(tmp_path / "a").digest == read_moments(tmp_path / "b").digest != ""


def test_is_known_by_its_beginning(path, tmp_path):
    assert is_moments_file(path)
    assert is_moments_file(str(path))
    (tmp_path / "other").write_bytes(save({"n": np.zeros(3)}, metadata={"schema": "other"}))
    np.savez(tmp_path / "n.npz", n=np.zeros(3))
    (tmp_path / "empty").write_bytes(b"")
    for other in ("other", "n.npz", "empty", "absent", ".", "a\0b"):
        assert not is_moments_file(tmp_path / other)


def test_all_dimensions_of_1280_fit_into_35_megabytes(tmp_path):
    d = 1280
    spec = EncoderSpec(name="lite0", dim=d, size=128, preprocessing="", weights="")
    moments = Moments(
        n=np.full(FOLDS, 3000),
        mean=np.zeros((FOLDS, d)),
        scatter=np.tile(pack(np.eye(d)), (FOLDS, 1)),
        encoder=spec.fingerprint,
    )
    assert write_moments(tmp_path / "m", ExportedMoments(spec=spec, statistics=moments)) <= 35e6


def test_too_large_a_set_is_refused_before_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(moments_file, "MAX_DIM", D - 1)
    with pytest.raises(UsageError, match="the limits are 5 dimensions"):
        write_moments(tmp_path / "m", made())
    assert not list(tmp_path.iterdir())


class TestDamage:
    def test_absent(self, tmp_path):
        with pytest.raises(SourceError, match="No file"):
            read_moments(tmp_path / "m")

    def test_a_folder_or_another_file(self, tmp_path):
        np.savez(tmp_path / "n.npz", n=np.zeros(3))
        for other in (tmp_path, tmp_path / "n.npz"):
            with pytest.raises(CorruptError, match="does not read back as an export") as error:
                read_moments(other)
            assert "curate moments" in error.value.hint

    def test_cut_anywhere_or_with_something_behind(self, path):
        whole = path.read_bytes()
        for size in (*range(0, 3000, 101), len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            with pytest.raises(CorruptError):
                read_moments(path)
        path.write_bytes(whole + b"\0")
        with pytest.raises(CorruptError):
            read_moments(path)

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_changed_anywhere_it_reads_or_is_refused(self, tmp_path_factory, data):
        folder = tmp_path_factory.mktemp("flip")
        write_moments(folder / "m", made(rank=data.draw(st.sampled_from([None, 2]))))
        whole = bytearray((folder / "m").read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            # half of the changes in the header, which is short
            limit = data.draw(st.sampled_from([1200, len(whole)]))
            whole[data.draw(st.integers(0, limit - 1))] = data.draw(st.integers(0, 255))
        (folder / "m").write_bytes(whole)
        try:
            found = read_moments(folder / "m")
        except CorruptError:
            return
        assert np.isfinite(found.moments.scatter).all()

    def test_larger_than_the_limit(self, path, monkeypatch):
        monkeypatch.setattr(moments_file, "MAX_BYTES", path.stat().st_size - 1)
        with pytest.raises(CorruptError, match="larger than"):
            read_moments(path)


HEADERS = {
    "another version": {"schema": "curate.moments-export/2"},
    "no schema": {"schema": None},
    "rank of all dimensions": {"rank": D},
    "negative rank": {"rank": -1},
    "rank that is no number": {"rank": True},
    "bins beyond the limit": {"bins": 10**9},
    "class names that are no list": {"classes": "cat"},
    "class names that are no texts": {"classes": [1, 2]},
    "a class twice": {"classes": ["cat", "cat"]},
    "one class more": {"classes": ["cat", "dog", "emu"]},
    "no encoder": {"encoder": None},
    "encoder of a number": {"encoder": {**vars(SPEC), "name": 3}},
    "encoder with an escape sequence": {"encoder": {**vars(SPEC), "name": "\x1b[2Jlite0"}},
    "a dimension of text": {"encoder": {**vars(SPEC), "dim": "6"}},
    "more dimensions than memory": {"encoder": {**vars(SPEC), "dim": 10**9}},
    "another dimension": {"encoder": {**vars(SPEC), "dim": D + 1}},
    "an unknown field of the encoder": {"encoder": {**vars(SPEC), "path": "/etc"}},
}


class TestHostile:
    @pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
    def test_header(self, path, change):
        header, arrays = taken_apart(path)
        put_together(path, {**header, **change}, arrays)
        assert is_moments_file(path)
        with pytest.raises(CorruptError):
            read_moments(path)

    @pytest.mark.parametrize("further", [None, -1, 1, D - 2, "2", 10**9])
    def test_impossible_further_directions(self, projected, further):
        header, arrays = taken_apart(projected)
        put_together(projected, {**header, "further": further}, arrays)
        with pytest.raises(CorruptError):
            read_moments(projected)

    @pytest.mark.parametrize("text", ["", "[]", "3", '{"schema": NaN}', "[" * 100_000, '{"a":' * 50_000])
    def test_header_that_is_no_object(self, path, text):
        path.write_bytes(save(taken_apart(path)[1], metadata={FIELD: text}))
        with pytest.raises(CorruptError):
            read_moments(path)

    def test_a_small_file_of_many_dimensions_takes_no_memory(self, projected):
        d = 500_000
        header, arrays = taken_apart(projected)
        header["encoder"]["dim"] = d
        header["classes"] = header["bins"] = None
        kept = {name: arrays[name] for name in ("n", "inside", "outside", "shares")}
        wide = {"mean": np.zeros((FOLDS, d)), "directions": np.tile(np.eye(d, 4), (2, 1, 1))}
        put_together(projected, header, {**kept, **wide})
        with pytest.raises(CorruptError, match="500,000 dimensions"):
            read_moments(projected)

    def test_arrays_missing_or_beside_those_of_the_header(self, path):
        header, arrays = taken_apart(path)
        for other in ({**arrays, "keys": np.zeros(3)}, {n: a for n, a in arrays.items() if n != "mean"}):
            put_together(path, header, other)
            with pytest.raises(CorruptError, match="wanted"):
                read_moments(path)

    @pytest.mark.parametrize("name", ["n", "mean", "scatter", "class_root", "counts", "beyond"])
    def test_arrays_of_another_shape_or_kind(self, path, name):
        header, arrays = taken_apart(path)
        for other in (arrays[name][:-1], arrays[name].reshape(-1), arrays[name] > 0):
            if other.shape == arrays[name].shape and other.dtype == arrays[name].dtype:
                continue
            put_together(path, header, {**arrays, name: other})
            with pytest.raises(CorruptError):
                read_moments(path)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e35])
    @pytest.mark.parametrize("name", ["mean", "scatter", "class_mean", "class_rest", "low", "beyond"])
    def test_values_that_are_not_finite(self, path, name, value):
        header, arrays = taken_apart(path)
        arrays[name].reshape(-1)[3 % arrays[name].size if arrays[name].ndim > 1 else 0] = value
        put_together(path, header, arrays)
        with pytest.raises(CorruptError, match="not finite"):
            read_moments(path)

    @pytest.mark.parametrize(
        ("name", "index", "value"),
        [
            ("n", 0, -1),
            ("n", 0, 2**62),
            ("n", slice(None), 0),
            ("scatter", (0, 0), -1.0),  # a variance below 0
            ("scatter", (0, 1), 1e4),  # a correlation above 1
            ("class_n", 0, 1),
            ("class_rest", 0, -1.0),
            ("counts", (0, 0, 0), 200),
            ("width", 0, -1.0),
            ("beyond", (0, 0, 0), -1.0),
        ],
    )
    def test_values_that_no_images_have(self, path, name, index, value):
        header, arrays = taken_apart(path)
        arrays[name][index] = value
        put_together(path, header, arrays)
        with pytest.raises(CorruptError):
            read_moments(path)

    @pytest.mark.parametrize(
        ("name", "index", "value"),
        [
            ("directions", (0, 0, 0), 3.0),
            ("inside", (0, 0, 1), 5.0),
            ("inside", (0, 0, 0), -5.0),
            ("outside", 0, -1.0),
            ("shares", (1, 0), 1.1),
            ("shares", (1, 0), -0.1),
            ("shares", (1, 0), np.nan),
        ],
    )
    def test_directions_that_no_images_have(self, projected, name, index, value):
        header, arrays = taken_apart(projected)
        arrays[name][index] = value
        put_together(projected, header, arrays)
        with pytest.raises(CorruptError):
            read_moments(projected)


@pytest.mark.parametrize("field", ["name", "preprocessing", "weights", "license"])
def test_long_texts_of_the_encoder_are_refused(field, tmp_path):
    path = tmp_path / "m"
    write_moments(path, made())
    header, arrays = taken_apart(path)
    header["encoder"][field] = "x" * (moments_file.MAX_TEXT + 1)
    put_together(path, header, arrays)
    message = f"{field} of the encoder has 1,001 characters; up to 1,000 are read"
    with pytest.raises(CorruptError, match=message) as refused:
        read_moments(path)
    assert "curate moments" in refused.value.hint


def test_long_names_of_classes_are_refused_both_ways(tmp_path):
    path, long = tmp_path / "m", "x" * (moments_file.MAX_TEXT + 1)
    write_moments(path, made())
    header, arrays = taken_apart(path)
    header["classes"] = ["cat", long]
    put_together(path, header, arrays)
    with pytest.raises(CorruptError, match="a class name of 1,001 characters"):
        read_moments(path)
    classes = ClassMoments.of(np.random.default_rng(0).normal(size=(300, D)), {long: np.arange(300)})
    with pytest.raises(UsageError, match="A name of 1,001 characters"):
        write_moments(tmp_path / "n", replace(made(), classes=classes))


def test_a_huge_header_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    path = tmp_path / "m"
    write_moments(path, made())
    monkeypatch.setattr(moments_file, "MAX_HEADER", 100)
    monkeypatch.setattr(moments_file, "load", None)
    with pytest.raises(CorruptError, match="a header of more than 100 bytes"):
        read_moments(path)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2000),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=5,
)


def told(path):
    """What is read, or why nothing is."""
    try:
        return f"{len(read_moments(path))} images"
    except CorruptError as error:
        return error.message


@pytest.mark.parametrize("rank", [None, 2])
def test_any_header_reads_or_is_refused_in_a_few_words(rank, tmp_path):
    path = tmp_path / "m"
    write_moments(path, made(rank=rank))
    kept, arrays = taken_apart(path)

    @settings(max_examples=100, deadline=None)
    @given(field=st.sampled_from(sorted(kept)), inner=st.sampled_from(["", *kept["encoder"]]), value=ANY_JSON)
    def refused_or_read(field, inner, value):
        header = json.loads(json.dumps(kept))
        if inner:
            header["encoder"][inner] = value
        else:
            header[field] = value
        put_together(path, header, arrays)
        assert told(path) == "300 images" or 0 < len(told(path)) < 400 + len(str(path))

    refused_or_read()
