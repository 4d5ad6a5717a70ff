import io
import json

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
from embeddings.errors import EncoderMismatchError, UsageError
from embeddings.pictures.decode import decode
from embeddings.store import EmbeddingStore

CHEAP = "color-texture"
N = 60


def demo_images(name, n, skip=0):
    table = pq.read_table(demo_folder() / "data" / f"{name}.parquet").slice(skip)
    chosen = np.random.default_rng(0).permutation(len(table))[:n]
    return [decode(row["bytes"]) for row in table.take(pa.array(np.sort(chosen)))["image"].to_pylist()]


@pytest.fixture
def store_of(tmp_path):
    """``store_of(pictures, name, encoder=CHEAP)`` writes a table of PNGs and embeds it."""

    def _store_of(pictures, name, encoder=CHEAP):
        rows = []
        for i, picture in enumerate(pictures):
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            rows.append({"key": f"{name}-{i:03d}", "image": {"bytes": buffer.getvalue(), "path": f"{i}.png"}})
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
        return embeddings.embed(path, encoder=encoder, device="cpu", workers=1)

    return _store_of


@pytest.fixture(scope="module")
def emoji():
    """Two samples of one set without a picture in common."""
    pictures = demo_images("target-train", 2 * N)
    return pictures[::2], pictures[1::2]


def split(store_of, target, pool, **settings):
    stores = store_of(target, "target"), store_of(pool, "pool")
    return factors(*stores, encoder=CHEAP, workers=1, **settings)


class TestPlanted:
    def test_gray_is_named_and_repaired(self, store_of, emoji):
        found = split(store_of, emoji[0], [to_gray(p) for p in emoji[1]])
        assert found.kind == "gray"
        assert found.best.steps == ("convert both to gray",)
        assert found["gray"].fall.low > 0
        assert found["gray"].repaired.value == pytest.approx(1.0, abs=0.2)
        assert found["gray"].after.value < 0.3 * found.before.value
        assert found.content.value < 0.3 * found.index.value
        assert [f.name for f in found.factors] == list(FACTORS)

    def test_darkness_is_named_with_the_numbers_that_undo_it(self, store_of, emoji):
        found = split(store_of, emoji[0], [relight(p, gain=0.5, shift=0) for p in emoji[1]])
        assert found.kind == "brightness"
        gain = float(found.best.steps[0].split()[5])
        assert gain == pytest.approx(2.0, abs=0.3)

    def test_a_turned_pool_is_turned_back_and_measured_on_the_half_that_did_not_choose(self, store_of, emoji):
        found = split(store_of, emoji[0], [p.transpose(Image.Transpose.ROTATE_90) for p in emoji[1]])
        turned = found["orientation"]
        assert turned.step in ("turn the pool by 90 degrees", "turn the pool by 270 degrees")
        assert 0.25 * N < turned.after.n[0] < 0.75 * N
        assert turned.after.n[1] == N

    def test_two_at_once_are_combined(self, store_of, emoji):
        found = split(store_of, emoji[0], [recompress(to_gray(p), 10) for p in emoji[1]])
        assert found.best.names[0] == "gray"
        assert found.content.value < found["gray"].index.value + 1e-9

    def test_the_same_distribution_has_no_kind(self, store_of, emoji):
        found = split(store_of, *emoji)
        assert found.kind == "none"
        assert found.best is None
        assert found.content == found.index
        assert found["gray"].fall.reason == "nothing to match"

    def test_other_contents_are_content(self, store_of, emoji):
        found = split(store_of, emoji[0], demo_images("photos", N))
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
    def test_by_the_default_encoder(self, store_of, name, change):
        pictures = demo_images("target-train", 360)
        pool = [change(p) for p in pictures[1::2]] if change else demo_images("clipart", 180)
        stores = store_of(pictures[::2], "target", "lite0"), store_of(pool, "pool", "lite0")
        assert factors(*stores, device="cpu", workers=1).kind == name


class TestResult:
    def test_is_the_same_again_by_any_number_of_workers_and_for_a_shared_target(self, store_of, emoji):
        target, pool = store_of(emoji[0], "target"), store_of([to_gray(p) for p in emoji[1]], "pool")
        shared = TargetFactors(target, encoder=CHEAP, workers=3)
        shared.of(store_of(emoji[1], "other"))
        assert shared.of(pool).to_json() == factors(target, pool, encoder=CHEAP, workers=1).to_json()

    def test_another_seed_draws_other_folds(self, store_of, emoji):
        found = [split(store_of, emoji[0], [to_gray(p) for p in emoji[1]], seed=seed) for seed in (0, 1)]
        assert found[0].before.value != found[1].before.value
        assert found[0].kind == found[1].kind

    def test_is_plain_json(self, store_of, emoji):
        found = split(store_of, emoji[0], [to_gray(p) for p in emoji[1]])
        document = found.to_json()
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        assert document["kind"] == "gray"
        assert document["best"]["names"] == ["gray"]
        assert document["factors"][0]["fall"]["low"] > 0

    def test_progress_names_every_factor(self, store_of, emoji):
        notes = []
        split(store_of, *emoji, progress=lambda stage, done, total, note="": notes.append((stage, done, total, note)))
        assert [note for *_, note in notes] == [*FACTORS, ""]
        assert notes[-1][1:3] == (len(FACTORS), len(FACTORS))

    def test_draws_a_sample(self, store_of, emoji):
        assert split(store_of, *emoji, sample=45).n == (45, 45)


class TestWhatCannotBeMeasured:
    def test_vectors_have_no_images(self, store_of, emoji):
        vectors = EmbeddingStore.from_vectors(np.random.default_rng(0).normal(size=(60, 224)))
        found = factors(store_of(emoji[0], "target"), vectors, encoder=CHEAP)
        assert found.kind == "unknown"
        assert "pool holds vectors" in found.reason
        assert found.before.reason == found.reason
        assert "target holds vectors" in factors(vectors, vectors, encoder=CHEAP).reason

    def test_a_source_that_moved(self, store_of, emoji, tmp_path):
        target, pool = store_of(emoji[0], "target"), store_of(emoji[1], "pool")
        (tmp_path / "pool.parquet").unlink()
        assert "The images of the pool cannot be read" in factors(target, pool, encoder=CHEAP).reason

    def test_images_that_changed_are_left_out_and_counted(self, store_of, emoji, tmp_path):
        target, pool = store_of(emoji[0], "target"), store_of(emoji[1], "pool")
        rows = pq.read_table(tmp_path / "pool.parquet").to_pylist()
        for row in rows[:5]:
            row["image"]["bytes"] = rows[-1]["image"]["bytes"]
        rows[5]["image"]["bytes"] = b"no image"
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
        found = factors(target, pool, encoder=CHEAP)
        assert found.left_out == (6, 0)
        assert found.n == (N - 6, N)
        for row in rows:
            row["image"]["bytes"] = b"no image"
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
        reason = factors(target, pool, encoder=CHEAP).reason
        assert "The pool has 0 images (60 more cannot be used: changed since it was selected)" in reason

    def test_too_few_images(self, store_of, emoji):
        target, pool = store_of(emoji[0], "target"), store_of(emoji[1][:39], "pool")
        assert "39 images; 40 are needed" in factors(target, pool, encoder=CHEAP).reason
        with pytest.raises(UsageError, match="wanted 40"):
            factors(target, pool, encoder=CHEAP, sample=39)

    def test_one_picture_over_and_over(self, store_of, emoji):
        copies = store_of([emoji[0][0]] * N, "copies")
        assert "too few independent groups" in factors(copies, copies, encoder=CHEAP).reason
        target = store_of(emoji[1], "target")
        assert "one group" in factors(target, copies, encoder=CHEAP).reason

    def test_another_encoder_is_refused(self, store_of, emoji):
        store = store_of(emoji[0], "target")
        with pytest.raises(EncoderMismatchError, match="random"):
            factors(store, store, encoder="random:0", device="cpu")
