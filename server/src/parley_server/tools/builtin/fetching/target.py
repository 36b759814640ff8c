"""A URL that may be asked: its form and its host are checked, in the reading that the connection uses, too."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from yarl import URL

from parley_server.tools.builtin.fetching.allowed_hosts import AllowedHost, IpAddress, is_name, literal_address
from parley_server.tools.errors import ToolError

MAX_URL_CHARS = 2048

_PORTS = {"http": 80, "https": 443}
_NEVER_IN_A_URL = re.compile(r"[\x00-\x20\x7f-\xa0\\\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked next; `address` is the host where that is an IP address and no name."""

    url: URL
    host: str
    port: int
    address: IpAddress | None


def target_of(text: str, allowed: Sequence[AllowedHost], base: URL | None = None) -> Target:
    """Read a URL, relative to `base` where there is one, and see that it may be asked. Raises ToolError."""
    if len(text) > MAX_URL_CHARS or _NEVER_IN_A_URL.search(text):
        raise _no_url()
    try:
        url = URL(text) if base is None else base.join(URL(text))
        port = url.port
    except ValueError as error:
        raise _no_url() from error
    host = (url.raw_host or "").lower()
    address = literal_address(host)
    host = str(address or host)
    if url.scheme not in _PORTS or port is None or not (address or is_name(host)):
        raise _no_url()
    if url.raw_user is not None or url.raw_password is not None:
        raise ToolError("url_not_allowed", "A URL with a user name or password is not fetched.")
    if not any(entry.matches(host, port, _PORTS[url.scheme]) for entry in allowed):
        raise ToolError("url_not_allowed", "This host or port is not on the list of those that may be fetched from.")
    return Target(url, host, port, address)


def _no_url() -> ToolError:
    hint = "Give an absolute http or https URL with a host name."
    return ToolError("invalid_url", "This is no URL that can be fetched.", hint=hint)
