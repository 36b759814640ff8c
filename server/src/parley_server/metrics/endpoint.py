"""A few pages over HTTP for whoever watches the server: each answered by a function, on threads of their own.

So they answer while the event loop is held up. Nobody can hold up the server through them: a few connections are served
at a time, each for a few seconds, and the others are closed.
"""

import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self

import structlog
from pydantic import BaseModel, ConfigDict

from parley_server.domain.errors import StartError

MAX_CONNECTIONS = 8
CONNECTION_S = 5.0
MAX_REQUEST_BYTES = 16 * 1024

_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:/\s]+):(?P<port>\d{1,5})")
_PLAIN = "text/plain; charset=utf-8"

_log = structlog.get_logger(__name__)


class MetricsSettings(BaseModel):
    """`[metrics]`: where the server's numbers can be read, and whether it is ready."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: str = ""
    """`HOST:PORT` of an HTTP listener with `/metrics`, `/healthz` and `/readyz`, with port 0 for any free one; empty:
    none."""

    allow_remote: bool = False
    """Allows an address that other machines can reach. The pages ask for no credential; they hold no user's name and no
    text."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page says."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = _PLAIN


READY = Answer(b"ready\n")
NOT_READY = Answer(b"not ready\n", HTTPStatus.SERVICE_UNAVAILABLE)

Pages = Mapping[str, Callable[[], Answer]]


class MetricsEndpoint:
    """Serves pages by their paths for the length of a `with` block; `address` is what was bound.

    Raises:
        StartError: the settings name no address, one that others reach, or one that is not ours to bind.
    """

    def __init__(self, settings: MetricsSettings, pages: Pages) -> None:
        self._pages = pages
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._listener = _bound(settings)
        host, port = self._listener.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="metrics", daemon=True).start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A close alone would leave the thread in its accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while self._listener.fileno() != -1:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                # Closed, or out of file descriptors for a moment.
                time.sleep(0.1)
                continue
            if self._places.acquire(blocking=False):
                threading.Thread(target=self._serve, args=(connection,), name="metrics", daemon=True).start()
            else:
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        end = time.monotonic() + CONNECTION_S
        try:
            with connection:
                head = _head_of_request(connection, end)
                connection.settimeout(max(end - time.monotonic(), 0.001))
                connection.sendall(self._response(head))
        except OSError:
            pass  # The reader left or took too long; there is nobody to tell.
        except Exception as error:  # noqa: BLE001  # a page that fails must not print past the log
            _log.error("metrics_page_failed", exc_info=error)
        finally:
            self._places.release()

    def _response(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        if method not in {"GET", "HEAD"}:
            return _rendered(Answer(b"GET alone\n", HTTPStatus.METHOD_NOT_ALLOWED))
        page = self._pages.get(rest.partition(" ")[0].partition("?")[0])
        if page is None:
            return _rendered(Answer(f"there are {' '.join(self._pages)}\n".encode(), HTTPStatus.NOT_FOUND))
        return _rendered(page(), with_body=method == "GET")


def _head_of_request(connection: socket.socket, end: float) -> bytes:
    """Read up to the empty line. Raises OSError when that takes too long, or is not to come."""
    head = b""
    while b"\r\n\r\n" not in head:
        left_s = end - time.monotonic()
        if left_s <= 0 or len(head) > MAX_REQUEST_BYTES:
            raise TimeoutError
        connection.settimeout(left_s)
        piece = connection.recv(4096)
        if not piece:
            raise ConnectionError
        head += piece
    return head


def _rendered(answer: Answer, *, with_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (answer.body if with_body else b"")


def _bound(settings: MetricsSettings) -> socket.socket:
    match = _HOST_AND_PORT.fullmatch(settings.listen)
    if match is None or int(match["port"]) > 65_535:
        raise StartError(f"[metrics] listen: {settings.listen!r} is no address; write HOST:PORT")
    host = match["host"].strip("[]")
    if not (settings.allow_remote or _is_loopback(host)):
        raise StartError(
            f"[metrics] listen: {host} is reachable from other machines and asks for no credential; "
            "listen on 127.0.0.1, or set [metrics] allow_remote = true"
        )
    try:
        return socket.create_server((host, int(match["port"])), family=_family(host), backlog=MAX_CONNECTIONS)
    except OSError as error:
        raise StartError(
            f"[metrics] listen: {settings.listen} is in use or not ours to bind; choose another"
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
