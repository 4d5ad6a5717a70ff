"""Log messages that say whose they are: a study trains many runs, and each warns as if it were alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def named(name: str) -> Iterator[None]:
    """Inside the block every log message begins with a name, in all threads."""
    plain = logging.getLogRecordFactory()

    def make(*args: Any, **options: Any) -> logging.LogRecord:
        record = plain(*args, **options)
        record.msg = f"{name.replace('%', '%%') if record.args else name}: {record.msg}"
        return record

    logging.setLogRecordFactory(make)
    try:
        yield
    finally:
        logging.setLogRecordFactory(plain)
