"""`parley approvals`: answering from a shell."""

import click

from parley_console.connection import Connection
from parley_console.connection_options import connection_options
from parley_console.exit_codes import ExitCode


@click.group(invoke_without_command=True)
@connection_options
@click.pass_context
def approvals(context: click.Context) -> int:
    """List what waits for your approval, and answer it."""
    if context.invoked_subcommand is not None:
        return ExitCode.OK
    from parley_console.approval_commands import ApprovalCommands  # noqa: PLC0415 - gRPC is not for --help
    from parley_console.one_command import run_command  # noqa: PLC0415

    connection = context.ensure_object(Connection)
    return run_command(connection, lambda client, lines: ApprovalCommands(client, lines).show_pending())


@approvals.command()
@click.argument("approval_id", metavar="ID")
@connection_options
@click.pass_context
def show(context: click.Context, approval_id: str) -> int:
    """Show all that a tool asks."""
    from parley_console.approval_commands import ApprovalCommands  # noqa: PLC0415 - as above
    from parley_console.one_command import run_command  # noqa: PLC0415

    connection = context.ensure_object(Connection)
    return run_command(connection, lambda client, lines: ApprovalCommands(client, lines).show_one(approval_id))


@approvals.command()
@click.argument("approval_id", metavar="ID")
@click.option("--always", is_flag=True, help="And every later call of the tool in the conversation.")
@click.option("--reason", default="", help="Kept with the approval.")
@connection_options
@click.pass_context
def approve(context: click.Context, approval_id: str, always: bool, reason: str) -> int:
    """Let the tool be called; the run goes on by itself."""
    from parley_console.approval_commands import ApprovalCommands  # noqa: PLC0415 - as above
    from parley_console.one_command import run_command  # noqa: PLC0415

    connection = context.ensure_object(Connection)
    return run_command(
        connection,
        lambda client, lines: ApprovalCommands(client, lines).approve(approval_id, reason, always=always),
    )


@approvals.command()
@click.argument("approval_id", metavar="ID")
@click.option("--reason", default="", help="Kept with the approval, and told to the model.")
@connection_options
@click.pass_context
def deny(context: click.Context, approval_id: str, reason: str) -> int:
    """Keep the tool from being called; the run goes on by itself."""
    from parley_console.approval_commands import ApprovalCommands  # noqa: PLC0415 - as above
    from parley_console.one_command import run_command  # noqa: PLC0415

    connection = context.ensure_object(Connection)
    return run_command(connection, lambda client, lines: ApprovalCommands(client, lines).deny(approval_id, reason))
