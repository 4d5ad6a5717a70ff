"""What every command has: the shared flags, the settings they lead to, and how a result is shown."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from curate import terminal
from embeddings.errors import UsageError
from embeddings.progress import Progress

if TYPE_CHECKING:
    from curate.config import Config
    from curate.terms import Budget, Terms


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Shared:
    """Flags of every command."""

    config: Path | None = None
    """Take target, pools and settings from this curate.toml; flags and environment win over it."""
    seed: Annotated[int | None, Parameter(env_var="CURATE_SEED")] = None
    """Seed of everything random (default 0)."""
    device: Annotated[str | None, Parameter(env_var="CURATE_DEVICE")] = None
    """auto, cpu, cuda or cuda:N (default auto)."""
    workers: Annotated[int | None, Parameter(env_var="CURATE_WORKERS")] = None
    """Threads that read and decode images (default: one per core)."""
    work: Annotated[Path | None, Parameter(env_var="CURATE_WORK")] = None
    """Folder where embeddings and scores are kept and reused (default .curate)."""
    json: Annotated[bool, Parameter(negative="")] = False
    """Print one JSON document on stdout; everything else goes to stderr."""
    dry_run: Annotated[bool, Parameter(negative="")] = False
    """Say what would be done, and do nothing."""
    quiet: Annotated[bool, Parameter(negative="")] = False
    """No progress."""
    debug: Annotated[bool, Parameter(negative="")] = False
    """Show a traceback with every error."""


class Session:
    """One command's settings: flag, else environment, else file, else default."""

    def __init__(self, shared: Shared, progress: Progress) -> None:
        self.shared, self.progress = shared, progress
        self.config: Config | None = _load_config(shared.config) if shared.config else None
        self.seed = self._first(shared.seed, "seed", 0)
        if self.seed < 0:
            raise UsageError(f"The seed is {self.seed}; wanted zero or more.", hint="Choose another --seed.")
        self.work = self._work_folder()
        self.device = shared.device or "auto"

    def encoder(self, flag: str | None) -> str:
        """The encoder to use."""
        return str(self._first(flag, "encoder", "lite0"))

    def target(self, flag: str | None) -> str:
        """The target's address, without terms.

        Raises:
            UsageError: neither a flag nor a file names one.
        """
        from curate.terms import split_terms

        return split_terms(self._target(flag))[0]

    def _target(self, flag: str | None) -> str:
        if flag is not None:
            return flag
        if self.config is None:
            raise UsageError("No target was given.", hint="Say --target SOURCE, or --config curate.toml.")
        return self.config.target_address

    def targets(self, flags: Sequence[str] | None) -> dict[str, str]:
        """Target name -> address; one target alone needs no name.

        Raises:
            UsageError: no target, or several without names.
        """
        if flags and (len(flags) > 1 or ("=" in flags[0] and "#" not in flags[0].partition("=")[0])):
            return parse_named(flags, "--target")
        return {"target": self.target(flags[0] if flags else None)}

    def budget(self, flag: str | None) -> Budget:
        """What may be selected.

        Raises:
            UsageError: neither a flag nor a file says it.
        """
        from curate.terms import Budget

        if flag is not None:
            return Budget.parse(flag)
        if self.config is None or self.config.budget is None:
            raise UsageError("No budget was given.", hint="Say --budget N, the number of unique images.")
        return self.config.budget

    def weights(self, flags: Sequence[str] | None) -> dict[str, float]:
        """Label or group of the target -> how much its images count; flags replace the file's.

        Raises:
            UsageError: a flag that is not VALUE=FACTOR.
        """
        from curate.terms import parse_weights

        return parse_weights(list(flags)) if flags else dict(self.config.weights) if self.config else {}

    def terms(self, target: str | None, pools: Sequence[str] | None) -> dict[str, Terms]:
        """Terms of the target and the pools: those in their addresses, then those of the file that names them.

        Raises:
            UsageError: terms that make no sense.
        """
        from curate.terms import Terms, split_terms

        given = {"target": self._target(target), **self._pools(pools)}
        said = {name: split_terms(address)[1] for name, address in given.items()}
        named_by_file = {"target"} if target is None else set()
        named_by_file |= set() if pools else set(given) - {"target"}
        of_file = self.config.terms if self.config else {}
        return {name: terms.over(of_file[name] if name in named_by_file else Terms()) for name, terms in said.items()}

    def labeled(self, flags: Sequence[str] | None) -> dict[str, str]:
        """Labeled set -> TRAIN[::TEST]; flags replace the file's sets.

        Raises:
            UsageError: there is none.
        """
        of_file = self.config.labeled_addresses if self.config else {}
        sets = parse_named(flags, "--labeled") if flags else of_file
        if not sets:
            raise UsageError("No labeled set was given.", hint="Say --labeled NAME=TRAIN[::TEST].")
        return sets

    def pools(self, flags: Sequence[str] | None) -> dict[str, str]:
        """Pool name -> address without terms; flags replace the file's pools.

        Raises:
            UsageError: a name that cannot stand for a pool.
        """
        from curate.terms import split_terms

        return {name: split_terms(address)[0] for name, address in self._pools(flags).items()}

    def _pools(self, flags: Sequence[str] | None) -> dict[str, str]:
        from curate.results import check_pool_names

        of_file = self.config.pool_addresses if self.config else {}
        pools = parse_named(flags, "--pool") if flags else of_file
        check_pool_names(pools)
        return pools

    def evaluation_parts(self, encoder: str) -> list[Any]:
        """What the file's evaluations test on, which must never be selected."""
        from curate.experiments import evaluation_parts

        return [] if self.config is None else evaluation_parts(self.config, encoder=encoder, **self.embedding)

    @property
    def embedding(self) -> dict[str, Any]:
        """Keyword arguments of everything that may have to embed a source."""
        return {"work": self.work, "device": self.device, "workers": self.shared.workers, "progress": self.progress}

    def show(self, document: dict[str, Any], lines: Sequence[str], tables: Sequence[Any] = ()) -> None:
        """On stdout: one JSON document, or tables (and lines between them), then lines; under torchrun the first's."""
        if os.environ.get("RANK", "0") != "0":
            return
        if self.shared.json:
            terminal.print_json(document)
            return
        for part in tables:
            if isinstance(part, str):
                terminal.print_lines([part])
            else:
                terminal.print_rows(part)
        terminal.print_lines(lines)

    def show_sources(self, sources: dict[str, str], told: Sequence[str] = ()) -> None:
        """Dry run: what each source holds, and what else would be done."""
        from embeddings.moments_file import is_moments_file, read_moments
        from embeddings.pipeline import preview

        def held(address: str) -> dict[str, Any]:
            if is_moments_file(address):
                return {"source": address, "images": len(read_moments(address)), "rejected": 0}
            return preview(address)

        found = {name: held(address) for name, address in sources.items()}
        lines = [
            f"{name}: {f['images']:,} images, {f['rejected']:,} rejected ({sources[name]})" for name, f in found.items()
        ]
        self.show({"schema": "curate.dry-run/1", "sources": found}, [*lines, *told, "Nothing was done (--dry-run)."])

    def _work_folder(self) -> Path:
        """Where embeddings are kept; a folder that a file names is relative to the file."""
        if self.shared.work is None and self.config is not None and self.config.work is not None:
            return Path(self.config.located(self.config.work))
        return self.shared.work or Path(".curate")

    def _first(self, flag: Any, key: str, default: Any) -> Any:
        from_file = getattr(self.config, key, None) if self.config else None
        return flag if flag is not None else from_file if from_file is not None else default


@contextmanager
def open_session(shared: Shared | None) -> Iterator[Session]:
    """A command's settings, while its progress is shown.

    Raises:
        UsageError: settings that make no sense; ConfigError: a file that does not hold up.
    """
    shared = shared or Shared()
    with terminal.shown_progress(terminal.error_console(), quiet=shared.quiet) as progress:
        yield Session(shared, progress)


def parse_named(flags: Sequence[str], flag: str) -> dict[str, str]:
    """NAME=ADDRESS flags as a dict, split at the first "=".

    Raises:
        UsageError: no name, a name that looks like a path, or a name given twice.
    """
    named: dict[str, str] = {}
    for text in flags:
        name, equals, address = text.partition("=")
        if not equals or not address or not _is_name(name):
            raise UsageError(f"{flag} {text!r}: found no name.", hint=f"Write {flag} NAME={text}.")
        if name in named:
            raise UsageError(f"{flag} names {name!r} twice.", hint="Give each its own name.")
        named[name] = address
    return named


def _is_name(name: str) -> bool:
    """True for what can name a set and, for several targets, a folder."""
    return bool(name.strip(" .")) and name == name.strip() and not any(c in name for c in "/\\#")


def _load_config(path: Path) -> Config:
    from curate.config import load_config  # not before a file is named: `curate doctor` must do without pyarrow

    return load_config(path)
