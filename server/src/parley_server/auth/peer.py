"""The other end of a call as the transport names it: `ipv4:127.0.0.1:40000`, `ipv6:%5B::1%5D:40000`, `unix:...`."""

import ipaddress
from urllib.parse import unquote

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

LOCAL_ORIGIN = "local"

_NETWORK_BITS = 64


def ip_address_of(peer: str) -> IpAddress | None:
    """Return the address of a TCP peer, a mapped IPv4 address as itself; None for any other peer."""
    family, _, address = peer.partition(":")
    if family not in {"ipv4", "ipv6"}:
        return None
    try:
        parsed = ipaddress.ip_address(unquote(address).rpartition(":")[0].strip("[]"))
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def is_local(peer: str) -> bool:
    """Tell whether a call came over a unix socket, or over TCP from this machine."""
    # Asked for every call without a credential; parsing the commonest address would cost more than the call's checks.
    if peer.startswith(("ipv4:127.", "unix:", "unix-abstract:")):
        return True
    address = ip_address_of(peer)
    return address is not None and address.is_loopback


def origin_of(peer: str) -> str:
    """Return what callers have in common who are counted together.

    That is the IPv4 address, the /64 network of an IPv6 address, which is what one subscriber has, or LOCAL_ORIGIN for
    all unix sockets and loopback addresses. Peers that cannot be read are one origin as well.
    """
    if is_local(peer):
        return LOCAL_ORIGIN
    address = ip_address_of(peer)
    if address is None:
        return "unknown"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Address(int(address) >> _NETWORK_BITS << _NETWORK_BITS))
