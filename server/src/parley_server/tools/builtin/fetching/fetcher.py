"""Fetching a page from a host that is listed, at an address that was checked, within bounds of size and time."""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from parley_server.tools.builtin.fetching.addresses import is_public, is_public_or_private
from parley_server.tools.builtin.fetching.allowed_hosts import AllowedHost, IpAddress
from parley_server.tools.builtin.fetching.body import read_body
from parley_server.tools.builtin.fetching.target import Target, target_of
from parley_server.tools.errors import ToolError
from parley_server.tools.tool_settings import FetchUrlSettings

MAX_REDIRECTS = 5

# Returns the addresses of a name; raises OSError.
Lookup = Callable[[str, int], Awaitable[Sequence[str]]]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_HEADERS = {"User-Agent": "Parley", "Accept": "text/*, application/json, */*;q=0.1", "Accept-Encoding": "gzip"}


@dataclass(frozen=True, slots=True)
class Page:
    """What a server answered; `truncated` tells that there was more of it."""

    url: str
    content_type: str
    charset: str
    body: bytes
    truncated: bool


async def ask_system(host: str, port: int) -> Sequence[str]:
    """Look a name up as any program does."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Fetcher:
    """Fetches pages; keeps nothing between them. `is_permitted` judges addresses in place of what the settings say."""

    def __init__(
        self,
        settings: FetchUrlSettings,
        lookup: Lookup = ask_system,
        is_permitted: Callable[[IpAddress], bool] | None = None,
    ) -> None:
        self._allowed = tuple(map(AllowedHost.parse, settings.allow))
        self._max_bytes = settings.max_bytes
        self._timeout_s = settings.timeout_s
        self._lookup = lookup
        self._is_permitted = is_permitted or (is_public_or_private if settings.allow_private_addresses else is_public)

    async def fetch(self, url: str) -> Page:
        """Fetch a page, over at most MAX_REDIRECTS redirects, each checked like the first URL. Raises ToolError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(target_of(url, self._allowed))
        except TimeoutError as error:
            message = f"The page was not there within {self._timeout_s:g} seconds."
            raise ToolError("timeout", message, retryable=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ToolError("unreachable", "The page could not be fetched.", retryable=True) from error

    async def _follow(self, target: Target) -> Page:
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._get(target)
            if isinstance(answer, Page):
                return answer
            target = answer
        raise ToolError("too_many_redirects", f"The page was not there after {MAX_REDIRECTS} redirects.")

    async def _get(self, target: Target) -> Page | Target:
        """Return the page, or where its server sends one."""
        connector = aiohttp.TCPConnector(resolver=_Checked(await self._addresses(target)), use_dns_cache=False)
        async with (
            aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers=_HEADERS, auto_decompress=False
            ) as session,
            session.get(target.url, allow_redirects=False) as response,
        ):
            if response.status in _REDIRECTS and "Location" in response.headers:
                return target_of(response.headers["Location"], self._allowed, target.url)
            if not response.ok or response.status in _REDIRECTS:
                message = f"The server answered with status {response.status}."
                raise ToolError("http_status", message, retryable=response.status in _BUSY)
            body, truncated = await read_body(response, self._max_bytes)
            return Page(str(target.url), response.content_type, response.charset or "", body, truncated)

    async def _addresses(self, target: Target) -> Sequence[IpAddress]:
        """Return the target's addresses, all of which may be connected to."""
        addresses: Sequence[IpAddress] = (target.address,) if target.address else ()
        if not addresses:
            addresses = [ipaddress.ip_address(found) for found in await self._lookup(target.host, target.port)]
        if not all(map(self._is_permitted, addresses)):
            raise ToolError("address_not_allowed", "The host is at an address that may not be connected to.")
        return addresses


class _Checked(AbstractResolver):
    """Answers with addresses that were checked, so that what is connected to is no other, whatever a name says next."""

    def __init__(self, addresses: Sequence[IpAddress]) -> None:
        self._addresses = addresses

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  # aiohttp's
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        pass
