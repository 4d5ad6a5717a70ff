"""Runs the examples of README.md and CONTRIBUTING.md, block after block, in a scratch folder.

Which fenced blocks run:

- ``console``: lines after ``$ `` are commands (a trailing backslash continues them), everything else is output and is
  not compared. A command must exit 0, or with N where it ends in ``# exit N``.
- ``bash``: the whole block is one script.
- ``python``: the whole block is one script of its own.
- A block under ``<!-- file: NAME -->`` is written to that file instead of run.
- A block under ``<!-- not run: REASON -->`` is left alone.

The scratch folder holds what the examples take for granted: ``inspection/`` (unlabeled images of the task), ``web/``
(a mixed pool in sub-folders), ``open.parquet`` (a pool as a table) and ``labeled/`` (class sub-folders).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curate.demo import demo_folder

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md")
RUNNABLE = ("console", "bash", "python")
TIME_LIMIT_S = 300
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", flags=re.MULTILINE | re.DOTALL)
_NOTE = re.compile(r"<!--\s*(not run|file):\s*([^<>]+?)\s*-->\s*\Z")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, the line it starts on and the note above it."""

    language: str
    text: str
    line: int
    note: tuple[str, str] | None


@dataclass(frozen=True)
class Command:
    """One thing to run and the exit code it must have."""

    argv: list[str]
    exit_code: int = 0


def blocks_of(page: str) -> list[Block]:
    """Every fenced block of a page that names a language, in order."""
    found = []
    for match in _FENCE.finditer(page):
        note = _NOTE.search(page[: match.start()])
        line = page.count("\n", 0, match.start()) + 1
        found.append(Block(match[1], match[2], line, (note[1], note[2]) if note else None))
    return [block for block in found if block.language]


def commands_of(block: Block) -> list[Command]:
    """What a block asks to be run."""
    if block.language == "python":
        return [Command([sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", block.text])]
    if block.language == "bash":
        return [Command(["bash", "-euo", "pipefail", "-c", block.text])]
    joined = block.text.replace("\\\n", " ")
    lines = [line[2:] for line in joined.splitlines() if line.startswith("$ ")]
    return [Command(["bash", "-euo", "pipefail", "-c", line], _exit_code(line)) for line in lines]


def _exit_code(line: str) -> int:
    stated = re.search(r"#.*\bexit (\d+)\s*$", line)
    return int(stated[1]) if stated else 0


def run_page(page: str, folder: Path) -> int:
    """Runs every example of a page in ``folder``; returns how many commands ran."""
    ran = 0
    for block in blocks_of(page):
        kind, value = block.note or ("", "")
        if kind == "file":
            (folder / value).write_text(block.text, encoding="utf-8")
        elif kind != "not run" and block.language in RUNNABLE:
            for command in commands_of(block):
                _run(command, block, folder)
                ran += 1
    return ran


def _run(command: Command, block: Block, folder: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "HOME": str(folder / "home"), "COLUMNS": "100"}
    done = subprocess.run(
        command.argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False
    )
    assert done.returncode == command.exit_code, (
        f"line {block.line}: {command.argv[-1]}\nexit {done.returncode}, wanted {command.exit_code}\n"
        f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the image sets that the examples use, cut from the demo data."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "home").mkdir()
    _write(folder / "inspection", _rows("target-train")[:240])
    _write(folder / "labeled", _rows("target-test"), by="label")
    for name in ("twitter", "garments"):
        _write(folder / "web" / name, _rows(name)[:150])
    pq.write_table(pq.read_table(demo_folder() / "data" / "fluent.parquet").slice(0, 200), folder / "open.parquet")
    return folder


def _rows(name: str) -> list[dict[str, Any]]:
    return pq.read_table(demo_folder() / "data" / f"{name}.parquet").to_pylist()


def _write(folder: Path, rows: list[dict[str, Any]], by: str | None = None) -> None:
    """One image file per row, in a sub-folder per value of column ``by``."""
    for row in rows:
        file = folder / (row[by] if by else "") / Path(row["image"]["path"]).name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(row["image"]["bytes"])


@pytest.mark.parametrize("name", PAGES)
def test_examples_run(name: str, scratch: Path) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    assert run_page(page, scratch) > 0 or name != "README.md", "the README has examples that run"


@pytest.mark.parametrize("name", PAGES)
def test_links_into_the_repository_lead_somewhere(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    targets = [t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", page) if "://" not in t]
    assert [t for t in targets if t and not (ROOT / t).exists()] == []


class TestReader:
    PAGE = """
```console
$ touch made-here
some output
$ test -f \\
    made-here
$ exit 3  # a usage error: exit 3
```
<!-- not run: would fail -->

```bash
exit 1
```
```toml
left = "alone"
```
<!-- file: note.toml -->
```toml
kept = true
```
```python
from pathlib import Path
assert Path("note.toml").read_text() == "kept = true\\n"
```
"""

    def test_runs_what_it_should(self, tmp_path: Path) -> None:
        assert run_page(self.PAGE, tmp_path) == 4
        assert (tmp_path / "made-here").exists()

    @pytest.mark.parametrize(
        "text", ["```bash\nfalse\ntrue\n```\n", "```console\n$ false\n```\n", "```python\n1/0\n```\n"]
    )
    def test_notices_what_fails(self, text: str, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match="line 1"):
            run_page(text, tmp_path)

    def test_wants_the_stated_exit_code(self, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match="wanted 2"):
            run_page("```console\n$ true  # exit 2\n```\n", tmp_path)
