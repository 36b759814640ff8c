"""How the gRPC core is set up. Values were measured; the reasons are beside them."""

from parley_server.rpc.interceptors.exchange import MAX_METADATA_BYTES

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_DAY_MS = 24 * 60 * 60 * 1000

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    # Both ways: clients take no more by default, and what is larger belongs on a page or in a stream.
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Soft and hard limit alike, since between them the core refuses at random. The guard counts again, because the
    # core does not before the client has acknowledged the settings.
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    # Per connection; the client queues what is over it.
    ("grpc.max_concurrent_streams", 256),
    # Else the core lets every call send four megabytes before anybody asks for its message; what is asked for has room
    # all the same.
    ("grpc.http2.bdp_probe", 0),
    # While the event loop is held up calls queue here, and the core rejects what is over the limit as CANCELLED,
    # which no client retries.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.server_max_unrequested_time_in_server", 60),
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A vanished client is noticed within time + timeout; for a frozen one the ping's own timeout counts.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.ping_timeout_ms", 20_000),
    # Clients may keep their connections alive this often; the default ends them with GOAWAY.
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.max_connection_idle_ms", 900_000),
    ("grpc.max_connection_age_ms", 1_800_000),
    # No stream outlives its run, and no run a day.
    ("grpc.max_connection_age_grace_ms", _DAY_MS),
    # With it two servers could hold one port without a word.
    ("grpc.so_reuseport", 0),
)


def server_options(max_connections: int) -> tuple[tuple[str, int], ...]:
    """Return all of them, with a bound for the connections of one listener."""
    return (*SERVER_OPTIONS, ("grpc.max_allowed_incoming_connections", max_connections))
