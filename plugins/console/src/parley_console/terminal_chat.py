"""The chat at a real terminal."""

import asyncio
import sys

from parley_console.chat import Chat
from parley_console.connecting import client_for
from parley_console.connection import Connection
from parley_console.exit_codes import ExitCode
from parley_console.line_prompt import LinePrompt
from parley_console.screen import Screen


def run_chat(connection: Connection) -> ExitCode:
    """Connect, talk until the user leaves, and disconnect; returns the exit code."""

    async def chat() -> ExitCode:
        screen = Screen(sys.stdout)
        async with client_for(connection) as client:
            return await Chat(client, LinePrompt(screen), screen).run()

    try:
        return asyncio.run(chat())
    except asyncio.CancelledError:
        return ExitCode.CANCELLED
