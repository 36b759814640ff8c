"""A command that makes a few calls and is done."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from parley_client import ParleyClient, ParleyError

from parley_console.connecting import client_for
from parley_console.connection import Connection
from parley_console.early_reader import unless_reader_left
from parley_console.exit_codes import ExitCode
from parley_console.failure_text import call_failure
from parley_console.lines import Lines
from parley_console.outcome import exit_code_of_status
from parley_console.screen import Screen, Style


def run_command(connection: Connection, command: Callable[[ParleyClient, Lines], Awaitable[None]]) -> ExitCode:
    """Connect and let the command write to standard output; returns the exit code."""

    async def connected() -> ExitCode:
        async with client_for(connection) as client:
            try:
                await command(client, Screen(sys.stdout))
            except ParleyError as error:
                Screen(sys.stderr).line(f"parley: {call_failure(error, client.target)}", Style.RED)
                return exit_code_of_status(error.code)
        return ExitCode.OK

    return unless_reader_left(lambda: asyncio.run(connected()))
