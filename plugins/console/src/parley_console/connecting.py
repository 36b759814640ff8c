"""From the command line's words to a client."""

from typing import Final

import click
import grpc
from parley_client import ParleyClient, ReconnectLimits

from parley_console.connection import Connection
from parley_console.version import VERSION

# Somebody waits at a terminal: a server that is not there is told soon.
_LIMITS: Final = ReconnectLimits(connect_for_s=3.0)


def client_for(connection: Connection) -> ParleyClient:
    """Build a client that is not open yet. Raises click.UsageError when the connection would not be safe."""
    tls: bool | grpc.ChannelCredentials = connection.tls
    if connection.root_certificates is not None:
        tls = grpc.ssl_channel_credentials(connection.root_certificates.read_bytes())
    try:
        return ParleyClient(
            connection.target,
            connection.api_key,
            tls=tls,
            client_name="parley-console",
            client_version=VERSION,
            reconnect=_LIMITS,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
