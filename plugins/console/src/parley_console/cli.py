"""The command line. What only a command needs is imported when it runs."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import click

from parley_console.account_cli import account
from parley_console.approvals_cli import approvals
from parley_console.connection import Connection
from parley_console.connection_options import READABLE_FILE, Command, connection_options
from parley_console.durations import duration_s
from parley_console.exit_codes import ExitCode
from parley_console.question import read_schema, read_text
from parley_console.tools_cli import tools
from parley_console.version import VERSION

_PICK: Final = "?"  # no conversation has such an id


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    try:
        return int(parley.main(list(arguments), prog_name="parley", standalone_mode=False) or ExitCode.OK)
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except click.Abort:
        return ExitCode.CANCELLED
    except UnicodeEncodeError:  # the contract's strings are UTF-8, and what was given is not
        click.echo("Error: an argument is not UTF-8", err=True)
        return ExitCode.USAGE


def _conversation_options(*, may_pick: bool) -> Callable[[Command], Command]:
    """Add the options that say which agent and which conversation."""

    def add(command: Command) -> Command:
        for option in (
            click.option(
                "-r",
                "--resume",
                default="",
                is_flag=False,
                flag_value=_PICK if may_pick else None,
                metavar="[ID]" if may_pick else "ID",
                help="Go on with this conversation" + ("; without an id, pick one of the latest." if may_pick else "."),
            ),
            click.option("-c", "--continue", "continue_last", is_flag=True, help="Go on with the last conversation."),
            click.option("--agent", default="", metavar="ID", help="Agent to talk to [the server's default]."),
        ):
            command = option(command)
        return command

    return add


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@connection_options
@_conversation_options(may_pick=True)
@click.version_option(VERSION, prog_name="parley")
@click.pass_context
def parley(context: click.Context, agent: str, continue_last: bool, resume: str) -> int:
    """Talk to Parley's agents. Without a command: a chat, or `ask` when standard input is no terminal."""
    if context.invoked_subcommand is not None:
        if agent or continue_last or resume:
            raise click.UsageError(f"--agent, -c and -r stand after `{context.invoked_subcommand}`")
        return ExitCode.OK
    if sys.stdin is None or not sys.stdin.isatty():
        if resume == _PICK:
            raise click.UsageError("-r needs an id where there is no terminal to pick one")
        return ExitCode(context.invoke(ask, agent=agent, continue_last=continue_last, resume=resume))
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        raise click.UsageError("a chat needs a terminal; `parley ask` writes to files and pipes")
    from parley_console.chat import Opening  # noqa: PLC0415 - prompt_toolkit is for the chat alone
    from parley_console.terminal_chat import run_chat  # noqa: PLC0415

    opening = Opening(agent, continue_last, resume == _PICK, "" if resume == _PICK else resume)
    return run_chat(context.ensure_object(Connection), opening)


@parley.command()
@click.argument("words", metavar="[TEXT]", nargs=-1)
@_conversation_options(may_pick=False)
@click.option("--deadline", type=duration_s, metavar="TIME", help="Time the run may take: 90, 90s, 1.5m, 2h.")
@click.option(
    "--schema", type=READABLE_FILE, metavar="FILE", help="JSON Schema the answer has to fit; prints the JSON."
)
@click.option(
    "--approvals",
    type=click.Choice(["wait", "deny", "fail"]),
    help="When a tool needs your approval: wait for it, go on without the tool, or fail. "
    "[At a terminal you are asked; elsewhere: fail]",
)
@click.option("--json", "form", flag_value="OBJECT", help="Print one JSON object when the run has ended.")
@click.option("--stream-json", "form", flag_value="EVENT_LINES", help="Print every event as a line of JSON.")
@connection_options
@click.pass_context
def ask(  # noqa: PLR0913 - an option each
    context: click.Context,
    words: Sequence[str] = (),
    *,
    agent: str = "",
    continue_last: bool = False,
    resume: str = "",
    deadline: float | None = None,
    schema: Path | None = None,
    approvals: str | None = None,
    form: str | None = None,
) -> int:
    """Ask one question and print the answer alone. TEXT `-`, or no TEXT and a pipe: read standard input."""
    text = read_text(words)
    from parley_console.ask import Form, Question, run_ask  # noqa: PLC0415 - gRPC is not for --help
    from parley_console.unattended import OnApproval  # noqa: PLC0415

    on_approval = OnApproval(approvals) if approvals else None
    question = Question(text, agent, deadline, continue_last, resume, read_schema(schema), on_approval)
    return run_ask(context.ensure_object(Connection), question, Form[form or "TEXT"])


@parley.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion script of a shell: `eval "$(parley completion bash)"`."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - for this command alone

    of_shell = get_completion_class(shell)
    if of_shell is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(of_shell(parley, {}, "parley", "_PARLEY_COMPLETE").source())
    return ExitCode.OK


parley.add_command(account)
parley.add_command(approvals)
parley.add_command(tools)
