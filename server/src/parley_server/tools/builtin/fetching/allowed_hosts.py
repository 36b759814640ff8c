"""The allow-list of hosts: which may be asked, and on which port."""

import ipaddress
import re
from dataclasses import dataclass

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAX_NAME_CHARS = 253
_MAX_PORT = 65_535
# The last label begins with a letter: what does not is an address in some spelling (127.1, 0x7f000001, 2130706433).
_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z][a-z0-9-]{0,62}")
_ENTRY = re.compile(r"(\*\.)?(\[[0-9a-f:.]+\]|[^:\[\]*]+)(?::([0-9]{1,5}))?")


def is_name(host: str) -> bool:
    """Tell whether a host is a name in small ASCII letters."""
    return len(host) <= _MAX_NAME_CHARS and _NAME.fullmatch(host) is not None


def literal_address(host: str) -> IpAddress | None:
    """Return the address that a host is, without a zone and with all its numbers in decimal; None for anything else."""
    try:
        return None if "%" in host else ipaddress.ip_address(host)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """One entry: a host, or with `below` all names below it; on `port`, None: on the scheme's own."""

    host: str
    below: bool
    port: int | None

    @classmethod
    def parse(cls, entry: str) -> "AllowedHost":
        """Read `example.com`, `*.example.com`, `example.com:8443` or `[2001:db8::1]:80`. Raises ValueError."""
        read = _ENTRY.fullmatch(entry)
        host = "" if read is None else read[2].strip("[]")
        port = None if read is None or read[3] is None else int(read[3])
        address = literal_address(host)
        if read is None or not (is_name(host) or (address and not read[1])):
            raise ValueError(f"{entry!r} is no host: write a name in small ASCII letters, *.NAME or an IP address")
        if port is not None and not 0 < port <= _MAX_PORT:
            raise ValueError(f"{entry!r} has no such port")
        return cls(str(address or host), read[1] is not None, port)

    def matches(self, host: str, port: int, own_port: int) -> bool:
        """Tell whether a host may be asked on a port; `own_port` is the scheme's."""
        is_host = host.endswith(f".{self.host}") if self.below else host == self.host
        return is_host and port == (own_port if self.port is None else self.port)
