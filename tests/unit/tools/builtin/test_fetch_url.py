"""Fetching pages: real servers on loopback addresses, of which 127.0.0.1 counts as public and 127.0.0.2 does not."""

import asyncio
import gzip
import ipaddress
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from certificates import authority, issued_by
from parley_server.tools.builtin.fetch_url import FetchedPage, fetch_url_tool
from parley_server.tools.builtin.fetching.addresses import is_public
from parley_server.tools.builtin.fetching.allowed_hosts import IpAddress
from parley_server.tools.builtin.fetching.fetcher import Fetcher, Page
from parley_server.tools.errors import ToolError
from parley_server.tools.tool import ToolContext
from parley_server.tools.tool_settings import FetchUrlSettings
from unit.tools.builtin.counting_site import Script, Site, answer, counting_site, nothing
from unit.tools.user_context import context_of

OUTER, INNER = "127.0.0.1", "127.0.0.2"
MAX_BYTES = 100_000
ENDLESS = 5_000


class Names:
    """Name servers: every look-up of a name gets its next address, the last one for ever."""

    def __init__(self, **addresses: list[str]) -> None:
        self._addresses = addresses
        self.lookups: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:  # noqa: ARG002  # as `Lookup` has it
        self.lookups.append(host)
        found = self._addresses[host.removesuffix(".test")]
        return (found.pop(0) if len(found) > 1 else found[0]).split()


def counts_as_public(address: IpAddress) -> bool:
    return is_public(address) or address == ipaddress.ip_address(OUTER)


def fetcher(*sites: Site, names: Names, timeout_s: float = 30.0) -> Fetcher:
    allow = [f"{host}:{site.port}" for site in sites for host in ("*.test", OUTER, INNER, "a.test")]
    settings = FetchUrlSettings(allow=tuple(allow), max_bytes=MAX_BYTES, timeout_s=timeout_s)
    return Fetcher(settings, names, counts_as_public)


async def fetched(script: Script, path: str = "/", *, timeout_s: float = 30.0) -> Page:
    async with counting_site(script) as site:
        return await fetcher(site, names=Names(a=[OUTER]), timeout_s=timeout_s).fetch(
            f"http://a.test:{site.port}{path}"
        )


async def code_of(script: Script, path: str = "/", *, timeout_s: float = 30.0) -> str:
    with pytest.raises(ToolError) as caught:
        await fetched(script, path, timeout_s=timeout_s)
    return caught.value.code


def saying(whole: bytes) -> Script:
    async def script(path: str) -> AsyncIterator[bytes]:  # noqa: ARG001  # the same everywhere
        yield whole

    return script


async def counting_down(path: str) -> AsyncIterator[bytes]:
    """Redirect from /3 to /2 to /1 to /0."""
    left = int(path.strip("/"))
    yield answer(b"there", f"Location: /{left - 1}", status="302 Found" if left else "200 OK")


async def test_a_page_comes_as_text_to_the_model() -> None:
    page = answer(b"<title>A &amp; B</title><script>x</script><p>One<p>Two <b>three</b>", content_type="text/html")
    async with counting_site(saying(page)) as site:
        settings = FetchUrlSettings(allow=(f"localhost:{site.port}",), allow_private_addresses=True)
        context = ToolContext(context_of(), run_id="run_1", call_id="call_1", idempotency_key="key", deadline=0.0)
        url = f"http://localhost:{site.port}/x?y=1#z"
        read = FetchedPage.model_validate(await fetch_url_tool(settings).call(context, {"url": url}))
    assert (read.title, read.text, read.truncated) == ("A & B", "One\nTwo three", False)
    assert read.content_type == "text/html"
    assert site.requests[0].startswith("GET /x?y=1 HTTP/1.1\r\n")


async def test_neither_cookies_nor_credentials_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.2:1")
    async with counting_site(saying(answer(b"x", "Set-Cookie: a=b"))) as site:
        one = fetcher(site, names=Names(a=[OUTER]))
        for _ in range(2):
            await one.fetch(f"http://a.test:{site.port}/")
    names = {line.partition(":")[0].lower() for head in site.requests for line in head.splitlines()[1:] if line}
    assert names == {"host", "user-agent", "accept", "accept-encoding"}
    assert len(site.requests) == 2


async def test_redirects_are_followed_five_times() -> None:
    page = await fetched(counting_down, "/5")
    assert page.body == b"there"
    assert page.url.endswith("/0")
    assert await code_of(counting_down, "/6") == "too_many_redirects"


@pytest.mark.parametrize("hops", [0, 2, 5])
@pytest.mark.parametrize("host", [INNER, "inner.test", "both.test", "[::ffff:127.0.0.2]", "2130706434", "0x7f.2"])
async def test_no_packet_follows_a_redirect_to_a_private_address(host: str, hops: int) -> None:
    names = Names(a=[OUTER], inner=[INNER], both=[f"{OUTER} {INNER}"])
    async with counting_site(nothing, INNER) as inner:

        async def script(path: str) -> AsyncIterator[bytes]:
            left = int(path.strip("/"))
            away = f"/{left - 1}" if left else f"http://{host}:{inner.port}/"
            yield answer(b"", f"Location: {away}", status="307 Temporary Redirect")

        async with counting_site(script) as outer:
            with pytest.raises(ToolError) as caught:
                await fetcher(outer, inner, names=names).fetch(f"http://a.test:{outer.port}/{hops}")
    assert caught.value.code in {"address_not_allowed", "invalid_url", "url_not_allowed", "too_many_redirects"}
    assert (caught.value.code == "too_many_redirects") is (hops == 5 and host in {INNER, "inner.test", "both.test"})
    assert (outer.accepts, inner.accepts) == (hops + 1, 0)


async def test_a_name_that_changes_its_address_is_connected_to_where_it_was_checked() -> None:
    async with counting_site(saying(answer(b"public"))) as outer, counting_site(nothing, INNER) as inner:
        names = Names(a=[OUTER, INNER])
        one = fetcher(outer, inner, names=names)
        assert (await one.fetch(f"http://a.test:{outer.port}/")).body == b"public"
        assert names.lookups == ["a.test"]
        with pytest.raises(ToolError) as caught:
            await one.fetch(f"http://a.test:{inner.port}/")
    assert caught.value.code == "address_not_allowed"
    assert (outer.accepts, inner.accepts) == (1, 0)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "0.0.0.0"],  # noqa: S104  # refused
)
async def test_no_packet_reaches_this_machine_even_where_the_list_names_it(host: str) -> None:
    async with counting_site(nothing) as site:
        settings = FetchUrlSettings(allow=(f"{host}:{site.port}",))
        with pytest.raises(ToolError) as caught:
            await Fetcher(settings).fetch(f"http://{host}:{site.port}/")
    assert caught.value.code == "address_not_allowed"
    assert site.accepts == 0


async def test_an_intranet_has_no_link_local_addresses() -> None:
    settings = FetchUrlSettings(allow=("169.254.169.254",), allow_private_addresses=True)
    with pytest.raises(ToolError) as caught:
        await Fetcher(settings).fetch("http://169.254.169.254/latest/meta-data/")
    assert caught.value.code == "address_not_allowed"


async def endless(path: str) -> AsyncIterator[bytes]:  # noqa: ARG001  # the same everywhere
    yield answer()
    for _ in range(ENDLESS):
        yield b"x" * 100_000
    raise AssertionError("all of it was read")


async def test_of_a_huge_page_the_beginning_is_read() -> None:
    page = await fetched(endless)
    assert (len(page.body), page.truncated) == (MAX_BYTES, True)


@pytest.mark.parametrize(("size", "truncated"), [(MAX_BYTES, False), (MAX_BYTES + 1, True)])
@pytest.mark.parametrize("packing", ["identity", "gzip"])
async def test_the_bound_is_exact(packing: str, size: int, *, truncated: bool) -> None:
    body = b"x" * size
    sent = gzip.compress(body) if packing == "gzip" else body
    page = await fetched(saying(answer(sent, f"Content-Encoding: {packing}")))
    assert (page.body, page.truncated) == (body[:MAX_BYTES], truncated)


async def test_a_gzip_bomb_does_not_go_off() -> None:
    bomb = answer(gzip.compress(b"\0" * 50_000_000), "Content-Encoding: gzip")
    tracemalloc.start()
    try:
        page = await fetched(saying(bomb))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (page.body, page.truncated) == (b"\0" * MAX_BYTES, True)
    assert peak_bytes < 10_000_000


async def test_a_page_that_only_drips_is_given_up() -> None:
    async def script(path: str) -> AsyncIterator[bytes]:  # noqa: ARG001  # the same everywhere
        for byte in answer(b"x" * ENDLESS):
            yield bytes([byte])
            await asyncio.sleep(0.05)
        raise AssertionError("all of it was read")

    assert await code_of(script, timeout_s=0.3) == "timeout"


@pytest.mark.parametrize(
    ("whole", "code"),
    [
        (answer(b"%PDF", content_type="application/pdf"), "unsupported_content"),
        (answer(b"x", "Content-Encoding: br"), "unsupported_content"),
        (answer(b"no gzip", "Content-Encoding: gzip"), "unsupported_content"),
        (answer(b"x", status="404 Not Found"), "http_status"),
        (answer(b"x", status="302 Found"), "http_status"),
        (answer(b"", "Location: file:///etc/passwd", status="302 Found"), "invalid_url"),
        (answer(b"", "Location: http://a:b@a.test/", status="302 Found"), "url_not_allowed"),
        (answer(b"", "Location: http://[", status="302 Found"), "invalid_url"),
        (answer(b"", "Location: /\xff", status="302 Found"), "too_many_redirects"),
        (answer(b"", "X: " + "x" * 100_000), "unreachable"),
        (b"SSH-2.0-OpenSSH\r\n", "unreachable"),
        (b"", "unreachable"),
    ],
)
async def test_what_is_no_page_is_an_error_in_words(whole: bytes, code: str) -> None:
    assert await code_of(saying(whole)) == code


async def test_a_server_with_a_certificate_of_its_own_making_is_sent_nothing(tmp_path: Path) -> None:
    files = issued_by(authority()).write(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.certificate, files.private_key)
    async with counting_site(nothing, tls=tls) as site:
        with pytest.raises(ToolError) as caught:
            await fetcher(site, names=Names(a=[OUTER])).fetch(f"https://a.test:{site.port}/")
    assert caught.value.code == "unreachable"
    assert site.requests == []


async def test_a_server_that_is_not_there() -> None:
    async with counting_site(nothing) as site:
        one = fetcher(site, names=Names(a=[OUTER]))
    with pytest.raises(ToolError) as caught:
        await one.fetch(f"http://a.test:{site.port}/")
    assert (caught.value.code, caught.value.retryable) == ("unreachable", True)
