"""The chat at a real terminal."""

import asyncio
from dataclasses import replace

from parley_client import ParleyClient, ParleyError

from parley_console.chat import Chat, Opening
from parley_console.connecting import client_for
from parley_console.connection import Connection
from parley_console.exit_codes import ExitCode
from parley_console.failure_text import call_failure
from parley_console.greeting import greet
from parley_console.interrupts import Sigint, cancelling_this_task
from parley_console.outcome import exit_code_of_status
from parley_console.prompt_terminal import PromptTerminal
from parley_console.screen import Style


def run_chat(connection: Connection, opening: Opening) -> ExitCode:
    """Connect, talk until the user leaves, and disconnect; returns the exit code."""

    async def chat() -> ExitCode:
        async with client_for(connection) as client:
            return await chat_over(client, opening)

    try:
        return asyncio.run(chat())
    except asyncio.CancelledError:
        return ExitCode.CANCELLED


async def chat_over(client: ParleyClient, opening: Opening) -> ExitCode:
    """Greet and talk over an open client.

    Raises asyncio.CancelledError when Ctrl-C comes before the greeting.
    """
    sigint = Sigint()
    terminal = PromptTerminal(sigint)
    with sigint.installed():
        try:
            with sigint.heard_by(cancelling_this_task()):
                server = await client.server_info()
        except ParleyError as error:
            terminal.line(f"✗ {call_failure(error, client.target)}", Style.RED)
            return exit_code_of_status(error.code)
        agent = opening.agent or server.default_agent_id
        chat = Chat(client, terminal, sigint, replace(opening, agent=agent))
        async with terminal:
            greet(server, agent, terminal)
            code = await chat.run()
        chat.farewell()
        return code
