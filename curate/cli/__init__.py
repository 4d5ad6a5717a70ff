"""The command line: parse, call, print. Everything heavy is imported inside the command that needs it."""

from curate.cli import choosing, embedding, studies, training  # noqa: F401 (they join the app)
from curate.cli.application import app
from curate.cli.entry import main

__all__ = ["app", "main"]
