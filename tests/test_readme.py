"""Runs the examples of README.md and CONTRIBUTING.md, block after block, in a scratch folder.

Which fenced blocks run:

- ``console``: lines after ``$ `` are commands (a trailing backslash continues them), everything else is output and is
  not compared. A command must exit 0, or with N where it ends in ``# exit N``.
- ``bash``: the whole block is one script.
- ``python``: the whole block is one script of its own.
- A block under ``<!-- file: NAME -->`` is written to that file instead of run.
- A block under ``<!-- not run: REASON -->`` is left alone.

The first command of a page is a process of its own, as for a reader. Later lines that are nothing but ``curate`` and
its words call the entry point of that script in this process, which saves seconds of imports each, and use an encoder
of few numbers unless they judge by it, beside a control that sees small images: what examples prove is that they run.
Scripts use the encoder that they name.

The scratch folder holds what the examples take for granted: ``inspection/`` (unlabeled images of the task), ``web/``
(a mixed pool in sub-folders), ``open.parquet`` (a pool as a table) and ``labeled/`` (class sub-folders).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curate.cli import main
from curate.demo import demo_folder
from embeddings.encoders import controls, registry

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md")
RUNNABLE = ("console", "bash", "python")
TIME_LIMIT_S = 300
QUICK_ENCODER = "color-texture"
SHELL = set("|&;<>()$`*?~{}!")  # what only a shell understands
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
    words: tuple[str, ...] = ()  # after ``curate``, if the line is nothing else


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
    return [Command(["bash", "-euo", "pipefail", "-c", line], _exit_code(line), _words(line)) for line in lines]


def _exit_code(line: str) -> int:
    stated = re.search(r"#.*\bexit (\d+)\s*$", line)
    return int(stated[1]) if stated else 0


def _words(line: str) -> tuple[str, ...]:
    first, *words = shlex.split(line, comments=True)
    return tuple(words) if first == "curate" and not SHELL & set("".join(words)) else ()


def run_page(page: str, folder: Path) -> int:
    """Runs every example of a page in ``folder``; returns how many commands ran."""
    ran = 0
    for block in blocks_of(page):
        kind, value = block.note or ("", "")
        if kind == "file":
            (folder / value).write_text(block.text, encoding="utf-8")
        elif kind != "not run" and block.language in RUNNABLE:
            for command in commands_of(block):
                code, said = (_call if ran and command.words else _start)(command, folder)
                assert code == command.exit_code, (
                    f"line {block.line}: {command.argv[-1]}\nexit {code}, wanted {command.exit_code}\n{said}"
                )
                ran += 1
    return ran


def _start(command: Command, folder: Path) -> tuple[int, str]:
    """Exit code and what was printed, of a process."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "HOME": str(folder / "home"), "COLUMNS": "100"}
    done = subprocess.run(
        command.argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False
    )
    return done.returncode, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def _call(command: Command, folder: Path) -> tuple[int, str]:
    """The same, of the entry point."""
    said = io.StringIO()
    with contextlib.ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("HOME", str(folder / "home"))
        environment.setenv("COLUMNS", "100")
        if QUICK_ENCODER not in command.words:
            environment.setenv("CURATE_ENCODER", QUICK_ENCODER)
        for place in (contextlib.chdir(folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said)):
            stack.enter_context(place)
        stopped = stack.enter_context(pytest.raises(SystemExit))
        main(command.words)
    return stopped.value.code, said.getvalue()[-6000:]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the image sets that the examples use, cut from the demo data."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "home").mkdir()
    _write(folder / "inspection", _rows("target-train")[:160])
    _write(folder / "labeled", _rows("target-test")[::2], by="label")
    for name in ("twitter", "garments"):
        _write(folder / "web" / name, _rows(name)[:100])
    pq.write_table(pq.read_table(demo_folder() / "data" / "fluent.parquet").slice(0, 140), folder / "open.parquet")
    return folder


def _rows(name: str) -> list[dict[str, Any]]:
    return pq.read_table(demo_folder() / "data" / f"{name}.parquet").to_pylist()


def _write(folder: Path, rows: list[dict[str, Any]], by: str | None = None) -> None:
    """One image file per row, in a sub-folder per value of column ``by``."""
    for row in rows:
        file = folder / (row[by] if by else "") / Path(row["image"]["path"]).name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(row["image"]["bytes"])


@pytest.fixture
def small_control(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The untrained encoder at 32 pixels instead of 128, for this test alone."""
    monkeypatch.setattr(controls, "SIZE", 32)
    caches = (registry._build_once, registry._built_spec)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("small_control")
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

    def test_wants_it_of_what_it_calls_too(self, tmp_path: Path) -> None:
        page = "```console\n$ true\n$ curate score --target 'no where/'{}\n```\n"
        assert run_page(page.format("  # exit 2"), tmp_path) == 2
        with pytest.raises(AssertionError, match=r"(?s)exit 2, wanted 0.*no where"):
            run_page(page.format(""), tmp_path)

    def test_what_needs_a_shell_gets_one(self) -> None:
        (block,) = blocks_of("```console\n$ curate a 'b c'  # d | e\n$ curate a | b\n$ curate a && b\n$ echo a\n```\n")
        assert [command.words for command in commands_of(block)] == [("a", "b c"), (), (), ()]
