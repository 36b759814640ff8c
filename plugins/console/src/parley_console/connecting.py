"""From the command line's words to a client."""

from typing import Final

import click
from parley_client import ParleyClient, ReconnectLimits, TlsFiles

from parley_console.connection import Connection
from parley_console.version import VERSION

# Somebody waits at a terminal: a server that is not there is told soon.
_LIMITS: Final = ReconnectLimits(connect_for_s=3.0)


def client_for(connection: Connection) -> ParleyClient:
    """Build a client that is not open yet.

    Raises click.UsageError when the connection would not be safe, or its certificates cannot be used.
    """
    try:
        return ParleyClient(
            connection.target,
            connection.api_key,
            tls=_tls(connection),
            client_name="parley-console",
            client_version=VERSION,
            reconnect=_LIMITS,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _tls(connection: Connection) -> TlsFiles | None:
    """Return what the command line says of TLS, completed by the environment; None when it says nothing."""
    given = TlsFiles(connection.root_certificates, connection.client_certificate, connection.client_key)
    return given.completed() if connection.tls or given != TlsFiles() else None
