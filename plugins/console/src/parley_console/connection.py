"""What the command line says of the server."""

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Connection:
    """Which server, and as whom; None leaves it to the environment and the defaults."""

    target: str | None = None
    api_key: str | None = None
    tls: bool = False
    root_certificates: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
