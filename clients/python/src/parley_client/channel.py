"""The connection: where it goes, how it is kept alive, and when a key may travel on it."""

import ipaddress
import json
import re
from typing import Final

import grpc
from grpc import aio

_AGENT_SERVICE = "parley.v1.AgentService"

# Unary calls are repeatable: reads, request ids, etags. Streams re-attach by cursor instead.
_SERVICE_CONFIG: Final = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    {"service": _AGENT_SERVICE, "method": "RunAgent"},
                    {"service": _AGENT_SERVICE, "method": "WatchRun"},
                ]
            },
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            },
        ]
    }
)

_OPTIONS: Final[tuple[tuple[str, str | int], ...]] = (
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # The one that counts for a peer that is frozen and not gone.
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    # Somebody watches: a server that is back is found within two seconds.
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
    # With the probe on, a reader that stops has megabytes pushed into its memory.
    ("grpc.http2.bdp_probe", 0),
    # Room for a full google.rpc.Status in the trailers; the default drops it now and then from 8 KiB on.
    ("grpc.max_metadata_size", 16_384),
    ("grpc.absolute_max_metadata_size", 32_768),
    ("grpc.service_config", _SERVICE_CONFIG),
)

_UNIX_SCHEMES: Final = ("unix:", "unix-abstract:")


def open_channel(target: str, tls: bool | grpc.ChannelCredentials) -> aio.Channel:
    """Open a channel to `target` (`HOST:PORT` or `unix:PATH`). Call it inside the event loop that will use it."""
    options = [*_OPTIONS, ("grpc.enable_http_proxy", 0 if is_local(target) else 1)]
    if target.startswith(_UNIX_SCHEMES):
        # Or else the name to look for in the server's certificate is the socket's path.
        options.append(("grpc.default_authority", "localhost"))
    if tls is False:
        return aio.insecure_channel(target, options)
    return aio.secure_channel(target, grpc.ssl_channel_credentials() if tls is True else tls, options)


def require_private(target: str, *, api_key: str, tls: bool | grpc.ChannelCredentials) -> None:
    """Raise ValueError when an API key would cross a network in the clear."""
    if api_key and tls is False and not is_local(target):
        raise ValueError(f"an API key is not sent to {target} without TLS")


def is_local(target: str) -> bool:
    """Say whether `target` stays on this machine: a unix socket or a loopback address."""
    if target.startswith(_UNIX_SCHEMES):
        return True
    host = _host(re.sub(r"^(dns|ipv4|ipv6|passthrough):/*", "", target))
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(address: str) -> str:
    bracketed = re.fullmatch(r"\[([^\]]+)\](:\d+)?", address)
    if bracketed:
        return bracketed[1]
    return address.partition(":")[0] if address.count(":") == 1 else address
