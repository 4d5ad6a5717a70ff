"""The hostile corpus and fuzzed files: each a picture or an error with a reason, for little memory and reading."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import hostile_images as module
import numpy as np
import pytest
from hostile_images import FORMATS, TOO_LARGE, Hostile, hostile_images, samples
from PIL import Image, ImageFile

from embeddings import files
from embeddings.errors import ImageError
from embeddings.pictures import decode as decode_module
from embeddings.pictures.decode import decode, decode_scaled
from embeddings.pictures.facts import image_facts
from embeddings.pipeline import embed
from embeddings.spec import EncoderSpec

CORPUS = hostile_images()
CASES = 300  # of each format
LIMIT_READ = 4  # times over that one file is read: headers are, by several decoders
LIMIT_MB = 800  # resident, for the whole corpus


class Counted(io.BytesIO):
    """A file that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.size, self.taken = len(data), 0

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self.taken += len(found)
        return found


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Counted]:
    """The files that were decoded."""
    found: list[Counted] = []

    def count(data: bytes) -> Counted:
        found.append(Counted(data))
        return found[-1]

    monkeypatch.setattr(decode_module, "io", SimpleNamespace(BytesIO=count))
    return found


class MeanColor:
    """The cheapest encoder there is."""

    spec = EncoderSpec(name="mean", dim=3, size=4, preprocessing="squash", weights="0" * 64)
    precision, parallel, batch_size = "float32", True, 8

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize((4, 4)))

    def encode(self, batch: np.ndarray) -> np.ndarray:
        return batch.mean(axis=(1, 2), dtype=np.float32)


def test_the_corpus_is_large_and_its_names_differ() -> None:
    names = [file.name for file in CORPUS]
    assert len(set(names)) == len(names) >= 40
    assert {bool(file.reason) for file in CORPUS} == {True, False}


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_every_file_is_a_picture_or_has_a_reason(file: Hostile, opened: list[Counted]) -> None:
    if file.reason:
        with pytest.raises(ImageError, match=file.reason):
            decode(file.data)
    else:
        image = decode(file.data)
        assert image.mode == "RGB"
        if file.pixels is not None:
            assert image.size == file.pixels.shape[1::-1]
            assert np.abs(np.asarray(image).astype(int) - file.pixels).max() <= file.tolerance
        assert file.size in (None, image.size)
    assert all(one.taken <= LIMIT_READ * one.size for one in opened)  # however many frames or pages it claims


@pytest.mark.parametrize("file", [f for f in CORPUS if f.reason == TOO_LARGE], ids=lambda file: file.name)
def test_what_is_too_large_is_not_decoded(file: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was"))
    with pytest.raises(ImageError, match=TOO_LARGE):
        decode(file.data)


@pytest.mark.parametrize("file", [f for f in CORPUS if not f.reason], ids=lambda file: file.name)
def test_pictures_of_the_corpus_are_scaled_and_described(file: Hostile) -> None:
    decoded = decode_scaled(file.data, edge=5)
    assert decoded.size == decode(file.data).size
    assert decoded.scale == 1 or min(decoded.image.size) >= 10
    assert len(image_facts(decoded)["phash"]) == 16


def test_the_whole_corpus_in_little_memory_and_in_silence() -> None:
    """In a fresh process, which must end by itself, with nothing said on stderr, libtiff's complaints included."""
    program = (
        "import re\nfrom hostile_images import hostile_images\nfrom embeddings.pictures.decode import decode\n"
        "from embeddings.errors import ImageError\n"
        "for file in hostile_images():\n"
        "    try:\n        decode(file.data)\n    except ImageError:\n        pass\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of memory is read from /proc")
    folder = str(Path(module.__file__).parent)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {folder!r})\n{program}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert int(done.stdout) / 1024 < LIMIT_MB


def test_embedding_accounts_for_every_file(tmp_path: Path, image_folder) -> None:
    folder = image_folder({file.name: file.data for file in CORPUS})
    store = embed(folder, encoder=MeanColor(), out=tmp_path / "store", max_errors=1.0)
    refused = dict(zip(store.errors["key"].to_pylist(), store.errors["reason"].to_pylist(), strict=True))
    assert sorted([*store.column("key"), *refused]) == sorted(file.name for file in CORPUS)
    assert refused.keys() == {file.name for file in CORPUS if file.reason}
    for file in CORPUS:
        if file.reason:
            assert re.search(file.reason, refused[file.name])
    sums = {file.name: files.digest_bytes(file.data) for file in CORPUS}
    assert all(sums[key] == found for key, found in zip(store.column("key"), store.column("sha256"), strict=True))


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Up to 8 changed bytes, most of them near the start where headers are, and in a third of the cases a cut end."""
    content = bytearray(data)
    for _ in range(rng.integers(0, 9)):
        reach = len(content) if rng.random() < 0.4 else min(len(content), 200)
        content[rng.integers(reach)] = rng.integers(256)
    return bytes(content[: rng.integers(len(content) + 1)] if rng.random() < 0.33 else content)


def fuzz(data: bytes, *, cases: int, seed: int) -> list[str]:
    """Decodes damaged copies; returns the mode of each picture or the reason."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(cases):
        try:
            found.append(decode_scaled(damaged(data, rng), edge=8).image.mode)
        except ImageError as error:
            found.append(error.message)
    return found


@pytest.mark.parametrize("kind", FORMATS)
def test_fuzzed_files_give_a_picture_or_an_image_error(kind: str, opened: list[Counted]) -> None:
    found = fuzz(samples()[kind], cases=CASES, seed=1)
    assert 0 < found.count("RGB") < CASES
    assert all(text == "RGB" or (len(text) > 5 and "\n" not in text) for text in found)
    assert all(one.taken <= LIMIT_READ * one.size for one in opened), max(one.taken / one.size for one in opened)
