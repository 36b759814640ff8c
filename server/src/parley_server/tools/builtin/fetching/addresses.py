"""Which addresses may be connected to: those of the public internet, and on request those of an intranet."""

import ipaddress

from parley_server.tools.builtin.fetching.allowed_hosts import IpAddress

# All that is not in here is private, link-local, multicast, IPv4 in another form (mapped, NAT64) or nobody's yet.
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# 6to4 leads to whatever IPv4 address is in it; the second is where its packets used to be sent.
_6TO4 = ipaddress.ip_network("2002::/16")
_6TO4_RELAYS = ipaddress.ip_network("192.88.99.0/24")

_INTRANETS = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "::1/128"),
    )
)


def is_public(address: IpAddress) -> bool:
    """Tell whether an address is a host's on the public internet, in its plain form."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.is_global and address in _GLOBAL_UNICAST and address not in _6TO4
    return address.is_global and not address.is_multicast and address not in _6TO4_RELAYS


def is_public_or_private(address: IpAddress) -> bool:
    """Tell whether an address is public, of a private network or this machine's own; link-local ones never are."""
    return is_public(address) or any(address in network for network in _INTRANETS)
