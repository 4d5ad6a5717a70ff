"""A web server on this machine for tests: a folder of files, ranges of bytes, and failures on demand."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Behavior:
    """What the server does next, and what it was asked."""

    failures: list[int] = field(default_factory=list)  # status of the answers to come; 0 drops the connection
    always: dict[str, int] = field(default_factory=dict)  # path -> status
    ranges: bool = True
    headers: dict[str, str] = field(default_factory=dict)  # of failures
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, behavior: Behavior) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.behavior = folder, behavior


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        behavior, path = self.server.behavior, unquote(urlsplit(self.path).path)
        behavior.asked.append((self.command, path, self.headers.get("Range")))
        status = behavior.failures.pop(0) if behavior.failures else behavior.always.get(path, 200)
        file = self.server.folder / path.lstrip("/")
        if status == 0:
            self.close_connection = True
        elif status != 200:
            self._send(status, b"", body=body, **behavior.headers)
        elif file.is_dir():
            links = "".join(f'<a href="{entry.name}{"/" * entry.is_dir()}">.</a>' for entry in file.iterdir())
            self._send(200, links.encode(), body=body, **{"Content-Type": "text/html"})
        elif file.is_file():
            self._send_file(file.read_bytes(), body=body)
        else:
            self._send(404, b"", body=body)

    def _send_file(self, data: bytes, *, body: bool) -> None:
        bounds = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if bounds and self.server.behavior.ranges:
            first, last = map(int, bounds.groups())
            span = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
            self._send(206, data[first : last + 1], body=body, **span)
        else:
            self._send(200, data, body=body, **{"Content-Type": "application/octet-stream", "ETag": '"1"'})

    def _send(self, status: int, data: bytes, *, body: bool, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


@contextmanager
def serve(folder: Path, behavior: Behavior) -> Iterator[str]:
    """The address of a server of a folder's files; it ends with the block."""
    server = _Server(folder, behavior)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
