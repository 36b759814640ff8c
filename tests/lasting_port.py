"""Ports that stay one test's own while nothing listens on them: between a server's death and its next start."""

import contextlib
import os
import random
import socket
from collections.abc import Iterator
from functools import cache
from itertools import cycle, islice

# Outgoing connections and servers that ask for any port are given higher ones (Linux: from 32768, others: from 49152).
_PORTS = range(20_000, 32_000)


def lasting_port() -> int:
    """Give a port on loopback to which nobody is bound, and which neither the system nor another test takes."""
    for port in islice(_own_ports(), len(_PORTS)):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise LookupError("no port is free")


@cache
def _own_ports() -> Iterator[int]:
    """The ports of this process, again and again: tests that run side by side never share any."""
    side_by_side = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    own = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = _PORTS[own::side_by_side]
    return cycle(random.sample(ports, len(ports)))
