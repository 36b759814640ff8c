"""Secrets of users in files: `DIRECTORY/USER/SLOT`, written by `parley-server credentials` or mounted there."""

import asyncio
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr

from parley_server.domain.errors import StartError
from parley_server.tools.credentials.secret_file import read_now
from parley_server.tools.credentials.source import CredentialsUnavailableError, is_slot
from parley_server.tools.credentials.user_name import directory_name, user_of


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """That there is a secret, and since when. `user_id` is the directory's name where that does not tell it."""

    user_id: str
    slot: str
    update_time: datetime


class CredentialDirectory:
    """Implements `CredentialSource` over a directory, and what the command line does with it.

    Nothing outside of a user's own directory is ever read for him: neither by the name of a slot nor by a symbolic
    link. Links inside of it are followed, for that is how secrets are mounted.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def find(self, user_id: str, slot: str) -> SecretStr | None:
        """Read the user's file; see `CredentialSource.find`."""
        return await asyncio.to_thread(self._find, user_id, slot)

    def _find(self, user_id: str, slot: str) -> SecretStr | None:
        if not is_slot(slot):
            return None
        name = directory_name(user_id)
        try:
            own = (self._directory / name).resolve()
            file = (own / slot).resolve()
            is_inside = own.name == name and own.is_relative_to(self._directory.resolve()) and file.is_relative_to(own)
        except (OSError, RuntimeError):
            is_inside, file = False, self._directory / name / slot
        if not is_inside:
            raise CredentialsUnavailableError(f"{self._directory / name / slot}: leads out of its directory")
        return read_now(file)

    def put(self, user_id: str, slot: str, secret: SecretStr) -> None:
        """Store a secret in the place of what was there, whole or not at all, for the owner of the directory alone.

        Raises:
            StartError: it cannot be written.
        """
        own = self._directory / directory_name(user_id)
        draft = own / f".{slot}.{secrets.token_hex(8)}"
        try:
            _make_private(own)
            try:
                _write_private(draft, secret.get_secret_value())
                draft.replace(own / slot)
            finally:
                draft.unlink(missing_ok=True)
            _sync(own)
        except OSError as error:
            raise StartError(f"{own / slot}: cannot be written ({error.strerror}); check its rights") from error

    def delete(self, user_id: str, slot: str) -> bool:
        """Delete a secret; return whether there was one. Raises StartError."""
        file = self._directory / directory_name(user_id) / slot
        try:
            file.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StartError(f"{file}: cannot be deleted ({error.strerror}); check its rights") from error
        return True

    def delete_all(self, user_id: str) -> None:
        """Delete the user's directory with all that is in it. Raises StartError."""
        own = self._directory / directory_name(user_id)
        try:
            shutil.rmtree(own)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StartError(f"{own}: cannot be deleted ({error.strerror}); check its rights") from error

    def list(self, user_id: str = "") -> Iterator[StoredCredential]:
        """Yield what there is, of one user or of all, by user and slot."""
        names = [directory_name(user_id)] if user_id else sorted(_names_in(self._directory))
        for name in names:
            for slot in sorted(filter(is_slot, _names_in(self._directory / name))):
                changed = (self._directory / name / slot).stat().st_mtime
                yield StoredCredential(user_of(name) or name, slot, datetime.fromtimestamp(changed, UTC))


def _names_in(directory: Path) -> list[str]:
    return [entry.name for entry in directory.iterdir()] if directory.is_dir() else []


def _make_private(directory: Path) -> None:
    """Make a directory and what is missing above it, for the owner alone."""
    if not directory.parent.exists():
        _make_private(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)


def _write_private(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
