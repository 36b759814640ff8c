"""Where the server listens: the settings, and what may be said of an address before it is bound."""

import asyncio
import ipaddress
import re
import resource
import socket
from dataclasses import dataclass
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field

from parley_server.domain.errors import StartError

_HOUR_S = 3600.0
# What the store, the log and the core have open, and the connections to models, which come with the runs.
_OTHER_FILES = 48
_OTHER_FILES_SHARE = 5
DEFAULT_LISTEN = "127.0.0.1:50051"
_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\[\]:/\s]+):(?P<port>\d{1,5})")

_log = structlog.get_logger(__name__)


class ListenError(StartError):
    """The server may not or cannot listen where it was told to."""


class ServerSettings(BaseModel):
    """`[server]`: where the server listens, and how it stops."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: str = DEFAULT_LISTEN
    """`HOST:PORT`, with port 0 for any free one, or `unix:PATH`."""

    allow_insecure_listen: bool = False
    """Allows an address that other machines can reach, in the clear: credentials and texts can be read on the way. A
    warning in the log says so every hour. With a certificate in `[tls]` there is no need for it."""

    max_connections: int = Field(default=800, ge=1, le=1_000_000)
    """How many connections the server holds; it closes further ones at once. Each takes a file descriptor, and a fifth
    of those the process may have (`ulimit -n`), 48 at least, is kept for the store and the models: where this leaves
    fewer, the server holds those, and a warning in the log says so."""

    reflection: Literal["auto", "on", "off"] = "auto"
    """Whether tools may ask the server for its protos, with a credential; `auto` is on where only this machine reaches
    it."""

    drain_delay_s: float = Field(default=0.0, ge=0, le=600)
    """How long, in seconds, a stopping server goes on as before, save that its health is NOT_SERVING: the time that a
    load balancer takes to notice."""

    drain_grace_s: float = Field(default=30.0, ge=0, le=3600)
    """How long, in seconds, a stopping server lets calls under way go on."""

    overload_lag_s: float = Field(default=2.0, ge=0.1, le=60)
    """How far, in seconds, the server may be behind with its work before it refuses new calls and its health says so,
    until it has caught up."""

    @property
    def reflects(self) -> bool:
        """Tell whether reflection is served. Raises ListenError when the address is none."""
        if self.reflection == "auto":
            return Listener.parse(self.listen).is_local
        return self.reflection == "on"


@dataclass(frozen=True, slots=True)
class Listener:
    """A parsed address: a host and a port, or the path of a unix socket with an empty host."""

    host: str
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> "Listener":
        """Read `HOST:PORT`, `[V6]:PORT` or `unix:PATH`. Raises ListenError."""
        if text.startswith("unix:") and len(text) > len("unix:"):
            return cls("", path=text.removeprefix("unix:"))
        match = _HOST_AND_PORT.fullmatch(text)
        if match is None or int(match["port"]) > 65_535:
            raise ListenError(f"[server] listen: {text!r} is no address; write HOST:PORT or unix:PATH")
        return cls(match["host"], int(match["port"]))

    @property
    def is_local(self) -> bool:
        """Tell whether only this machine can reach it: a loopback address or a unix socket."""
        if self.path:
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"

    def with_port(self, port: int) -> str:
        """Return the address as text, with the port that was bound."""
        return f"unix:{self.path}" if self.path else f"{self.host}:{port}"

    def check(self, *, has_tls: bool, allow_insecure: bool) -> None:
        """Refuse an address that must not be listened on. Raises ListenError."""
        if not (self.is_local or has_tls or allow_insecure):
            raise ListenError(
                f"[server] listen: {self.host} is reachable from other machines; set [tls] certificate_file and "
                "private_key_file, or listen on 127.0.0.1 or a unix socket, "
                "or set [server] allow_insecure_listen = true where the network itself is safe"
            )
        if self.path and _answers(self.path):
            raise ListenError(f"[server] listen: another server listens on unix:{self.path}; stop it or choose another")


def connections_held(wanted: int) -> int:
    """Return how many connections the server can hold, at most `wanted`; log a warning where it is fewer."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return wanted
    held = min(wanted, max(files - max(_OTHER_FILES, files // _OTHER_FILES_SHARE), 1))
    if held < wanted:
        _log.warning("few_file_descriptors", limit=files, max_connections=held, hint="raise the limit (ulimit -n)")
    return held


async def complain_of_insecurity(address: str, every_s: float = _HOUR_S) -> None:
    """Log, until cancelled, that `address` is served in the clear to other machines."""
    while True:
        _log.warning("insecure_listen", address=address, hint="set [tls] certificate_file and private_key_file")
        await asyncio.sleep(every_s)


def _answers(path: str) -> bool:
    """Tell whether somebody serves a unix socket: binding would take it from him without a word."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True
