"""The connection to a tool host."""

from pathlib import Path

import grpc

from parley_server.domain.errors import StartError
from parley_server.tools.remote.host_settings import ToolHostSettings

# A result of 4 MiB with what is around it.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024 + 64 * 1024

_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Nothing is sent twice behind the journal's back.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # As often as a server takes pings that has not been told to take more.
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.use_local_subchannel_pool", 1),
    # With the probe on, a host that sends without end has megabytes in our memory.
    ("grpc.http2.bdp_probe", 0),
)


def read_credentials(name: str, settings: ToolHostSettings) -> grpc.ChannelCredentials | None:
    """Return what a connection is encrypted with, None where it is not.

    Raises:
        StartError: a file of the settings does not serve.
    """
    if not settings.uses_tls:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=_pem(name, "tls_ca_file", settings.tls_ca_file, "CERTIFICATE"),
        private_key=_pem(name, "tls_private_key_file", settings.tls_private_key_file, "PRIVATE KEY"),
        certificate_chain=_pem(name, "tls_certificate_file", settings.tls_certificate_file, "CERTIFICATE"),
    )


def open_channel(settings: ToolHostSettings, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """Open the channel to a host. Call it inside the event loop that will use it."""
    options = [*_OPTIONS, ("grpc.enable_http_proxy", 0 if settings.is_local else 1)]
    if settings.target.startswith("unix:"):
        # Or else the name to look for in the host's certificate is the socket's path.
        options.append(("grpc.default_authority", "localhost"))
    if credentials is None:
        return grpc.aio.insecure_channel(settings.target, options)
    return grpc.aio.secure_channel(settings.target, credentials, options)


def _pem(name: str, key: str, path: Path | None, kind: str) -> bytes | None:
    if path is None:
        return None
    try:
        content = path.expanduser().read_bytes()
    except OSError as error:
        raise StartError(f"[tool_hosts.{name}] {key}: {path} cannot be read; check the file and its rights") from error
    if f"{kind}-----".encode() not in content:
        raise StartError(f"[tool_hosts.{name}] {key}: {path} holds no {kind.lower()} as PEM")
    return content
