"""Asking a remote store again when the failure looks like it will pass.

The wait before attempt k + 1 is drawn from [1/2, 1] min(LIMIT_S, FIRST_S 2^(k - 1)), so that many readers do not come
back at once; a server that names a wait (``Retry-After``) gets it, up to LIMIT_S. What the libraries below raise comes
out as an OSError in words: FileNotFoundError, PermissionError, or one that names the server's status.
"""

from __future__ import annotations

import errno
import http
import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import sleep
from typing import Any, TypeVar

from embeddings.errors import CurateError, one_line

ATTEMPTS = 5
FIRST_S, LIMIT_S = 0.5, 30.0
_PASSING_STATUS = (408, 425, 429)  # and all of 500 and above
_PASSING_ERRNO = {
    *(errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EPIPE, errno.ETIMEDOUT),
    *(errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH),
}
_DROPPED = (
    "ClientPayloadError",
    "IncompleteReadError",
    "ServerDisconnectedError",
)  # known by name: extras raise them

Answer = TypeVar("Answer")


def insist(ask: Callable[[], Answer]) -> Answer:
    """What ``ask`` answers, asked up to ATTEMPTS times.

    Raises:
        FileNotFoundError: no such file (404, 410).
        PermissionError: not allowed (401, 403).
        OSError: anything else, and what did not pass in ATTEMPTS attempts; the message names the cause.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return ask()
        except CurateError:
            raise
        except Exception as error:  # every file system raises errors of its own, few of them OSError
            passing = is_passing(error)
            if not passing or attempt == ATTEMPTS:
                raise _in_words(error, attempt) from error
            sleep(_wait(attempt, error))
    raise AssertionError("unreachable")


def is_passing(error: BaseException) -> bool:
    """True for time-outs, dropped connections, and the statuses 408, 425, 429 and 5xx."""
    status = _status(error)
    if status is not None:
        return status in _PASSING_STATUS or status >= 500
    return any(
        isinstance(cause, TimeoutError | ConnectionError)
        or getattr(cause, "errno", None) in _PASSING_ERRNO
        or type(cause).__name__ in _DROPPED
        for cause in _chain(error)
    )


def _in_words(error: Exception, attempts: int) -> OSError:
    status, cause = _status(error), list(_chain(error))[-1]
    if status in (404, 410) or (status is None and isinstance(cause, FileNotFoundError)):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    words = f"HTTP {status} {_phrase(status)}" if status else one_line(cause)
    if attempts > 1:
        words += f" ({attempts} attempts)"
    if status in (401, 403) or isinstance(cause, PermissionError):
        return PermissionError(errno.EACCES, words)
    return OSError(errno.EIO, words)


def _wait(attempt: int, error: Exception) -> float:
    drawn: float = random.uniform(0.5, 1) * min(LIMIT_S, FIRST_S * 2.0 ** (attempt - 1))
    return min(LIMIT_S, max(drawn, *map(_named_wait, _chain(error))))


def _named_wait(error: BaseException) -> float:
    headers: Any = getattr(error, "headers", None)
    try:
        return float(headers["Retry-After"]) if headers else 0.0
    except (KeyError, TypeError, ValueError):  # none named, or a date
        return 0.0


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an error, if a server gave one."""
    for cause in _chain(error):
        value = getattr(cause, "status", None) or getattr(cause, "code", None)
        with suppress(TypeError, ValueError):  # file systems give it as a number or as text
            if 400 <= int(value or 0) < 600:
                return int(value or 0)
    return None


def _phrase(status: int) -> str:
    return http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else "error"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it; some file systems answer "not found" to any failure and keep the cause."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
