"""The exception tree: what the module's docstring draws is what the classes are."""

from __future__ import annotations

import re
from importlib import metadata

import pytest

from embeddings import errors
from embeddings.errors import CurateError, UnknownNameError, install_command, one_line

DRAWN = re.findall(r"(\w+Error)\s+exit (\d)", errors.__doc__ or "")
CLASSES = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}


def test_every_class_is_drawn() -> None:
    assert {name for name, _ in DRAWN} == set(CLASSES)


@pytest.mark.parametrize(("name", "code"), DRAWN)
def test_exit_codes_are_as_drawn(name: str, code: str) -> None:
    assert issubclass(CLASSES[name], CurateError)
    assert CLASSES[name].exit_code == int(code)


def test_usage_errors_stand_below_usage_error() -> None:
    indented = re.findall(r"│   [├└]── (\w+Error)", errors.__doc__ or "")
    assert len(indented) == 7
    assert all(issubclass(CLASSES[name], errors.UsageError) for name in indented)


def test_the_hint_follows_the_message() -> None:
    assert str(CurateError("It failed.", hint="Do this.")) == "It failed.\nDo this."
    assert str(CurateError("It failed.")) == "It failed."


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("simcrl", "Did you mean simclr?"),
        ("mocov2", "Did you mean mocov3?"),
        ("zzz", "Known: byol, mocov3, simclr."),
    ],
)
def test_unknown_names_show_the_nearest_or_all(name: str, hint: str) -> None:
    error = UnknownNameError("method", name, ["simclr", "mocov3", "byol"])
    assert str(error) == f"Unknown method '{name}'.\n{hint}"
    assert error.exit_code == 2


def test_one_line() -> None:
    assert one_line(ValueError("two\n  lines")) == "two lines"
    assert one_line(ValueError()) == "ValueError"
    assert one_line(ValueError("x" * 500), width=20) == "x" * 20


def test_extras_are_installed_by_the_names_of_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert install_command("hf") == "pip install 'datasets>=4.0'"
    required = [
        "torch>=2",
        "s3fs>=1; extra == 's3'",
        "x>=1 ; (os_name == 'posix') and extra == \"s3\"",
        "y; extra == 's3x'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: required)
    assert install_command("s3") == "pip install 's3fs>=1' 'x>=1'"
    monkeypatch.setattr(metadata, "requires", lambda name: None)
    assert install_command("s3") == "pip install 'curate-pretraining[s3]'"
