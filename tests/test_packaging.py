"""The wheel holds what a user needs and nothing else; the pins are complete; the demo data are what they claim."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from packaging.licenses import canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from curate.config import load_config
from curate.demo import demo_folder

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DATA = sorted((demo_folder() / "data").glob("*.parquet"))
ATTRIBUTION = (demo_folder() / "ATTRIBUTION.md").read_text(encoding="utf-8")
GPL_CONCEPTS = {"Aqua", "Blinds", "Dune", "FreshFlower", "Garden", "GreenMeadow"} | {
    *("LadyBird", "RainDrops", "Storm", "TwoWings", "Wood", "YellowFlower")
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    done = subprocess.run([*command, "--wheel-dir", folder, ROOT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


class TestWheel:
    def test_holds_every_file_of_both_packages_and_nothing_else(self, wheel: zipfile.ZipFile) -> None:
        wanted = {
            file.relative_to(ROOT).as_posix()
            for package in ("curate", "embeddings")
            for file in (ROOT / package).rglob("*")
            if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
        }
        assert {"curate/py.typed", "embeddings/py.typed", "curate/demo/data/twitter.parquet"} <= wanted
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} == wanted

    def test_is_small(self, wheel: zipfile.ZipFile) -> None:
        assert sum(info.compress_size for info in wheel.infolist()) < 11_000_000

    def test_metadata(self, metadata: Message) -> None:
        assert metadata["Name"] == "curate-pretraining"
        assert metadata["Requires-Python"] == ">=3.11"
        assert metadata.get_all("Provides-Extra") == [
            "all",
            "clip",
            "cpu",
            "gcs",
            "gpu",
            "hf",
            "http",
            "s3",
            "tensorboard",
        ]
        assert set(metadata.get_all("License-File", [])) == {"LICENSE", "curate/demo/ATTRIBUTION.md"}
        assert "curate" in metadata.get_payload()  # the README

    def test_command(self, wheel: zipfile.ZipFile) -> None:
        name = next(n for n in wheel.namelist() if n.endswith(".dist-info/entry_points.txt"))
        assert "curate = curate.cli:main" in wheel.read(name).decode()

    def test_license_texts_are_inside(self, wheel: zipfile.ZipFile) -> None:
        names = [n for n in wheel.namelist() if "/licenses/" in n]
        texts = "".join(wheel.read(n).decode() for n in names)
        assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in texts
        assert "All emojis designed by OpenMoji" in texts

    def test_license_expression_is_exactly_what_the_attribution_names(self, metadata: Message) -> None:
        expression = metadata["License-Expression"]
        assert expression == canonicalize_license_expression(expression)
        cells = re.findall(r"^\|[^|]+\|(?:[^|]+\|)*", ATTRIBUTION, flags=re.MULTILINE)
        named = set(re.findall(r"\b(?:Apache|CC-BY-SA|CC-BY|CC0|MIT|LicenseRef)[\w.-]*", " ".join(cells)))
        assert set(expression.split(" AND ")) == named


@cache
def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def _requirements() -> list[Requirement]:
    texts = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
    return [Requirement(text) for text in [*texts, *PROJECT["build-system"]["requires"]]]


class TestConstraints:
    def test_are_plain_pins(self) -> None:
        for name, version in _pins().items():
            assert name == name.strip()
            assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{name}=={version}: local builds and paths do not travel"

    @pytest.mark.parametrize("requirement", _requirements(), ids=lambda r: r.name)
    def test_satisfy_every_requirement(self, requirement: Requirement) -> None:
        pins = {canonicalize_name(name): version for name, version in _pins().items()}
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])

    def test_name_everything_that_is_needed_in_turn(self) -> None:
        pinned = {canonicalize_name(name) for name in _pins()}
        todo, seen = [r.name for r in _requirements()], set()
        while todo:
            name = canonicalize_name(todo.pop())
            if name in seen:
                continue
            seen.add(name)
            needed = [Requirement(text) for text in distribution(name).requires or []]
            todo += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
        # A CUDA build of PyTorch brings packages of its own, which follow from its version.
        assert {n for n in seen - pinned if not n.startswith(("nvidia-", "cuda-", "triton"))} == set()


class TestDemoData:
    def test_are_small(self) -> None:
        assert sum(file.stat().st_size for file in DATA) <= 10_000_000

    def test_are_the_files_of_the_attribution_with_these_rows(self) -> None:
        listed = dict(re.findall(r"^\| (\S+\.parquet) \| (\d+) ", ATTRIBUTION, flags=re.MULTILINE))
        assert {file.name: str(pq.read_metadata(file).num_rows) for file in DATA} == listed

    @pytest.mark.parametrize("file", DATA, ids=lambda file: file.stem)
    def test_every_row_decodes_to_a_picture(self, file: Path) -> None:
        table = pq.read_table(file)
        assert table.column_names == ["key", "image", "label", "subgroup", "concept"]
        for row in table.to_pylist():
            rgba = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGBA")
            shown = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
            assert shown.getextrema() != ((255, 255),) * 3, f"{row['key']} is blank"

    def test_keys_are_unique_and_sorted(self) -> None:
        keys = [pq.read_table(file, columns=["key"])["key"].to_pylist() for file in DATA]
        assert all(part == sorted(part) for part in keys)
        assert len({key for part in keys for key in part}) == sum(map(len, keys))

    def test_hold_no_photograph_under_gpl(self) -> None:
        assert not _concepts("photos") & GPL_CONCEPTS
        named = set(re.findall(r"^\| (\S+) \| (?:Debian lomiri|scikit-image)", ATTRIBUTION, flags=re.MULTILINE))
        assert _concepts("photos") == named

    def test_share_no_concept_between_train_test_and_pools(self) -> None:
        train, test = _concepts("target-train"), _concepts("target-test")
        pools = set().union(*(_concepts(f.stem) for f in DATA if not f.stem.startswith("target")))
        assert (len(train), len(test)) == (670, 268)
        assert not train & test
        assert not pools & (train | test)

    def test_config_fits_the_data(self) -> None:
        config = load_config(demo_folder() / "curate.toml")
        labeled = [uri for part in config.evaluate.values() for uri in (part.train, part.test)]
        used = {config.root / uri for uri in [config.target.uri, *labeled, *(p.uri for p in config.pools.values())]}
        assert used == set(DATA)
        assert config.target.uri == "data/target-train.parquet"  # evaluation images are never a target
        assert len({arm.samples for arm in config.arms}) == 1, "arms compare at equal compute only"
        assert [arm.select for arm in config.arms] == ["near-first", "pool-gated", "random"]


def _concepts(stem: str) -> set[str]:
    file = demo_folder() / "data" / f"{stem}.parquet"
    return set(pq.read_table(file, columns=["concept"])["concept"].to_pylist())
