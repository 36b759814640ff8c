"""Secrets that the operator gives to all users alike."""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from parley_server.tools.credentials.secret_file import read_secret_file
from parley_server.tools.credentials.source import CredentialsUnavailableError


class SharedCredentials:
    """Implements `CredentialSource`; `places` say where each slot's secret is: `file:PATH` or `env:NAME`."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    async def find(self, user_id: str, slot: str) -> SecretStr | None:  # noqa: ARG002  # it is all users'
        """Return what everybody has; see `CredentialSource.find`."""
        place = self._places.get(slot)
        if place is None:
            return None
        kind, _, name = place.partition(":")
        secret = await read_secret_file(Path(name)) if kind == "file" else _of_environment(name)
        if secret is None:
            raise CredentialsUnavailableError(f"[credentials] shared {slot}: there is nothing at {place}")
        return secret


def _of_environment(name: str) -> SecretStr | None:
    value = os.environ.get(name, "")
    return SecretStr(value) if value else None
