"""Which URLs and which addresses may be asked."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.tools.builtin.fetching.addresses import is_public, is_public_or_private
from parley_server.tools.builtin.fetching.allowed_hosts import AllowedHost
from parley_server.tools.builtin.fetching.target import target_of
from parley_server.tools.errors import ToolError
from parley_server.tools.tool_settings import FetchUrlSettings
from pydantic import ValidationError

ALLOWED = tuple(
    map(AllowedHost.parse, ("example.com", "*.example.org", "example.net:8443", "192.0.2.1", "[2001:db8:0::1]:8080"))
)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://example.com", "example.com", 80),
        ("HTTPS://EXAMPLE.COM/a?b=c#d", "example.com", 443),
        ("https://a.b.example.org/", "a.b.example.org", 443),
        ("http://example.net:8443/", "example.net", 8443),
        ("http://example.com:80/", "example.com", 80),
        ("http://\uff45xample.com/", "example.com", 80),
        ("http://192.0.2.1/", "192.0.2.1", 80),
        ("http://[2001:DB8:0::1]:8080/", "2001:db8::1", 8080),
    ],
)
def test_what_may_be_asked_is_asked_as_it_was_read(url: str, host: str, port: int) -> None:
    target = target_of(url, ALLOWED)
    assert (target.host, target.port, target.url.raw_host, target.url.port) == (host, port, host, port)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "http://badexample.org/",
        "http://example.com.evil.test/",
        "http://example.com:8080/",
        "https://example.com:80/",
        "http://example.net/",
        "http://user@example.com/",
        "http://user:word@example.com/",
        "http://example.com@evil.test/",
        "http://:@example.com/",
        "http://[v1.x]/",
        "http://\u0435xample.com/",
        "http://ex\u00e1mple.com/",
    ],
)
def test_what_is_not_on_the_list_is_not_asked(url: str) -> None:
    with pytest.raises(ToolError) as caught:
        target_of(url, ALLOWED)
    assert caught.value.code == "url_not_allowed"


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.com", "//example.com/", "/path", "http://", "http:///x", "http:example.com"),
        *("file:///etc/passwd", "ftp://example.com/", "gopher://example.com/", "data:text/plain,x", "javascript:1"),
        *("http://127.1/", "http://0x7f000001/", "http://2130706433/", "http://0177.0.0.1/", "http://127.0.0.0x1/"),
        *("http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::1/"),
        *("http://example.com./", "http://ex%61mple.com/", "http://example.com:99999/", "http://example.com:0x50/"),
        *(
            "http://example.com\\@evil.test/",
            "http://exa mple.com/",
            "http://example.com/\r\nX: y",
            "http://example.com\t/",
        ),
        *("http://example.com/\x00", "http://example.com/\ud800", " http://example.com/", "http://example..com/"),
        "http://example.com/" + "x" * 2048,
        f"http://{'x' * 64}.example.org/",
        f"http://{'x.' * 130}example.org/",
    ],
)
def test_what_is_no_url_of_a_page_is_refused(url: str) -> None:
    with pytest.raises(ToolError) as caught:
        target_of(url, ALLOWED)
    assert caught.value.code == "invalid_url"


@given(
    st.lists(
        st.sampled_from(
            ["http://", "https:", "//", "example.com", "evil.test", "@", ":", "80", "/", "\\", "?", "#", ".", "%", "["]
        )
        | st.text(max_size=3)
    )
)
def test_whatever_is_asked_has_a_host_of_the_list(parts: list[str]) -> None:
    try:
        target = target_of("http://" + "".join(parts), ALLOWED)
    except ToolError:
        return
    assert target.host == target.url.raw_host == target.url.host
    assert any(
        entry.matches(target.host, target.port, {"http": 80, "https": 443}[target.url.scheme]) for entry in ALLOWED
    )
    assert target.url.raw_authority in {target.host, f"{target.host}:{target.port}", f"[{target.host}]:{target.port}"}


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "*.",
        "EXAMPLE.com",
        "http://x.com",
        "a.com:0",
        "a.com:70000",
        "127.1",
        "*.1.2.3.4",
        "[::1%eth0]",
        "b\u00fccher.de",
        "a.*.com",
        "a/b",
    ],
)
def test_a_list_has_hosts_alone(entry: str) -> None:
    with pytest.raises(ValidationError):
        FetchUrlSettings(allow=(entry,))


def test_the_environment_writes_a_list_with_commas() -> None:
    assert FetchUrlSettings.model_validate({"allow": "a.com, *.b.com"}).allow == ("a.com", "*.b.com")
    assert not FetchUrlSettings().enabled


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001::1"])
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
    assert is_public_or_private(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "127.0.0.1", "127.255.0.1"),
        *("::1", "fc00::1", "fd12::1"),
    ],
)
def test_addresses_of_intranets(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert is_public_or_private(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3"),  # noqa: S104  # an address to refuse
        *("169.254.169.254", "192.0.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.1", "224.0.0.1"),
        *("239.1.1.1", "240.0.0.1", "255.255.255.255", "192.88.99.1", "::", "::ffff:8.8.8.8", "::ffff:127.0.0.1"),
        *("::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::", "2001::1"),
        *("2001:db8::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1", "100::1", "4000::1"),
    ],
)
def test_addresses_of_nobody_that_is_asked(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert not is_public_or_private(ipaddress.ip_address(address))
