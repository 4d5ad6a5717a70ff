"""One command from the shell: run it, print what went wrong, exit with its code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

from curate import terminal
from curate.cli.application import app
from embeddings.errors import CurateError, GateError, TasksFailedError, UsageError, one_line

LONGEST = 2_000  # characters of an error that is not ours


def main(tokens: Sequence[str] | None = None) -> None:
    """Entry point: runs one command and exits with its code."""
    # Read by OpenMP when torch loads: threads that spin while they wait make a busy machine 3 to 4 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if tokens is None else tokens)
    sys.exit(_exit_code(arguments))


def _exit_code(arguments: list[str]) -> int:
    debug = "--debug" in arguments
    try:
        app(arguments, exit_on_error=False, print_error=True, error_console=terminal.usage_console())
    except CycloptsError:
        return UsageError.exit_code  # already printed, with the nearest flag
    except CurateError as error:
        if debug:
            terminal.error_console().print_exception()
        # These fail after a result was printed, and stdout holds one document only.
        told = isinstance(error, GateError | TasksFailedError)
        terminal.print_error(error, as_json="--json" in arguments and not told)
        return error.exit_code
    except KeyboardInterrupt:
        terminal.print_notes(["Interrupted. What was finished is kept; the same command continues."])
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        terminal.print_error(_unexpected(error), as_json="--json" in arguments)
        return CurateError.exit_code
    return 0


def _unexpected(error: Exception) -> CurateError:
    return CurateError(
        f"Unexpected {type(error).__name__}: {one_line(error, width=LONGEST)}",
        hint="This is a defect. Run again with --debug and report it.",
    )
