"""What a line that begins with a slash means."""

import re
from enum import Enum
from typing import Final


class SlashCommand(Enum):
    """The commands, each with what /help says of it."""

    HELP = "/help"
    NEW = "/new"
    QUIT = "/quit"
    UNKNOWN = "unknown"


HELP: Final = """\
/help   this help
/new    begin a new conversation
/quit   leave; Ctrl-D does the same
Ctrl-C  clears the line; stops an answer; the second one leaves the run to itself"""


def slash_command(line: str) -> SlashCommand | None:
    """Read a line; None when it is a message. `/etc/hosts` and `/2` are messages."""
    word = line.strip()
    if not re.fullmatch(r"/[a-z]+", word):
        return None
    known = {command.value: command for command in SlashCommand}
    return known.get(word, SlashCommand.UNKNOWN)
