"""`parley-server credentials`: the secrets of users that tools work with, also beside a running server."""

# ruff: noqa: PLC0415  # what a command needs is imported when it runs, so that `--help` is fast

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parley_server.commands.program import Refusal, load, run, with_config

if TYPE_CHECKING:
    from parley_server.tools.credentials.directory import CredentialDirectory

MAX_CHARS = 64 * 1024


def _user(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    from parley_server.domain.principal import SERVICE_PREFIX, is_service_id, is_user_id

    if text is not None and not (is_user_id(text) or is_service_id(text.removeprefix(SERVICE_PREFIX))):
        raise click.BadParameter(f"{text!r} is no user: write up to 128 of A-Z a-z 0-9 . _ @ + : -")
    return text


def _slot(_: click.Context, __: click.Parameter, text: str) -> str:
    from parley_server.tools.credentials.source import is_slot

    if not is_slot(text):
        # Not repeated: it may be the secret itself.
        raise click.BadParameter("a slot is the name tools ask for: up to 64 of a-z 0-9 _ -")
    return text


_of_user = click.option("--user", required=True, callback=_user, help="Whose it is.")
_of_slot = click.option("--slot", required=True, callback=_slot, help="The name under which tools ask for it.")


@click.group()
def credentials() -> None:
    """Store, list and delete the secrets of users that tools work with."""


@credentials.command("set")
@_of_user
@_of_slot
@with_config
def set_credential(user: str, slot: str, **where: Path | None) -> None:
    """Store a secret, read from standard input; tools have it from their next call on."""
    from pydantic import SecretStr

    secret = SecretStr(_read_secret())
    _record("credentials set", user, slot, where)
    _directory(where).put(user, slot, secret)


@credentials.command("list")
@click.option("--user", callback=_user, help="Whose; default: everybody's.")
@with_config
def list_credentials(user: str | None, **where: Path | None) -> None:
    """List what is stored: the user, the slot, and when it was; never the secret."""
    for stored in _directory(where).list(user or ""):
        click.echo(f"{stored.user_id}  {stored.slot}  stored {stored.update_time:%Y-%m-%dT%H:%MZ}")


@credentials.command("delete")
@_of_user
@_of_slot
@with_config
def delete_credential(user: str, slot: str, **where: Path | None) -> None:
    """Delete a secret; tools are without it from their next call on."""
    _record("credentials delete", user, slot, where)
    if not _directory(where).delete(user, slot):
        raise Refusal("this user has no secret of this slot; `parley-server credentials list` shows all")


def _directory(where: dict[str, Path | None]) -> "CredentialDirectory":
    from parley_server.tools.credentials.directory import CredentialDirectory

    settings = load(where["config"], where["data_dir"])
    return CredentialDirectory(settings.credentials.directory(settings.data_dir))


def _record(action: str, user: str, slot: str, where: dict[str, Path | None]) -> None:
    """Record what is about to be changed. Raises StartError, StorageUnavailableError: it must not be changed then."""
    from parley_server.composition.auditing import operator_entry, record_command

    entry = operator_entry(action, user_id=user, object_type="credential", object_id=slot)
    run(record_command(load(where["config"], where["data_dir"]), entry))


def _read_secret() -> str:
    if sys.stdin.isatty():
        entered: str = click.prompt("Secret", hide_input=True)
        return entered
    try:
        text = sys.stdin.read(MAX_CHARS + 1).removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        text = ""
    if not text.strip() or len(text) > MAX_CHARS:
        raise Refusal(f"give the secret on standard input: a text of at most {MAX_CHARS} characters")
    return text
