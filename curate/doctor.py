"""What is installed, what works on this machine, and the command that mends what does not.

A probe yields findings, and whatever it raises is a finding too. Probes that import other packages run in a process of
their own, and in a fresh one after each that brings Python down (a wrong build, two OpenMP runtimes): what runs here
needs the standard library and rich, and works when nothing else does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

from curate import probes
from curate.probes import NOTE, OK, PROBLEM, Finding
from embeddings.errors import one_line
from embeddings.progress import Progress, silent

if TYPE_CHECKING:
    from rich.table import Table

TOPICS = ("Versions", "Optional", "Devices", "Machine", "Disk", "Images", "Weights", "Access")
FIRST = ("numpy", "pyarrow", "pillow", "torch", "torchvision", "timm")  # each may need those before it
PATIENCE_S = 180.0  # for all imports; a cold network disk takes a minute
COLORS = {OK: "green", NOTE: "yellow", PROBLEM: "bold red"}


@dataclass(frozen=True)
class Probe:
    """Something to look at; ``mend`` is what helps where looking itself fails."""

    topic: str
    name: str
    look: Callable[[], Iterable[Finding]]
    mend: str = ""
    needed: bool = True

    def findings(self) -> list[Finding]:
        """What it finds; what it raises is a finding as well."""
        found: list[Finding] = []
        try:
            found.extend(self.look())
        except Exception as error:
            found.append(self.failed(one_line(error)))
        return [replace(finding, topic=self.topic) for finding in found]

    def failed(self, why: str) -> Finding:
        """The finding that nothing can be found."""
        return Finding(self.name, PROBLEM if self.needed else NOTE, why, self.mend, self.topic)


def examine(work: Path, *, progress: Progress = silent) -> list[Finding]:
    """Looks at everything, in some seconds; changes nothing.

    Args:
        work: Folder where embeddings would be kept.
        progress: Told how many probes are done.

    Returns:
        Findings in the order of TOPICS.
    """
    here, elsewhere = _probes_here(work), _probes_elsewhere()
    findings = [finding for probe in here for finding in probe.findings()]
    progress("examine", len(here), len(here) + len(elsewhere), "loading packages")
    findings += _elsewhere(elsewhere)
    progress("examine", len(here) + len(elsewhere), len(here) + len(elsewhere))
    return sorted(findings, key=lambda finding: TOPICS.index(finding.topic))


def to_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Plain JSON object, schema curate.doctor/1."""
    counts = {state: sum(f.state == state for f in findings) for state in (OK, NOTE, PROBLEM)}
    return {"schema": "curate.doctor/1", "counts": counts, "findings": [asdict(f) for f in findings]}


def verdict(findings: Sequence[Finding]) -> str:
    """The findings in one sentence."""
    broken = [f.name for f in findings if f.state == PROBLEM]
    if not broken:
        return "Everything that is needed works."
    return f"Broken: {', '.join(broken)}. Mend {broken[0]} first and look again: others may need it."


def as_table(findings: Sequence[Finding]) -> Table:
    """Findings by topic, for a terminal of 80 columns or more."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(width=8)
    table.add_column(max_width=16, overflow="fold")
    table.add_column(overflow="fold")
    topic = ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            table.add_row(Text(f"\n{topic}", style="bold"))
        told = Text(finding.found)
        if finding.mend:
            told.append(f"\n{finding.mend}", style="bold")
        table.add_row(Text(finding.state, style=COLORS[finding.state]), Text(finding.name), told)
    return table


def _probes_here(work: Path) -> list[Probe]:
    """Probes that need the standard library alone."""
    at_work = partial(probes.disk, "work folder", lambda: work, "Choose another folder with --work DIR")
    elsewhere = "export TMPDIR=DIR  # a folder on another disk"
    return [
        Probe("Versions", "python", probes.python_version),
        Probe("Versions", "curate", probes.own_version, "pip install .  # in the folder of its source code"),
        Probe("Optional", "extras", probes.extras, needed=False),
        Probe("Machine", "CPU cores", probes.cores, needed=False),
        Probe("Machine", "threads", probes.threads, needed=False),
        Probe("Machine", "memory", probes.memory, needed=False),
        Probe("Machine", "open files", probes.open_files, needed=False),
        Probe("Disk", "work folder", at_work),
        Probe("Disk", "temporary files", partial(probes.disk, "temporary files", gettempdir, elsewhere), elsewhere),
        Probe("Weights", "folders", probes.weights_folders, needed=False),
        Probe("Access", "credentials", probes.credentials, needed=False),
    ]


def _probes_elsewhere() -> dict[str, Probe]:
    """Probes that import packages, by name, in the order in which they build on each other."""
    required = [r for r in probes.requirements() if not r.extra]
    required.sort(key=lambda r: FIRST.index(r.name) if r.name in FIRST else len(FIRST))
    found = [
        *[Probe("Versions", r.name, partial(probes.package, r), r.reinstall) for r in required],
        Probe("Devices", "CUDA", probes.devices, probes.TORCH),
        Probe("Images", "decoding", probes.decoding, f"{probes.REINSTALL} pillow"),
        Probe("Weights", "lite0", probes.lite0, f"{probes.REINSTALL} {probes.LITE0}"),
        Probe("Optional", "faiss", probes.faiss_packages, probes.NO_FAISS),
        Probe("Machine", "OpenMP", probes.openmp, probes.NO_FAISS),
    ]
    return {probe.name: probe for probe in found}


def _elsewhere(known: dict[str, Probe]) -> Iterator[Finding]:
    """What probes find in another process, and in a fresh one after each that ends its process."""
    waiting = list(known)
    while waiting:
        lines, end = _ask(waiting)
        for line in lines:
            yield from (Finding(**found) for found in json.loads(line))
        waiting = waiting[len(lines) :]
        if waiting:
            yield known[waiting.pop(0)].failed(end)


def _ask(names: list[str]) -> tuple[list[str], str]:
    """The lines of ``answer`` from a process with our import path, and how the process ended."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from curate.doctor import answer; answer({names!r})"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        told = late.stdout if isinstance(late.stdout, str) else (late.stdout or b"").decode()
        return told[: told.rfind("\n") + 1].splitlines(), f"no answer within {PATIENCE_S:.0f} s"
    how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return done.stdout.splitlines(), f"it ends Python with {how}{': ' if last else ''}{last[:160]}"


def answer(names: Sequence[str]) -> None:
    """Runs probes by name, one line of JSON each on stdout; what ``examine`` starts in another process."""
    with os.fdopen(os.dup(1), "w") as channel:
        os.dup2(2, 1)  # what packages print while they load is no answer
        known = _probes_elsewhere()
        for name in names:
            channel.write(json.dumps([asdict(finding) for finding in known[name].findings()]) + "\n")
            channel.flush()
