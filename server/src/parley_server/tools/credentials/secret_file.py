"""Reads files that hold one secret each, as it is at this moment: a file that is replaced counts from then on."""

import asyncio
import os
import stat
from pathlib import Path

from pydantic import SecretStr

from parley_server.tools.credentials.source import CredentialsUnavailableError

MAX_BYTES = 64 * 1024


async def read_secret_file(file: Path) -> SecretStr | None:
    """Return the secret without the line's end behind it; None where there is no file, or nothing in it.

    Raises:
        CredentialsUnavailableError: it cannot be read, or is no secret's.
    """
    return await asyncio.to_thread(read_now, file)


def read_now(file: Path) -> SecretStr | None:
    """Do as `read_secret_file` does, in the caller's thread."""
    try:
        with open(file, "rb", opener=_open_at_once) as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise CredentialsUnavailableError(f"{file}: is no file")
            return _secret_in(opened.read(MAX_BYTES + 1), file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CredentialsUnavailableError(f"{file}: cannot be read ({error.strerror})") from None


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for a writer, should it be a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _secret_in(content: bytes, file: Path) -> SecretStr | None:
    if len(content) > MAX_BYTES:
        raise CredentialsUnavailableError(f"{file}: is larger than {MAX_BYTES} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        # Not with the error as its cause, which holds the content.
        text = None
    if text is None:
        raise CredentialsUnavailableError(f"{file}: is no text in UTF-8")
    return SecretStr(text.removesuffix("\n").removesuffix("\r")) if text.strip() else None
