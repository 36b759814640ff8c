"""`parley account`: the account from a shell."""

from typing import TYPE_CHECKING

import click

from parley_console.connection import Connection
from parley_console.connection_options import connection_options
from parley_console.exit_codes import ExitCode

if TYPE_CHECKING:
    from parley_client import ParleyClient

    from parley_console.lines import Lines


@click.group(invoke_without_command=True)
@connection_options
@click.pass_context
def account(context: click.Context) -> int:
    """Show what you have told of yourself; set it, export all there is of you, or erase it."""
    if context.invoked_subcommand is not None:
        return ExitCode.OK
    return int(context.invoke(show))


@account.command()
@connection_options
@click.pass_context
def show(context: click.Context) -> int:
    """Show what you have told of yourself."""
    from parley_console.account_commands import AccountCommands  # noqa: PLC0415 - gRPC is not for --help
    from parley_console.one_command import run_command  # noqa: PLC0415

    connection = context.ensure_object(Connection)
    return run_command(connection, lambda client, lines: AccountCommands(client, lines).show())


@account.command("set")
@click.option("--name", help="How you want to be called; empty takes it back, as with the others.")
@click.option("--zone", metavar="ZONE", help="Your time zone, such as Europe/Berlin.")
@click.option("--locale", metavar="TAG", help="Your language, such as de-CH.")
@click.option("--quiet", metavar="HH:MM-HH:MM", help="When you want no notifications.")
@connection_options
@click.pass_context
def set_fields(
    context: click.Context, name: str | None, zone: str | None, locale: str | None, quiet: str | None
) -> int:
    """Change what is given, and nothing else."""
    from parley_console.account_commands import AccountCommands, quiet_hours_of  # noqa: PLC0415 - as above
    from parley_console.one_command import run_command  # noqa: PLC0415

    given = {"display_name": name, "time_zone": zone, "locale": locale}
    texts = {field: text for field, text in given.items() if text is not None}
    if not texts and quiet is None:
        raise click.UsageError("nothing to set: --name, --zone, --locale or --quiet")
    try:
        hours = quiet_hours_of(quiet) if quiet else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--quiet") from None
    connection = context.ensure_object(Connection)
    return run_command(
        connection, lambda client, lines: AccountCommands(client, lines).set(texts, hours, no_quiet_hours=quiet == "")
    )


@account.command()
@connection_options
@click.pass_context
def export(context: click.Context) -> int:
    """Print all that the server has of you, as lines of JSON."""
    from parley_console.account_commands import AccountCommands  # noqa: PLC0415 - as above
    from parley_console.one_command import run_command  # noqa: PLC0415

    connection = context.ensure_object(Connection)
    return run_command(connection, lambda client, lines: AccountCommands(client, lines).export())


@account.command()
@click.option("--user", metavar="USER", default="", help="Somebody else, for administrators.")
@click.option("--confirm", metavar="USER", help="Whom, written out; asked for at a terminal.")
@connection_options
@click.pass_context
def erase(context: click.Context, user: str, confirm: str | None) -> int:
    """Erase all that the server has of you, for good: conversations, notes, results and keys."""
    from parley_console.account_commands import AccountCommands  # noqa: PLC0415 - as above
    from parley_console.one_command import run_command  # noqa: PLC0415

    async def confirmed(client: "ParleyClient", lines: "Lines") -> None:
        commands = AccountCommands(client, lines)
        user_id = user or await commands.user_id()
        typed = confirm or click.prompt(f"This erases all of {user_id}, for good. To go on, type {user_id}", type=str)
        if typed != user_id:
            raise click.UsageError(f"nothing is erased: {typed!r} is not {user_id}")
        await commands.erase(user_id, typed)

    return run_command(context.ensure_object(Connection), confirmed)
