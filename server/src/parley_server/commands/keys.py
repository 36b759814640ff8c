"""`parley-server keys`: issue, list, rotate and revoke API keys; the public keys of delegation tokens."""

# ruff: noqa: PLC0415  # what a command needs is imported when it runs, so that `--help` is fast

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parley_server.commands.program import Refusal, load, run, with_config
from parley_server.domain.errors import NotFoundError

if TYPE_CHECKING:
    from parley_server.composition.admission import Keys
    from parley_server.domain.api_key import ApiKey

DEFAULT_LIFETIME = "90d"
_PAGE_SIZE = 200
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


def _key_id(_: click.Context, __: click.Parameter, text: str) -> str:
    """Refuse what is no id, without repeating it: it may be the whole key."""
    if re.fullmatch(r"[A-Za-z0-9-]{1,64}", text) is None:
        raise click.BadParameter("a key's id is its part between the first and the second _; `keys list` shows it")
    return text


@click.group()
def keys() -> None:
    """Issue, list, rotate and revoke API keys, also beside a running server."""


@keys.command("create")
@click.option("--user", help="The user the key is for.")
@click.option("--service", help="The service the key is for.")
@click.option("--act-as", multiple=True, help="Users the service may act for: a name, or its beginning and *.")
@click.option(
    "--scope",
    multiple=True,
    help="What the key may do; default: all but admin and those of tools; a service's lacks approvals:decide and "
    "account:erase too.",
)
@click.option("--expires", default=DEFAULT_LIFETIME, show_default=True, help="90d, 12h, 30m or never.")
@with_config
def create_key(
    user: str | None,
    service: str | None,
    act_as: tuple[str, ...],
    scope: tuple[str, ...],
    expires: str,
    **where: Path | None,
) -> None:
    """Issue a key and print it; it is shown here and nowhere else."""
    from parley_server.domain.principal import PrincipalKind

    if (user is None) == (service is None):
        raise click.UsageError("name either --user or --service")
    kind = PrincipalKind.SERVICE if user is None else PrincipalKind.USER
    lifetime = None if expires == "never" else _span(expires, "--expires", "90d, 12h, 30m or never")

    async def create() -> str:
        async with _keys(where) as administration:
            _, text = await administration.create(kind, user or service or "", scope, act_as, lifetime)
            return text

    click.echo(run(create()))


@keys.command("list")
@with_config
def list_keys(**where: Path | None) -> None:
    """List all keys, without their secrets."""
    from parley_server.storage.page import PageRequest

    async def listed() -> None:
        async with _keys(where) as administration:
            token = ""
            while True:
                page = await administration.list(PageRequest(_PAGE_SIZE, token))
                for key in page.items:
                    click.echo(_line(key, datetime.now(UTC)))
                token = page.next_token
                if not token:
                    return

    run(listed())


@keys.command("rotate")
@click.argument("key_id", callback=_key_id)
@click.option("--overlap", default="0", show_default=True, help="How long the old secret still works: 24h, at most 7d.")
@click.option("--expires", help="How long the key works from now on: 90d; default: as long as before.")
@with_config
def rotate_key(key_id: str, overlap: str, expires: str | None, **where: Path | None) -> None:
    """Give a key a new secret and print it; KEY_ID is what `keys list` shows first."""
    overlap_span = timedelta() if overlap == "0" else _span(overlap, "--overlap", "24h, 30m or 0")
    lifetime = None if expires is None else _span(expires, "--expires", "90d, 12h or 30m")

    async def rotate() -> str:
        async with _keys(where) as administration:
            _, text = await administration.rotate(key_id, overlap_span, lifetime)
            return text

    try:
        click.echo(run(rotate()))
    except NotFoundError as error:
        raise Refusal("no key in force has this id; one that is revoked or expired cannot be rotated") from error


@keys.command("revoke")
@click.argument("key_id", callback=_key_id)
@with_config
def revoke_key(key_id: str, **where: Path | None) -> None:
    """End a key; KEY_ID is what `keys list` shows first."""

    async def revoke() -> None:
        async with _keys(where) as administration:
            await administration.revoke(key_id)

    try:
        run(revoke())
    except NotFoundError as error:
        raise Refusal("no key has this id; `parley-server keys list` shows all") from error


@keys.command("public")
@with_config
def show_public_keys(config: Path | None, data_dir: Path | None) -> None:
    """Print the public keys by which others verify this installation's delegation tokens, as a JSON Web Key Set."""
    settings = load(config, data_dir)
    from parley_server.auth.delegation_signer import DelegationSigner
    from parley_server.composition.installation import hash_key_of, make_data_dir

    make_data_dir(settings)
    click.echo(f'{{"keys":[{DelegationSigner(hash_key_of(settings)).jwk_json()}]}}')


@asynccontextmanager
async def _keys(where: "dict[str, Path | None]") -> "AsyncIterator[Keys]":
    from parley_server.composition import admission

    async with admission.key_administration(load(where["config"], where["data_dir"])) as administration:
        yield administration


def _span(text: str, option: str, examples: str) -> timedelta:
    match = re.fullmatch(r"([1-9]\d{0,5})([dhm])", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no span; write {examples}", param_hint=option)
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _line(key: "ApiKey", now: datetime) -> str:
    """Say all that may be known of a key, on one line."""
    if key.revoke_time is not None:
        ends = f"revoked {_minute(key.revoke_time)}"
    elif key.expire_time is None:
        ends = "no expiry"
    else:
        ends = f"{'expires' if now < key.expire_time else 'expired'} {_minute(key.expire_time)}"
    words = [key.key_id, f"{key.kind.value}:{key.subject}", ",".join(sorted(key.scopes)), ends]
    words.append("never used" if key.last_use_time is None else f"used {_minute(key.last_use_time)}")
    if previous_end := key.previous_secret_end(now):
        words.append(f"old secret until {_minute(previous_end)}")
    if key.act_as:
        words.append(f"act as {','.join(key.act_as)}")
    return "  ".join(words)


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%MZ}"
