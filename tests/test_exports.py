"""What the packages export: every name resolves twice to the same thing, and none of it costs an import of torch."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import curate
import embeddings


def _packages(root: ModuleType) -> list[str]:
    """The package itself and its sub-packages that say what they export."""
    found = [m.name for m in pkgutil.walk_packages(root.__path__, root.__name__ + ".") if m.ispkg]
    return [name for name in [root.__name__, *found] if hasattr(importlib.import_module(name), "__all__")]


PACKAGES = [*_packages(embeddings), *_packages(curate)]
NAMES = [(package, name) for package in PACKAGES for name in importlib.import_module(package).__all__]


def _loaded(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running ``code``."""
    report = "import json, sys; sys.stderr.write('\\n' + json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    script = f"try:\n    {code}\nexcept SystemExit:\n    pass\n{report}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("package", [curate, embeddings])
def test_both_packages_say_what_they_export(package: ModuleType) -> None:
    assert package.__name__ in PACKAGES
    assert set(package.__all__) <= set(dir(package))


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_exported_name_reads_the_same_twice(package: str, name: str) -> None:
    module = importlib.import_module(package)
    first = getattr(module, name)
    # Importing a module of the same name would put that module in the place of the function.
    assert getattr(module, name) is first
    assert not isinstance(first, ModuleType)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_export_shares_its_name_with_a_module(package: str) -> None:
    module = importlib.import_module(package)
    inside = {m.name for m in pkgutil.iter_modules(module.__path__)}
    assert not inside & set(module.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_exports_are_distinct(package: str) -> None:
    names = list(importlib.import_module(package).__all__)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("package", PACKAGES)
def test_unknown_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        importlib.import_module(package).no_such_name  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import curate, embeddings",
        "import curate.demo",
        "import curate.config",
        "sys.argv = ['curate', '--help']; from curate.cli import main; main()",
        "sys.argv = ['curate', 'score', '--help']; from curate.cli import main; main()",
    ],
)
def test_costs_no_import_of_torch(code: str) -> None:
    loaded = _loaded(f"import sys; {code}")
    assert "curate" in loaded
    assert not loaded & {"torch", "torchvision", "timm", "faiss", "matplotlib", "scipy"}


def test_error_tree_lives_under_one_root() -> None:
    from embeddings import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert all(issubclass(kind, errors.CurateError) for kind in kinds)
    assert {kind.exit_code for kind in kinds} == {1, 2, 3, 4}
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in kinds)
