"""What a line that begins with a slash means."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final


class SlashCommand(Enum):
    """The commands by the words that are typed."""

    HELP = "/help"
    NEW = "/new"
    CONVERSATIONS = "/conversations"
    RESUME = "/resume"
    AGENT = "/agent"
    TOOLS = "/tools"
    APPROVALS = "/approvals"
    ACCOUNT = "/account"
    USAGE = "/usage"
    QUIT = "/quit"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command and what was typed after it; `word` is the command as it was typed."""

    command: SlashCommand
    argument: str = ""
    word: str = ""


SUMMARIES: Final = {
    SlashCommand.HELP: "this help",
    SlashCommand.NEW: "begin a new conversation",
    SlashCommand.CONVERSATIONS: "list the latest conversations",
    SlashCommand.RESUME: "go on with one of them, by its number or id",
    SlashCommand.AGENT: "list the agents; with an id, talk to that one",
    SlashCommand.TOOLS: "list the tools of the agent; settle calls that may have happened or not",
    SlashCommand.APPROVALS: "list what waits for your approval; approve, always or deny NUMBER",
    SlashCommand.ACCOUNT: "show what you have told of yourself; set name, zone, locale or quiet hours",
    SlashCommand.USAGE: "what you have used, and what is left to you",
    SlashCommand.QUIT: "leave; Ctrl-D does the same",
}

VERBS: Final = {
    SlashCommand.TOOLS: {"settle": "NUMBER happened|not [NOTE]"},
    SlashCommand.APPROVALS: {
        "approve": "NUMBER [REASON]",
        "always": "NUMBER: every call of the tool in its conversation",
        "deny": "NUMBER [REASON]",
        "show": "NUMBER: all that it asks",
    },
    SlashCommand.ACCOUNT: {
        "name": "[NAME]",
        "zone": "[ZONE] such as Europe/Berlin",
        "locale": "[TAG] such as de-CH",
        "quiet": "[HH:MM-HH:MM]",
    },
}

_WITH_ARGUMENT: Final = {SlashCommand.RESUME, SlashCommand.AGENT}

_KEYS: Final = """\
1 2 3 4         answer what waits for your approval, while the line is empty
Enter           sends; while an answer comes, what you send waits for its turn
Alt-Enter       begins a new line; Esc, then Enter, does the same
Ctrl-C, Esc     stop an answer; a second Ctrl-C leaves the run to itself
Ctrl-C          clears what is typed; on an empty line, twice leaves
Ctrl-R          searches what was typed before"""


def help_text() -> str:
    """Return what /help shows."""
    commands = [f"{command.value:<15} {summary}" for command, summary in SUMMARIES.items()]
    return "\n".join([*commands, _KEYS])


def slash_command(text: str) -> Invocation | None:
    """Read what was sent; None when it is a message. `/etc/hosts` and `/help me` are messages."""
    word, _, argument = text.strip().partition(" ")
    if not re.fullmatch(r"/[a-z]+", word) or "\n" in text.strip():
        return None
    known = {command.value: command for command in SUMMARIES}
    command = known.get(word, SlashCommand.UNKNOWN)
    words = argument.split()
    if command not in VERBS and (len(words) > 1 or (words and command not in _WITH_ARGUMENT)):
        return None
    return Invocation(command, argument.strip(), word)
