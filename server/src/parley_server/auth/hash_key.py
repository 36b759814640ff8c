"""The key of the keyed hashes: without it the stored hashes of secrets are of no use to a thief of the database."""

import hashlib
import os
import secrets
from pathlib import Path

from parley_server.domain.errors import StartError

DEFAULT_FILE_NAME = "auth_hash_key"
MIN_CHARACTERS = 32


def load_hash_key(configured: str | None, file: Path | None, data_dir: Path) -> bytes:
    """Return the 32-byte hash key: from the settings, else from `file`, else from a file made in `data_dir`.

    Raises:
        StartError: the key is too short, or its file cannot be read or made.
    """
    if configured is not None:
        return _derive(configured, "[auth] hash_key")
    if file is None:
        file = data_dir / DEFAULT_FILE_NAME
        _make_once(file)
    return _derive(_read(file), str(file))


def _derive(text: str, origin: str) -> bytes:
    """Bring a key of any length to 32 bytes."""
    if len(text.strip()) < MIN_CHARACTERS:
        raise StartError(f"{origin} holds less than {MIN_CHARACTERS} characters; give it a long random text")
    return hashlib.blake2b(text.strip().encode(), digest_size=32, person=b"parley-hash-key").digest()


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{file}: the hash key cannot be read; check [auth] hash_key_file and its rights") from error


def _make_once(file: Path) -> None:
    """Make the file whole or not at all, readable for its owner only, and never over an existing one."""
    if file.exists():
        return
    draft = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_private(draft, secrets.token_hex(32))
        try:
            # A link, because a rename would replace the key that another process has just made.
            os.link(draft, file)
        except FileExistsError:
            return
        finally:
            draft.unlink()
    except OSError as error:
        raise StartError(f"{file}: the hash key cannot be made; check the rights of the directory") from error


def _write_private(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
