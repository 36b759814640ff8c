"""`parley tools`: what agents can call, and what came of their calls, from a shell."""

from typing import TYPE_CHECKING, Final

import click

from parley_console.connection import Connection
from parley_console.connection_options import connection_options
from parley_console.exit_codes import ExitCode

if TYPE_CHECKING:
    from parley_client import ParleyClient

    from parley_console.lines import Lines

_HOW: Final = "`parley tools settle ID happened|not` tells it"


@click.group(invoke_without_command=True)
@click.option("--agent", default="", metavar="ID", help="The tools of this agent alone.")
@connection_options
@click.pass_context
def tools(context: click.Context, agent: str) -> int:
    """List the tools, and the calls of which nobody knows whether they happened."""
    if context.invoked_subcommand is not None:
        return ExitCode.OK
    from parley_console.one_command import run_command  # noqa: PLC0415 - gRPC is not for --help
    from parley_console.tool_commands import ToolCommands  # noqa: PLC0415

    connection = context.ensure_object(Connection)
    return run_command(connection, lambda client, lines: ToolCommands(client, lines, how=_HOW).show(agent))


@tools.command()
@click.argument("call_id", metavar="ID")
@click.argument("outcome", type=click.Choice(["happened", "not"]))
@click.option("--note", default="", help="What the model shall know besides.")
@connection_options
@click.pass_context
def settle(context: click.Context, call_id: str, outcome: str, note: str) -> int:
    """Say of a call whether it happened; the model is told from the next run on."""
    from parley_console.one_command import run_command  # noqa: PLC0415 - as above
    from parley_console.tool_commands import ToolCommands  # noqa: PLC0415

    async def settle_or_refuse(client: "ParleyClient", lines: "Lines") -> None:
        if not await ToolCommands(client, lines, how=_HOW).settle(call_id, outcome, note):
            raise click.UsageError(f"no call {call_id} is in doubt")

    return run_command(context.ensure_object(Connection), settle_or_refuse)


@tools.command()
@click.argument("result_id", metavar="ID")
@connection_options
@click.pass_context
def result(context: click.Context, result_id: str) -> int:
    """Print the whole of a result that was too large to be shown, as JSON."""
    from parley_console.one_command import run_command  # noqa: PLC0415 - as above
    from parley_console.tool_commands import ToolCommands  # noqa: PLC0415

    connection = context.ensure_object(Connection)
    return run_command(connection, lambda client, lines: ToolCommands(client, lines, how=_HOW).print_result(result_id))
