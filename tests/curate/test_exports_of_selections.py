"""Every export, made by the command line and read back by a program that knows nothing of ours."""

import csv
import errno
import io
import json
import os
import pickle
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyarrow import feather
from shard_files import write as write_tar

from curate.cli import main
from curate.exports import SelectionDataset, export, forecast, hugging_face, image_folder, originals, writing
from curate.exports.names import MAX_BYTES, safe_name, safe_names, safe_stem
from curate.exports.settings import FOLDERS
from curate.results import LEFT_OUT, SELECTION, Selection
from embeddings import files
from embeddings.errors import (
    ForeignFolderError,
    ImageError,
    MissingExtraError,
    PartialError,
    SourceError,
    StorageError,
    UnknownNameError,
    UsageError,
)
from embeddings.pictures.decode import decode
from embeddings.pictures.tiles import Box, tile_key, tile_sha256, tile_uri
from embeddings.pipeline.locks import locked
from embeddings.sources import open_source

UNLIKE = ("export.json", "state.json")  # which holds a fingerprint that is random
KINDS = ("parquet", "csv", "paths", "folder", "webdataset", "huggingface")


def make_selection(sources, rows, **columns):
    """A Selection of rows (source, key, uri, sha256); ``columns`` replace those of the manifest."""
    n = len(rows)
    told = dict(zip(("source", "key", "uri", "sha256"), map(list, zip(*rows, strict=True)), strict=True))
    told |= {"rank": list(range(n)), "stage": [0] * n, "repeats": [1] * n, "score": [-0.5] * n, **columns}
    table = pa.table(
        {f.name: pa.array(told[f.name], f.type) if f.name in told else pa.nulls(n, f.type) for f in SELECTION}
    )
    addresses = {name: str(address) for name, address in sources.items()}
    return Selection(table=table, left_out=LEFT_OUT.empty_table(), facts={"method": "all"}, sources=addresses)


def everything(**sources):
    """A Selection of all images of some sources, in turn."""
    rows = []
    for name, address in sources.items():
        source = open_source(str(address))
        for row in source.listing().images.to_pylist():
            rows.append((name, row["key"], row["uri"], files.digest_bytes(source.read(row["uri"]))))
    return make_selection(sources, rows)


@pytest.fixture
def world(tmp_path, image_folder, image_table, pictures, encode):
    """Four sources of every kind, the bytes of each selected image in rank order, and the Selection, saved."""
    web, opened, shard, lots = (pictures(n, seed=n) for n in (4, 3, 2, 1))
    lots = {"lot.png": encode(np.random.default_rng(0).integers(0, 255, (20, 24, 3)).astype(np.uint8))}
    photo = encode(np.full((9, 7, 3), 90, np.uint8), "JPEG")
    web["cat/photo.PNG"] = photo  # whose name lies about its format
    folder = image_folder(web, "web")
    table = image_table(opened, "open.parquet", license=["CC-BY 4.0", "CC0", None], author=["=1+1", "b", "c"])
    tar = write_tar(tmp_path / "shard.tar", shard | {"cat/000.json": b'{"license": "MIT"}'})
    tiles = f"{image_folder(lots, 'lots')}#tiles:12"
    chosen = everything(web=folder, open=table, tar=tar)
    digest, boxes = files.digest_bytes(lots["lot.png"]), [Box(0, 0, 12, 12), Box(12, 8, 12, 12)]
    rows = [tuple(r.values()) for r in chosen.rows().select(["source", "key", "uri", "sha256"]).to_pylist()]
    rows += [("lots", tile_key("lot.png", b), tile_uri("lot.png", b), tile_sha256(digest, b)) for b in boxes]
    chosen = make_selection(chosen.sources | {"lots": tiles}, rows).save(tmp_path / "chosen")
    data = [web[k] for k in sorted(web)] + [opened[k] for k in sorted(opened)] + [shard[k] for k in sorted(shard)]
    cuts = [np.asarray(decode(lots["lot.png"]).crop(box.corners)) for box in boxes]
    return chosen, data, cuts


@pytest.fixture
def curate(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as stopped:
            main(["export", *map(str, words), "--quiet"])
        out, err = capsys.readouterr()
        return stopped.value.code, out, " ".join(err.split())

    return run


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def left_behind(folder):
    return [p.name for p in Path(folder).iterdir() if p.name.endswith(".part")]


def snapshot(folder, but=()):
    """Path, time, size and bytes of every file."""
    found = [p for p in sorted(Path(folder).rglob("*")) if p.is_file() and p.name not in but]
    return [(str(p), p.stat().st_mtime_ns, p.stat().st_size, p.read_bytes()) for p in found]


def test_parquet_tells_other_programs_where_every_image_is(world, curate, tmp_path):
    _, data, _ = world
    code, out, err = curate("chosen", "--to", "parquet", "--out", "m.parquet", "--json")
    assert code == 0, err
    assert json.loads(out)["images"] == 12
    rows = pq.read_table("m.parquet").to_pylist()
    assert [r["source"] for r in rows] == ["web"] * 5 + ["open"] * 3 + ["tar"] * 2 + ["lots"] * 2
    for row, wanted in zip(rows[:5], data[:5], strict=True):
        assert Path(row["path"]).read_bytes() == wanted
        assert row["offset"] is row["length"] is row["entry"] is None
    table = pq.read_table(rows[5]["path"])
    for row, wanted in zip(rows[5:8], data[5:8], strict=True):
        assert table.filter(pc.equal(table["key"], row["entry"]))["image"][0].as_py()["bytes"] == wanted
    for row, wanted in zip(rows[8:10], data[8:10], strict=True):
        with Path(row["path"]).open("rb") as file:
            file.seek(row["offset"])
            assert file.read(row["length"]) == wanted
    assert [r["box"] for r in rows[10:]] == ["0,0,12,12", "12,8,12,12"]
    assert [r["meta_license"] for r in rows[5:9]] == ["CC-BY 4.0", None, "CC0", "MIT"]
    assert [r["label"] for r in rows[5:8]] == ["cat", "cat", "dog"]
    assert set(SELECTION.names) <= set(rows[0])
    assert pq.read_schema("m.parquet").field("stage").type == pa.int32()


def test_every_column_of_the_manifest_travels_along(world, tmp_path):
    chosen, _, _ = world
    table = (
        chosen.rows().append_column("license", pa.array(["x"] * 12)).append_column("meta_license", pa.array([7] * 12))
    )
    more = replace(chosen, table=table)
    export(more, to="parquet", out=tmp_path / "m.parquet")
    export(more, to="webdataset", out=tmp_path / "shards")
    rows = pq.read_table(tmp_path / "m.parquet")
    assert rows["license"].to_pylist() == ["x"] * 12
    assert rows["meta_license"].to_pylist() == [7] * 12  # what the selection says wins over its source
    with tarfile.open(tmp_path / "shards" / "shard-000000.tar") as archive:
        assert json.load(archive.extractfile("00000000.json"))["license"] == "x"


def test_csv_reads_back_and_a_spreadsheet_runs_none_of_it(world, curate):
    chosen, _, _ = world
    assert curate("chosen", "--to", "csv", "--out", "m.csv")[0] == 0
    with Path("m.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["key"] for r in rows] == chosen.rows()["key"].to_pylist()
    assert rows[5]["meta_author"] == "'=1+1"
    assert {float(r["score"]) for r in rows} == {-0.5}  # a number is no formula
    assert Path(rows[0]["path"]).is_file()
    assert rows[0]["offset"] == ""


@pytest.mark.parametrize("value", ["=1", "+1", "-1", "@a", "\ta", "\ra", "a\nb", 'a"b', "a,b", "é", "x"])
def test_csv_cells_round_trip_apart_from_the_apostrophe(world, tmp_path, value):
    chosen, _, _ = world
    reasons = chosen.rows().set_column(chosen.rows().column_names.index("reason"), "reason", pa.array([value] * 12))
    export(replace(chosen, table=reasons), to="csv", out=tmp_path / "m.csv")
    with (tmp_path / "m.csv").open(encoding="utf-8", newline="") as file:
        found = next(csv.DictReader(file))["reason"]
    assert found == (f"'{value}" if value[0] in "=+-@\t\r" else value)


def test_path_list_has_a_line_per_image_and_is_a_source_itself(world, curate, image_folder, pictures):
    chosen, _, _ = world
    code, out, _ = curate("chosen", "--to", "paths", "--out", "all.txt")
    assert code == 0
    assert "5 of them lie in archives or tables" in out
    assert Path("all.txt").read_text().splitlines() == chosen.to_paths()
    made = pictures(4)
    everything(a=image_folder(made, "plain")).save(Path("plain-chosen"))
    assert curate("plain-chosen", "--to", "paths", "--out", "plain.txt")[0] == 0
    source = open_source("plain.txt")
    assert [source.read(uri) for uri in source.listing().images["uri"].to_pylist()] == list(
        dict(sorted(made.items())).values()
    )


@pytest.mark.parametrize("link", [None, "hard", "symbolic", "copy"])
def test_folder_holds_the_very_bytes_of_every_image(world, curate, link):
    _, data, cuts = world
    words = [] if link is None else ["--link", link]
    code, _, err = curate("chosen", "--to", "folder", "--out", "tree", *words)
    assert code == 0, err
    found = sorted(Path("tree").rglob("0*"))
    by_row = {int(p.name[:8]): p for p in found}
    assert sorted(by_row) == list(range(12))
    assert [by_row[i].read_bytes() for i in range(10)] == data
    assert by_row[4].suffix == ".png"
    assert by_row[2].suffix == ".jpg"  # what it is, not what it was called
    for i, cut in enumerate(cuts):
        assert np.array_equal(pixels(by_row[10 + i].read_bytes()), cut)
    assert {p.parent.name for p in found} == {"web", "open", "tar", "lots"}
    original = Path(pq.read_table("chosen/selection.parquet").slice(0, 1)["uri"][0].as_py())
    original = Path("web") / original
    assert by_row[0].is_symlink() == (link == "symbolic")
    assert (by_row[0].stat().st_ino == original.stat().st_ino) == (link != "copy")
    assert not by_row[5].is_symlink()  # it lies in a table
    with Path("tree/manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path("tree", r["file"]) for r in rows] == [by_row[i] for i in range(12)]
    assert rows[5]["meta_license"] == "CC-BY 4.0"


def test_torchvision_reads_the_folder(world, curate):
    from embeddings.encoders.torchvision_import import import_torchvision

    assert curate("chosen", "--to", "folder", "--out", "tree", "--label")[0] == 0
    found = import_torchvision().datasets.ImageFolder("tree")
    assert found.classes == ["cat", "dog", "unlabeled"]  # the tiles of an image at the top have no label
    assert len(found) == 12
    assert found[0][0].mode == "RGB"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its files open
def test_webdataset_reads_the_shards(world, curate):
    webdataset = pytest.importorskip("webdataset")
    _, data, _ = world
    code, out, err = curate("chosen", "--to", "webdataset", "--out", "shards", "--shard-size", 0.0105)
    assert code == 0, err
    shards = sorted(Path("shards").glob("*.tar"))
    assert f"shard-{{000000..{len(shards) - 1:06d}}}.tar" in out
    assert len(shards) > 1
    assert all(s.stat().st_size <= 10_500 for s in shards)
    samples = list(webdataset.WebDataset([str(s) for s in shards], shardshuffle=False))
    assert [s["__key__"] for s in samples] == [f"{i:08d}" for i in range(12)]
    assert [s.get("png", s.get("jpg")) for s in samples][:10] == data
    assert json.loads(samples[5]["json"])["meta_license"] == "CC-BY 4.0"
    rows = open_source("shards/shard-*.tar").listing().images  # and so do we
    assert len(rows) == 12
    assert "CC-BY 4.0" in rows["meta"].to_pylist()[5]


def test_shards_have_the_same_bytes_every_time_and_hold_at_least_one_image(world, tmp_path):
    chosen, _, _ = world
    for name in ("one", "two"):
        export(chosen, to="webdataset", out=tmp_path / name, shard_size=0.0001, workers=1 if name == "one" else 4)
    one, two = ([p.read_bytes() for p in sorted((tmp_path / n).glob("*.tar"))] for n in ("one", "two"))
    assert one == two
    assert len(one) == 12
    with tarfile.open(tmp_path / "one" / "shard-000000.tar") as archive:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in archive} == {(0, 0, 0, "", 0o644)}
        assert all(re.fullmatch(r"\d{8}\.[a-z]+", m.name) for m in archive)


def test_datasets_reads_the_data_set(world, curate):
    datasets = pytest.importorskip("datasets")
    _, data, cuts = world
    code, _, err = curate("chosen", "--to", "huggingface", "--out", "saved")
    assert code == 0, err
    found = datasets.load_from_disk("saved")
    assert len(found) == 12
    assert np.array_equal(np.asarray(found[0]["image"].convert("RGB")), pixels(data[0]))
    assert np.array_equal(np.asarray(found[11]["image"].convert("RGB")), cuts[1])
    assert found[5]["meta_license"] == "CC-BY 4.0"
    bare = found.cast_column("image", datasets.Image(decode=False))
    assert [bare[i]["image"]["bytes"] for i in range(10)] == data
    assert len(open_source("saved").listing().images) == 12


def test_without_the_library_the_extra_is_named(world, curate, monkeypatch):
    monkeypatch.setattr("curate.exports.hugging_face.find_spec", lambda name: None)
    code, _, err = curate("chosen", "--to", "huggingface", "--out", "saved")
    assert code == 2
    assert "pip install 'datasets>=4.0'" in err
    assert not Path("saved").exists()
    with pytest.raises(MissingExtraError):
        export("chosen", to="huggingface", out="saved")


class TestDataset:
    def test_loader_with_two_workers_reads_what_pillow_reads(self, world):
        from torch.utils.data import DataLoader

        chosen, data, cuts = world
        dataset = SelectionDataset(chosen, np.array)
        loader = DataLoader(dataset, batch_size=None, num_workers=2)
        found = [(np.asarray(image), row) for image, row in loader]
        assert [row for _, row in found] == list(range(12))
        for (image, _), wanted in zip(found, [*map(pixels, data), *cuts], strict=True):
            assert np.array_equal(image, wanted)

    def test_it_can_be_pickled_after_use_and_opens_lazily(self, world):
        chosen, data, _ = world
        dataset = SelectionDataset(chosen)
        assert dataset._opened is None
        dataset[5]
        again = pickle.loads(pickle.dumps(dataset))
        assert again._opened is None
        image, row = again[5]
        assert (row, image.mode) == (5, "RGB")
        assert np.array_equal(np.asarray(image), pixels(data[5]))

    def test_every_process_opens_the_sources_for_itself(self, world, monkeypatch):
        dataset = SelectionDataset(world[0])
        mine = dataset._sources()
        assert dataset._sources() is mine
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert dataset._sources() is not mine

    def test_stage_and_repeats(self, world):
        chosen, _, _ = world
        table = chosen.rows()
        for name, values, kind in (("stage", [0, 1, 1] * 4, pa.int32()), ("repeats", [1, 2, 3] * 4, pa.int32())):
            table = table.set_column(table.column_names.index(name), name, pa.array(values, kind))
        staged = replace(chosen, table=table)
        assert len(SelectionDataset(staged)) == 12
        assert len(SelectionDataset(staged, repeat=True)) == 24
        assert [SelectionDataset(staged, stage=0)[i][1] for i in range(4)] == [0, 3, 6, 9]
        both = SelectionDataset(staged, stage=1, repeat=True)
        assert [both[i][1] for i in range(5)] == [1, 1, 2, 2, 2]

    def test_a_changed_image_is_refused(self, world, tmp_path):
        chosen, data, _ = world
        (tmp_path / "web" / chosen.rows()["uri"][0].as_py()).write_bytes(data[1])
        with pytest.raises(ImageError, match="changed"):
            SelectionDataset(chosen)[0]
        with pytest.raises(IndexError):
            SelectionDataset(chosen)[12]


def test_first_is_the_lowest_ranks(world, curate):
    chosen, _, _ = world
    assert curate("chosen", "--to", "paths", "--out", "few.txt", "--first", 3)[0] == 0
    assert Path("few.txt").read_text().splitlines() == chosen.to_paths()[:3]
    assert curate("chosen", "--to", "paths", "--out", "more.txt", "--first", 99)[0] == 0
    assert len(Path("more.txt").read_text().splitlines()) == 12


@pytest.mark.parametrize("to", KINDS)
def test_the_same_command_again_finds_it_and_another_is_refused(world, curate, to):
    assert curate("chosen", "--to", to, "--out", "e")[0] == 0
    before = snapshot("e") or snapshot(".")
    code, out, _ = curate("chosen", "--to", to, "--out", "e", "--json")
    assert (code, json.loads(out)["existed"]) == (0, True)
    assert "is there already" in curate("chosen", "--to", to, "--out", "e")[1]
    code, _, err = curate("chosen", "--to", to, "--out", "e", "--first", 2)
    assert code == 2
    assert "was begun with other settings: first is None there, 2 here" in err
    assert (snapshot("e") or snapshot(".")) == before


@pytest.mark.parametrize("to", KINDS)
def test_what_is_not_ours_is_left_alone(world, curate, to):
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    Path("file").write_text("mine too")
    Path("link").symlink_to("nowhere")
    for out in ("mine", "file", "link"):
        code, _, err = curate("chosen", "--to", to, "--out", out)
        assert (code, "exists and is no export" in err) == (2, True)
    assert Path("mine/notes.txt").read_text() == "mine"
    assert Path("file").read_text() == "mine too"
    assert Path("link").is_symlink()


def test_a_user_file_that_has_the_name_of_our_list_of_errors_is_left_alone(world, curate):
    Path("m.csv.errors.csv").write_text("mine")
    code, _, err = curate("chosen", "--to", "csv", "--out", "m.csv")
    assert (code, "m.csv.errors.csv exists" in err) == (2, True)
    assert Path("m.csv.errors.csv").read_text() == "mine"


def test_an_export_that_was_changed_is_not_taken_for_whole(world, curate):
    assert curate("chosen", "--to", "folder", "--out", "tree")[0] == 0
    next(Path("tree/web").iterdir()).unlink()
    code, _, err = curate("chosen", "--to", "folder", "--out", "tree")
    assert (code, "was changed" in err) == (2, True)
    Path("tree/export.json").write_text("[]")
    assert curate("chosen", "--to", "folder", "--out", "tree")[0] == 2


@pytest.mark.parametrize("to", KINDS)
def test_sources_are_never_touched(world, curate, tmp_path, to):
    inputs = ("web", "open.parquet", "shard.tar", "lots", "chosen")
    before = {name: (snapshot(name), Path(name).stat().st_mtime_ns) for name in inputs}
    assert curate("chosen", "--to", to, "--out", "e")[0] == 0
    assert {name: (snapshot(name), Path(name).stat().st_mtime_ns) for name in inputs} == before
    assert left_behind(".") == []


def test_an_empty_folder_is_filled(world, curate):
    Path("tree").mkdir()
    assert curate("chosen", "--to", "folder", "--out", "tree")[0] == 0
    assert Path("tree/export.json").is_file()


@pytest.mark.parametrize("to", [to for to in KINDS if to not in FOLDERS])
@pytest.mark.parametrize("holds", ["nothing", "a file", "a mark beside it"])
def test_a_file_does_not_take_the_place_of_a_folder(world, monkeypatch, tmp_path, to, holds):
    out = tmp_path / "made"
    if holds == "a mark beside it":
        export(world[0], to=to, out=out)
        out.unlink()
    out.mkdir()
    if holds != "nothing":
        (out / "mine.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(writing, "Originals", lambda *_, **__: pytest.fail("it was begun"))
    with pytest.raises(ForeignFolderError, match=f"it is a folder, and {to} makes a file"):
        export(world[0], to=to, out=out)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_export_into_a_source_is_refused(world, curate):
    code, _, err = curate("chosen", "--to", "folder", "--out", "web/tree")
    assert (code, "lies in the folder of the source 'web'" in err) == (2, True)
    assert not Path("web/tree").exists()


def spoil(chosen, root):
    """One image gone, one changed, one no image any more although nothing is known of its digest."""
    uris = chosen.rows()["uri"].to_pylist()
    (root / "web" / uris[0]).unlink()
    (root / "web" / uris[1]).write_bytes((root / "web" / uris[3]).read_bytes())
    (root / "web" / uris[2]).write_bytes(b"no image")
    digests = chosen.rows()["sha256"].to_pylist()
    digests[2] = None
    return replace(chosen, table=chosen.rows().set_column(3, "sha256", pa.array(digests)))


@pytest.mark.parametrize("to", KINDS)
def test_images_that_are_gone_or_changed_are_told_and_the_rest_is_whole(world, curate, tmp_path, to):
    chosen, _, _ = world
    spoil(chosen, tmp_path).save(tmp_path / "spoiled")
    code, out, err = curate("spoiled", "--to", to, "--out", "e", "--json")
    assert code == 4
    assert "3 of 12 selected images could not be exported; 9 were" in err
    assert json.loads(out)["kind"] == "PartialError"
    errors = Path("e/errors.csv") if Path("e").is_dir() else Path("e.errors.csv")
    with errors.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["key"] for r in rows] == chosen.rows()["key"].to_pylist()[:3]
    assert rows[0]["reason"].startswith("cannot be read")
    assert rows[1]["reason"] == "changed since it was selected"
    assert rows[2]["reason"].startswith("not a known image format")
    assert curate("spoiled", "--to", to, "--out", "e")[0] == 4  # said again when it is there already
    if to == "parquet":
        assert pq.read_table("e")["key"].to_pylist() == chosen.rows()["key"].to_pylist()[3:]
    if to == "folder":
        assert sorted(int(p.name[:8]) for p in Path("e").rglob("0*")) == list(range(3, 12))


def test_few_errors_are_told_but_do_not_fail(image_folder, pictures, tmp_path, curate):
    root = image_folder(pictures(30))
    everything(a=root).save(tmp_path / "c")
    next(root.rglob("*.png")).unlink()
    code, out, _ = curate("c", "--to", "csv", "--out", "m.csv")
    assert code == 0
    assert "29 images; 1 could not be had, see" in out


def test_nothing_is_written_when_nothing_can_be_read(world, curate, tmp_path):
    chosen, _, _ = world
    few = chosen.truncate(5).save(tmp_path / "few")
    for uri in few.rows()["uri"].to_pylist():
        (tmp_path / "web" / uri).write_bytes(b"broken")
    before = sorted(tmp_path.iterdir())
    for to in KINDS:
        code, _, err = curate("few", "--to", to, "--out", "e")
        assert (code, "None of the 5 selected images could be read; the first says: changed" in err) == (4, True)
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(PartialError):
        export(few, to="csv", out=tmp_path / "e")


def interrupt(monkeypatch, after):
    """Stops the reading of sources after some images; returns the rows read, a list that grows."""
    read, seen = originals.Originals._read, []

    def interrupted(self, row):
        seen.append(row)
        if len(seen) > after:
            raise KeyboardInterrupt
        return read(self, row)

    monkeypatch.setattr(originals.Originals, "_read", interrupted)
    return seen


@pytest.mark.parametrize("to", KINDS)
@pytest.mark.parametrize("after", [0, 5])
def test_ctrl_c_leaves_nothing_where_the_export_will_be(world, curate, monkeypatch, tmp_path, to, after):
    before = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patched:
        interrupt(patched, after)
        assert curate("chosen", "--to", to, "--out", "e")[0] == 130
    left = [path.name for path in sorted(tmp_path.iterdir()) if path not in before]
    assert [re.sub("[0-9a-f]{12}", "DIGEST", name) for name in left] == ([".e.DIGEST.part"] if to in FOLDERS else [])
    assert curate("chosen", "--to", to, "--out", "e")[0] == 0
    assert left_behind(tmp_path) == []


def damage(part, how):
    """Makes something that an interrupted export left half-written or another image."""
    victim = sorted(p for p in part.rglob("*") if p.suffix in (".png", ".jpg", ".tar", ".arrow"))[0]
    data = victim.read_bytes()
    changed = {
        "cut": data[: len(data) // 2],
        "empty": b"",
        "other": bytes(b ^ (i == len(data) // 3) for i, b in enumerate(data)),
    }[how]
    victim.unlink()  # it may be a link to the original
    victim.write_bytes(changed)
    for name in (".x.png.abcd1234.part", ".shard-000099.part"):
        (victim.parent / name).write_bytes(b"half")


@pytest.mark.parametrize("how", ["whole", "cut", "empty", "other"])
@pytest.mark.parametrize("to", FOLDERS)
def test_an_interrupted_export_goes_on_and_trusts_nothing_half_written(world, monkeypatch, tmp_path, to, how):
    chosen, _, _ = world
    monkeypatch.setattr(hugging_face, "STREAM_ROWS", 3)
    options = {"to": to, "workers": 1} | ({"shard_size": 0.02} if to == "webdataset" else {})
    export(chosen, out=tmp_path / "straight", **options)
    with monkeypatch.context() as patched:
        interrupt(patched, 8)
        with pytest.raises(KeyboardInterrupt):
            export(chosen, out=tmp_path / "e", **options)
    (part,) = tmp_path.glob(".e.*.part")
    assert not (tmp_path / "e").exists()
    if how != "whole":
        damage(part, how)
    with monkeypatch.context() as patched:
        seen = interrupt(patched, 99)
        made = export(chosen, out=tmp_path / "e", **options)
    assert (made.images, made.errors) == (12, 0)
    assert len(seen) < (8 if how == "whole" else 14), seen
    assert list(tmp_path.glob(".e.*")) == []
    trees = [
        {
            p.relative_to(root).as_posix(): p.read_bytes()
            for p in root.rglob("*")
            if p.is_file() and p.name not in UNLIKE
        }
        for root in (tmp_path / "straight", tmp_path / "e")
    ]
    assert trees[0] == trees[1]


def leave_cut_short(monkeypatch, chosen, path, first):
    """What an export of the first images leaves when it is cut short."""
    with monkeypatch.context() as patched:
        interrupt(patched, 2)
        with pytest.raises(KeyboardInterrupt):
            export(chosen, to="folder", first=first, workers=1, out=path)


@pytest.mark.parametrize("to", ["csv", "folder"])
def test_what_killed_exports_left_goes_once_one_stands(world, monkeypatch, tmp_path, to):
    chosen, _, _ = world
    beside = [tmp_path / name for name in (".e.mine.part", ".e.0123456789ab.part", "e.part")]
    for mine in beside:
        mine.mkdir()
        (mine / "file").write_text("mine")
    killed = writing._part_of(tmp_path / "e") / "0123456789ab"  # a file that was cut short by a power failure
    killed.mkdir(parents=True)
    (killed / "made").write_bytes(b"half")
    for first in (5, 6):
        leave_cut_short(monkeypatch, chosen, tmp_path / "e", first)
    leave_cut_short(monkeypatch, chosen, tmp_path / "e.0123456789ab", 5)
    assert len(list(tmp_path.glob(".e.*.part/*/made"))) == 4
    export(chosen, to=to, out=tmp_path / "e")
    (other,) = tmp_path.glob(".e.*.part/*/made")  # which still can go on
    assert other.is_relative_to(writing._part_of(tmp_path / "e.0123456789ab"))
    assert [(mine / "file").read_text() for mine in beside] == ["mine"] * 3
    shutil.copytree(other.parent, killed)  # one that was killed after it gave the export its name
    assert export(chosen, to=to, out=tmp_path / "e").existed
    assert not killed.parent.exists()


def test_what_another_process_is_at_stays(world, monkeypatch, tmp_path):
    chosen, _, _ = world
    part = writing._part_of(tmp_path / "e")
    with locked(part):
        (part / "0123456789ab").mkdir()
        with pytest.raises(ForeignFolderError, match=r"Another process is exporting to \S+/e\."):
            export(chosen, to="csv", out=tmp_path / "e")
        monkeypatch.setattr(writing, "find_export", lambda *_: "there already")
        assert export(chosen, to="csv", out=tmp_path / "e") == "there already"
        assert (part / "0123456789ab").is_dir()
    assert export(chosen, to="csv", out=tmp_path / "e") == "there already"
    assert not part.exists()


@pytest.mark.parametrize("to", ["csv", "folder"])
def test_of_two_equal_exports_at_once_one_finds_the_other(world, monkeypatch, tmp_path, to):
    chosen, _, _ = world
    opened, made = writing.Originals, []

    def overtaken(*args, **kwargs):
        with monkeypatch.context() as patched:
            patched.setattr(writing, "Originals", opened)
            made.append(export(chosen, to=to, out=tmp_path / "e"))
        return opened(*args, **kwargs)

    monkeypatch.setattr(writing, "Originals", overtaken)
    assert export(chosen, to=to, out=tmp_path / "e") == replace(made[0], existed=True)
    assert (len(made), made[0].existed, left_behind(tmp_path)) == (1, False, [])


@pytest.mark.parametrize("to", ["csv", "folder"])
def test_what_came_to_stand_there_meanwhile_is_not_replaced(world, monkeypatch, tmp_path, to):
    chosen, _, _ = world
    load = writing.load_writer

    def slow(kind):
        def write(*args):
            (tmp_path / "e").write_text("mine")
            return load(kind)(*args)

        return write

    monkeypatch.setattr(writing, "load_writer", slow)
    with pytest.raises(ForeignFolderError, match="is no export"):
        export(chosen, to=to, out=tmp_path / "e")
    assert (tmp_path / "e").read_text() == "mine"
    assert not (tmp_path / "e.export.json").exists()
    assert len(left_behind(tmp_path)) == (to in FOLDERS)  # which goes on once the place is free
    monkeypatch.setattr(writing, "load_writer", load)
    (tmp_path / "e").unlink()
    assert export(chosen, to=to, out=tmp_path / "e").images == 12
    assert left_behind(tmp_path) == []


def test_a_long_name_has_a_place_beside_it(world, tmp_path):
    chosen, _, _ = world
    names = ["\N{HEAVY BLACK HEART}" * 70 + end for end in ("a", "b")]
    parts = [writing._part_of(tmp_path / name) for name in names]
    assert parts[0] != parts[1]
    assert export(chosen, to="csv", out=tmp_path / names[0]).images == 12


def test_files_that_belong_elsewhere_by_now_are_made_again(world, image_table, pictures, monkeypatch, tmp_path):
    chosen, _, _ = world
    with monkeypatch.context() as patched:
        interrupt(patched, 8)
        with pytest.raises(KeyboardInterrupt):
            export(chosen, to="folder", label=True, workers=1, out=tmp_path / "e")
    (made,) = tmp_path.glob(".e.*.part/*/made")
    (made / "cat" / "Thumbs.db").write_bytes(b"of a file manager")
    renamed = {name.replace("cat/", "lynx/"): data for name, data in pictures(3, seed=3).items()}
    image_table(
        renamed, "open.parquet", license=["CC-BY 4.0", "CC0", None], author=["=1+1", "b", "c"], key=[*pictures(3)]
    )
    for name in ("e", "straight"):
        export(chosen, to="folder", label=True, out=tmp_path / name)
    trees = [sorted(str(p.relative_to(tmp_path / n)) for p in (tmp_path / n).rglob("*")) for n in ("e", "straight")]
    assert trees[0] == trees[1]
    assert len(list((tmp_path / "e" / "lynx").iterdir())) == 2


def test_an_image_that_can_be_read_again_gets_into_its_shard(world, monkeypatch, tmp_path):
    chosen, _, _ = world
    options = {"to": "webdataset", "workers": 1, "shard_size": 0.02}
    export(chosen, out=tmp_path / "straight", **options)
    victim = tmp_path / "web" / chosen.rows()["uri"][1].as_py()
    data = victim.read_bytes()
    victim.write_bytes(b"gone for a while")
    with monkeypatch.context() as patched:
        interrupt(patched, 8)
        with pytest.raises(KeyboardInterrupt):
            export(chosen, out=tmp_path / "e", **options)
    victim.write_bytes(data)
    assert export(chosen, out=tmp_path / "e", **options).errors == 0
    shards = [sorted((tmp_path / name).glob("*.tar")) for name in ("straight", "e")]
    assert [p.read_bytes() for p in shards[0]] == [p.read_bytes() for p in shards[1]]


@pytest.mark.parametrize("to", KINDS)
def test_a_place_below_a_file_is_refused(world, curate, tmp_path, to):
    (tmp_path / "file").write_text("mine")
    code, _, err = curate("chosen", "--to", to, "--out", "file/deep/e")
    assert (code, "is no folder" in err) == (2, True)
    assert (tmp_path / "file").read_text() == "mine"
    code, _, err = curate("chosen", "--to", to, "--out", "/")
    assert (code, "is no place for an export" in err) == (2, True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("to", ["csv", "paths", "folder", "webdataset"])
def test_a_full_disk_is_told_in_words(world, monkeypatch, tmp_path, to):
    chosen, _, _ = world

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes" if to == "folder" else "write_text", full)
    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    monkeypatch.setattr(csv, "writer", full)
    with pytest.raises(StorageError, match="No space left to write"):
        export(chosen, to=to, out=tmp_path / "e")
    assert len(left_behind(tmp_path)) == (to in FOLDERS)  # which the same command goes on from
    assert not (tmp_path / "e").exists()


def test_links_fall_back_to_copies_unless_asked_for_by_name(world, monkeypatch, tmp_path):
    chosen, data, _ = world

    def refused(*args, **kwargs):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(image_folder.os, "link", refused)
    export(chosen, to="folder", out=tmp_path / "tree")
    first = next((tmp_path / "tree" / "web").glob("00000000-*"))
    assert (first.read_bytes(), first.stat().st_nlink) == (data[0], 1)
    with pytest.raises(UsageError, match=r"No hard link to .*device"):
        export(chosen, to="folder", out=tmp_path / "other", link="hard")
    assert not (tmp_path / "other").exists()


def test_a_file_that_is_replaced_while_it_is_linked_does_not_get_in(world, monkeypatch, tmp_path):
    chosen, data, _ = world
    link = os.link

    def swapped(original, target):
        (tmp_path / "another").write_bytes(b"another")
        link(tmp_path / "another", target)

    monkeypatch.setattr(image_folder.os, "link", swapped)
    export(chosen, to="folder", out=tmp_path / "tree")
    assert next((tmp_path / "tree" / "web").glob("00000000-*")).read_bytes() == data[0]
    assert (tmp_path / "another").read_bytes() == b"another"


def test_images_behind_a_url_are_copied(pictures, tmp_path, curate):
    made = pictures(3)
    memory = fsspec.filesystem("memory")
    for key, data in made.items():
        memory.pipe(f"/exported/{key}", data)
    try:
        chosen = everything(far="memory://exported").save(tmp_path / "c")
        assert chosen.sources["far"] == "memory://exported"
        assert curate("c", "--to", "folder", "--out", "tree")[0] == 0
        assert [p.read_bytes() for p in sorted(Path("tree/far").iterdir())] == [made[k] for k in sorted(made)]
        assert curate("c", "--to", "parquet", "--out", "m.parquet")[0] == 0
        paths = pq.read_table("m.parquet")["path"].to_pylist()
        assert [fsspec.open(p).open().read() for p in paths] == [made[k] for k in sorted(made)]
        assert np.array_equal(np.asarray(SelectionDataset(chosen)[0][0]), pixels(made[min(made)]))
    finally:
        memory.rm("/exported", recursive=True)


def test_dry_run_tells_files_and_bytes_and_writes_nothing(world, curate, tmp_path):
    _, data, _ = world
    before = sorted(tmp_path.iterdir())
    sizes = {}
    for words in (["folder", "--link", "copy"], ["folder"], ["webdataset"], ["csv"]):
        code, out, _ = curate("chosen", "--to", *words, "--out", "e", "--dry-run", "--json")
        document = json.loads(out)
        assert (code, document["images"], document["unreadable"]) == (0, 12, 0)
        sizes[" ".join(words)] = (document["files"], document["bytes"])
    assert sorted(tmp_path.iterdir()) == before
    assert sizes["folder --link copy"][1] - sizes["folder"][1] == sum(map(len, data[:5]))
    assert sizes["folder"][0] == 12
    assert sizes["csv"] == (1, 0)
    assert curate("chosen", "--to", "folder", "--link", "copy", "--out", "e")[0] == 0
    images = [p for p in Path("e").rglob("0*") if p.is_file()]
    assert sizes["folder --link copy"] == (len(images), sum(p.stat().st_size for p in images))
    assert "Nothing was done" in curate("chosen", "--to", "csv", "--out", "f", "--dry-run")[1]


def test_dry_run_of_many_images_measures_a_sample(image_folder, pictures, encode):
    flat = encode(np.zeros((8, 8, 3), np.uint8))
    chosen = everything(a=image_folder({f"{i:03d}.png": flat for i in range(600)}))
    found = forecast(chosen, to="webdataset")
    assert (found.images, found.files, found.bytes, found.sampled) == (600, 1, 600 * len(flat), 256)
    assert found.lines()[0].startswith("about 600 images")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "parqet"], "Did you mean parquet"),
        (["--to", "folder", "--link", "soft"], "Unknown kind of link 'soft'"),
        (["--to", "csv", "--link", "hard"], "--link says something of --to folder"),
        (["--to", "webdataset", "--label"], "--label says something of --to folder"),
        (["--to", "csv", "--shard-size", "5"], "--shard-size says something of --to webdataset"),
        (["--to", "webdataset", "--shard-size", "0"], "wanted more than 0"),
        (["--to", "webdataset", "--shard-size", "nan"], "wanted more than 0"),
        (["--to", "webdataset", "--shard-size", "inf"], "Shards of inf MB"),
        (["--to", "csv", "--first", "0"], "wanted 1 or more"),
    ],
)
def test_wishes_that_make_no_sense(world, curate, words, said):
    code, out, err = curate("chosen", *words, "--out", "e")
    assert (code, out) == (2, "")
    assert said in err
    assert curate("chosen", *words, "--out", "e", "--dry-run")[0] == 2


def test_sources_that_are_gone_and_selections_without_addresses(world, tmp_path):
    chosen, _, _ = world
    with pytest.raises(UsageError, match="no address"):
        export(replace(chosen, sources={}), to="csv", out=tmp_path / "m")
    with pytest.raises(SourceError):
        export(replace(chosen, sources=chosen.sources | {"web": str(tmp_path / "gone")}), to="csv", out=tmp_path / "m")
    with pytest.raises(UnknownNameError):
        export(chosen, to="zip", out=tmp_path / "m")


def test_hostile_and_equal_keys_stay_in_the_folder(tmp_path, encode, curate):
    picture = encode(np.zeros((4, 4, 3), np.uint8))
    keys = ["../../up.png", "/etc/passwd", "A.png", "a.png", "x" * 300, "nul\0l", "..", "", "-rf", "CON.png", "é.png"]
    table = pa.table({"key": [k or None for k in keys], "image": [picture] * len(keys), "label": keys})
    pq.write_table(table, tmp_path / "bad.parquet")
    pq.write_table(table, tmp_path / "same.parquet")
    chosen = everything(bad=tmp_path / "bad.parquet", same=tmp_path / "same.parquet")
    chosen = replace(
        chosen,
        table=chosen.rows().set_column(
            0, "source", pa.array([{"bad": "../bad", "same": "Same"}[s] for s in chosen.rows()["source"].to_pylist()])
        ),
        sources={"../bad": chosen.sources["bad"], "Same": chosen.sources["same"]},
    )
    chosen.save(tmp_path / "c")
    before = sorted(tmp_path.iterdir())
    for number, words in enumerate((["--to", "folder"], ["--to", "folder", "--label"], ["--to", "webdataset"])):
        assert curate("c", *words, "--out", f"e{number}")[0] == 0
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "e0", tmp_path / "e1", tmp_path / "e2"])
    for tree in ("e0", "e1"):
        images = [p for p in Path(tree).rglob("*") if p.is_file() and p.name[:2] == "00"]
        assert len(images) == len(chosen) == 20
        assert len({str(p).casefold() for p in images}) == 20
        assert all(p.read_bytes() == picture and len(p.name.encode()) < 130 for p in images)
    with tarfile.open("e2/shard-000000.tar") as archive:
        assert all(re.fullmatch(r"\d{8}\.(png|json)", m.name) for m in archive)


@given(st.text(st.characters(exclude_categories=())))
def test_a_safe_name_is_safe(text):
    name = safe_name(text)
    assert 1 <= len(name.encode()) <= MAX_BYTES + 1
    assert not set(name) & set('/\\\0:*?"<>|\n\r\t ')
    assert name[0] not in ".-"
    assert not name.endswith(".")
    assert safe_name(name) == name


@given(st.lists(st.text()))
def test_different_texts_get_names_that_no_system_confuses(texts):
    names = safe_names(texts, reserved=("manifest.csv",))
    assert set(names) == set(texts)
    assert len({name.casefold() for name in names.values()}) == len(names)
    assert "manifest.csv" not in {name.casefold() for name in names.values()}


def test_names_by_hand():
    assert safe_stem("cat/a b.JPG") == "cat_a_b"
    assert safe_stem("v1.2/scan.0001") == "v1.2_scan.0001"
    assert safe_names(["Cat", "dog"]) == {"Cat": "Cat", "dog": "dog"}
    both = safe_names(["Cat", "cat", "dog"])
    assert both["dog"] == "dog"
    assert re.fullmatch("Cat~[0-9a-f]{8}", both["Cat"])
    assert [safe_name(n) for n in ("con.png", "COM1", "..", ".git")] == ["_con.png", "_COM1", "_", "git"]


def test_a_hash_in_a_file_name_is_not_taken_for_a_place_in_a_table(tmp_path, image_folder, encode):
    picture = encode(np.zeros((4, 4, 3), np.uint8))
    root = image_folder({"#a.png": picture, "x.tar#bytes=0+5.png": picture, "t.csv#b.png": picture})
    export(everything(a=root), to="parquet", out=tmp_path / "m")
    rows = pq.read_table(tmp_path / "m").to_pylist()
    assert [Path(r["path"]).name for r in rows] == ["#a.png", "t.csv#b.png", "x.tar#bytes=0+5.png"]
    assert all(r["offset"] is r["entry"] is None for r in rows)


@pytest.mark.parametrize("kind", ["arrow", "arrow shards", "tar shards", "saved", "compressed"])
def test_byte_ranges_lead_to_the_image_wherever_it_lies_as_it_is(tmp_path, pictures, kind):
    made = pictures(4)
    table = pa.table({"key": list(made), "image": [{"bytes": data, "path": None} for data in made.values()]})
    if kind == "saved":
        datasets = pytest.importorskip("datasets")
        datasets.Dataset(table).save_to_disk(tmp_path / "a")
    elif kind == "tar shards":
        write_tar(tmp_path / "a#1.tar", made)
    else:
        feather.write_feather(
            table, tmp_path / "a.arrow", compression="zstd" if kind == "compressed" else "uncompressed"
        )
    found = {"saved": "a", "arrow shards": "*.arrow", "tar shards": "*.tar"}.get(kind, "a.arrow")
    export(everything(a=tmp_path / found), to="parquet", out=tmp_path / "m")
    rows = pq.read_table(tmp_path / "m").to_pylist()
    assert [r["entry"] is None for r in rows] == [kind == "tar shards"] * 4
    if kind == "compressed":
        assert [r["offset"] for r in rows] == [None] * 4
        return
    read = [Path(r["path"]).read_bytes()[r["offset"] : r["offset"] + r["length"]] for r in rows]
    assert sorted(read) == sorted(made.values())
    assert [files.digest_bytes(data) for data in read] == [r["sha256"] for r in rows]


def test_changed_selection_in_the_same_place_is_another_export(world, tmp_path):
    chosen, _, _ = world
    export(chosen, to="csv", out=tmp_path / "m.csv")
    with pytest.raises(ForeignFolderError, match="selection is"):
        export(replace(chosen, facts={"method": "other"}), to="csv", out=tmp_path / "m.csv")
