"""What benchmarks share: the machine and versions that they ran on, and a file that holds the latest of each row."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from embeddings.pipeline.batches import core_count

FEATURES = {"avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16"}

Row = Callable[[], dict[str, Any]]


def machine(*packages: str) -> dict[str, Any]:
    """Hardware, threads and versions."""
    return {"hardware": hardware(), "threads": os.environ.get("OMP_NUM_THREADS"), "versions": versions(*packages)}


def hardware() -> dict[str, Any]:
    """Architecture, cores and vector units; no name of a machine."""
    flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[-1].split("\n", 1)[0].split()
    return {"machine": platform.machine(), "cores": core_count(), "features": sorted(FEATURES.intersection(flags))}


def versions(*packages: str) -> dict[str, str]:
    """Of Python and some packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def load_average() -> float:
    """How busy the machine is: processes that want a core, over the last minute."""
    return round(os.getloadavg()[0], 1)


def measure(rows: Mapping[str, Row], out: Path, *, about: str | None, facts: Mapping[str, Any]) -> None:
    """Measures the rows that the command line names, else all; those not measured now stay in the file as they are."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=rows, help="a row; repeated for several")
    only = parser.parse_args().only
    before = json.loads(out.read_text(encoding="utf-8")) if only and out.exists() else {}
    found = {name: rows[name]() | {"load of the machine": load_average()} for name in only or rows}
    latest = {**before, **found}
    document = {**facts, **{name: latest[name] for name in rows if name in latest}}
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
