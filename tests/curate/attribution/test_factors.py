import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import embeddings
from curate.attribution import TargetFactors, factors
from curate.attribution._facts import recompress
from curate.attribution._transforms import FACTORS, relight, to_gray
from curate.demo import demo_folder
from embeddings.encoders.color_texture import ColorTexture
from embeddings.errors import EncoderMismatchError, UsageError
from embeddings.pictures.decode import decode
from embeddings.store import EmbeddingStore

CHEAP = "color-texture"
N = 60


def demo_images(name, n, skip=0):
    table = pq.read_table(demo_folder() / "data" / f"{name}.parquet").slice(skip)
    chosen = np.random.default_rng(0).permutation(len(table))[:n]
    return [decode(row["bytes"]) for row in table.take(pa.array(np.sort(chosen)))["image"].to_pylist()]


def store_of(folder, pictures, name, encoder=CHEAP):
    """Writes a table of PNGs and embeds it."""
    rows = []
    for i, picture in enumerate(pictures):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        rows.append({"key": f"{name}-{i:03d}", "image": {"bytes": buffer.getvalue(), "path": f"{i}.png"}})
    path = folder / f"{name}.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return embeddings.embed(path, encoder=encoder, device="cpu", workers=1)


@pytest.fixture(scope="module")
def emoji():
    """Two samples of one set without a picture in common."""
    pictures = demo_images("target-train", 2 * N)
    return pictures[::2], pictures[1::2]


@pytest.fixture(scope="module")
def target(tmp_path_factory, emoji):
    return store_of(tmp_path_factory.mktemp("target"), emoji[0], "target")


@pytest.fixture(scope="module")
def gray_pool(tmp_path_factory, emoji):
    return store_of(tmp_path_factory.mktemp("gray"), [to_gray(p) for p in emoji[1]], "gray")


@pytest.fixture(scope="module")
def gray(target, gray_pool):
    return factors(target, gray_pool, encoder=CHEAP, workers=1)


@pytest.fixture
def split(tmp_path, target):
    """``split(pictures)``: factors of a pool of these pictures."""
    return lambda pictures, **settings: factors(
        target, store_of(tmp_path, pictures, "pool"), encoder=CHEAP, workers=1, **settings
    )


class Other(ColorTexture):
    spec = replace(ColorTexture.spec, name="other")


class TestPlanted:
    def test_gray_is_named_and_repaired(self, gray):
        assert gray.kind == "gray"
        assert gray.best.steps == ("convert both to gray",)
        assert gray["gray"].fall.low > 0
        assert gray["gray"].repaired.value == pytest.approx(1.0, abs=0.2)
        assert gray["gray"].after.value < 0.3 * gray.before.value
        assert gray.content.value < 0.3 * gray.index.value
        assert [f.name for f in gray.factors] == list(FACTORS)

    def test_darkness_is_named_with_the_numbers_that_undo_it(self, split, emoji):
        found = split([relight(p, gain=0.5, shift=0) for p in emoji[1]])
        assert found.kind == "brightness"
        gain = float(found.best.steps[0].split()[5])
        assert gain == pytest.approx(2.0, abs=0.3)

    def test_a_turned_pool_is_turned_back_and_measured_on_the_half_that_did_not_choose(self, split, emoji):
        turned = split([p.transpose(Image.Transpose.ROTATE_90) for p in emoji[1]])["orientation"]
        assert turned.step in ("turn the pool by 90 degrees", "turn the pool by 270 degrees")
        assert 0.25 * N < turned.after.n[0] < 0.75 * N
        assert turned.after.n[1] == N

    def test_two_at_once_are_combined(self, split, emoji):
        found = split([recompress(to_gray(p), 10) for p in emoji[1]])
        assert found.best.names == ("gray", "compression")
        assert found.best.explains
        assert found.content.value < found["gray"].index.value

    def test_the_same_distribution_has_no_kind(self, split, emoji):
        notes = []
        found = split(emoji[1], progress=lambda stage, done, total, note="": notes.append((done, total, note)))
        assert found.kind == "none"
        assert found.best is None
        assert found.content == found.index
        assert not found["gray"].differs
        assert found["gray"].fall.value is None
        assert notes == [*((i, len(FACTORS), name) for i, name in enumerate(FACTORS)), (len(FACTORS), len(FACTORS), "")]

    def test_other_contents_are_content(self, split):
        found = split(demo_images("photos", N))
        assert found.kind == "content"
        assert found.content.low > 0

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("gray", to_gray),
            ("resolution", lambda p: p.resize((28, 28), Image.Resampling.BICUBIC).resize(p.size)),
            ("compression", lambda p: recompress(p, 20)),
            ("orientation", lambda p: p.transpose(Image.Transpose.ROTATE_90)),
            ("content", None),
        ],
    )
    def test_by_the_default_encoder(self, tmp_path, name, change):
        pictures = demo_images("target-train", 360)
        pool = [change(p) for p in pictures[1::2]] if change else demo_images("clipart", 180)
        target = store_of(tmp_path, pictures[::2], "target", "lite0")
        assert factors(target, store_of(tmp_path, pool, "pool", "lite0"), device="cpu", workers=1).kind == name


class TestResult:
    def test_is_the_same_for_a_shared_target_and_any_number_of_workers(self, target, gray_pool, gray):
        shared = TargetFactors(target, encoder=CHEAP, workers=3)
        assert shared.of(target).kind == "none"
        assert shared.of(gray_pool).to_json() == gray.to_json()

    def test_another_seed_draws_other_folds(self, target, gray_pool, gray):
        found = factors(target, gray_pool, encoder=CHEAP, workers=1, seed=1)
        assert found.before.value != gray.before.value
        assert found.kind == gray.kind

    def test_is_plain_json(self, gray):
        document = gray.to_json()
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        assert document["kind"] == "gray"
        assert document["best"]["names"] == ["gray"]
        assert document["factors"][0]["fall"]["low"] > 0

    def test_is_of_a_sample(self, target, gray_pool):
        assert factors(target, gray_pool, encoder=CHEAP, workers=1, sample=42).n == (42, 42)


class TestWhatCannotBeMeasured:
    def test_vectors_have_no_images(self, target):
        vectors = EmbeddingStore.from_vectors(np.random.default_rng(0).normal(size=(60, 224)))
        found = factors(target, vectors, encoder=CHEAP)
        assert found.kind == "unknown"
        assert "pool holds vectors" in found.reason
        assert found.before.reason == found.reason
        assert "target holds vectors" in factors(vectors, target, encoder=CHEAP).reason

    def test_a_source_that_moved(self, target, tmp_path, emoji):
        pool = store_of(tmp_path, emoji[1], "pool")
        (tmp_path / "pool.parquet").unlink()
        assert "The images of the pool cannot be read" in factors(target, pool, encoder=CHEAP).reason

    def test_images_that_changed_are_left_out_and_counted(self, target, tmp_path, emoji):
        pool, path = store_of(tmp_path, emoji[1], "pool"), tmp_path / "pool.parquet"
        rows = pq.read_table(path).to_pylist()
        for row in rows[:5]:
            row["image"]["bytes"] = rows[-1]["image"]["bytes"]
        rows[5]["image"]["bytes"] = b"no image"
        pq.write_table(pa.Table.from_pylist(rows), path)
        found = factors(target, pool, encoder=CHEAP)
        assert found.left_out == (6, 0)
        assert found.n == (N - 6, N)
        for row in rows:
            row["image"]["bytes"] = b"no image"
        pq.write_table(pa.Table.from_pylist(rows), path)
        reason = factors(target, pool, encoder=CHEAP).reason
        assert f"The pool has 0 images ({N} more cannot be used: changed since it was selected)" in reason

    def test_too_few_images(self, target, tmp_path, emoji):
        pool = store_of(tmp_path, emoji[1][:39], "pool")
        assert "39 images; 40 are needed" in factors(target, pool, encoder=CHEAP).reason
        with pytest.raises(UsageError, match="wanted 40"):
            factors(target, pool, encoder=CHEAP, sample=39)

    def test_one_picture_over_and_over(self, target, tmp_path, emoji):
        copies = store_of(tmp_path, [emoji[0][0]] * N, "copies")
        assert "too few independent groups" in factors(copies, copies, encoder=CHEAP).reason
        assert "one group" in factors(target, copies, encoder=CHEAP).reason

    def test_another_encoder_is_refused(self, target):
        with pytest.raises(EncoderMismatchError, match="other"):
            factors(target, target, encoder=Other())
