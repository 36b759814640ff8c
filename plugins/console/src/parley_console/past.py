"""What was said before: shown when a conversation is resumed."""

from collections import deque
from typing import Final

from parley.v1.conversation_pb2 import Message
from parley.v1.run_pb2 import RUN_STATE_CANCELLING, RUN_STATE_QUEUED, RUN_STATE_RUNNING, RUN_STATE_WAITING_APPROVAL
from parley_client import ParleyClient

from parley_console.live_display import LiveDisplay
from parley_console.screen import Style
from parley_console.terminal import Terminal
from parley_console.tool_line import call_text
from parley_console.turn import Turn

_SHOWN_MESSAGES: Final = 8
_PAGE: Final = 1000
_UNFINISHED: Final = (RUN_STATE_QUEUED, RUN_STATE_RUNNING, RUN_STATE_WAITING_APPROVAL, RUN_STATE_CANCELLING)


async def show_past(client: ParleyClient, conversation_id: str, terminal: Terminal) -> list[Turn]:
    """Show the last messages; returns the turns that are under way, in order, for their runs to be followed.

    Raises ParleyError when there is no such conversation.
    """
    runs = [run.run_id async for run in client.list_runs(conversation_id=conversation_id, states=_UNFINISHED)]
    asked = dict.fromkeys(reversed(runs), "")
    last: deque[Message] = deque(maxlen=_SHOWN_MESSAGES)
    earlier = -_SHOWN_MESSAGES
    async for message in client.conversations.messages(conversation_id, page_size=_PAGE):
        if message.run_id not in asked:
            last.append(message)
            earlier += 1
        elif message.HasField("user"):
            asked[message.run_id] = _user_text(message)
    if earlier > 0:
        terminal.line(f"… {earlier} earlier messages", Style.DIM)
    for message in last:
        _show(message, terminal)
    return [Turn(text, run_id=run_id) for run_id, text in asked.items()]


def _show(message: Message, terminal: Terminal) -> None:
    display = LiveDisplay(terminal)
    match message.WhichOneof("item"):
        case "user":
            Turn(_user_text(message)).echo(terminal)
        case "assistant":
            display.text(message.assistant.text or message.assistant.refusal)
            display.end_text()
        case "tool_call":
            call = message.tool_call
            terminal.line(f"⚙ {call_text(call.name, call.arguments_json)}", Style.DIM)
        case "summary":
            terminal.line(message.summary.text, Style.DIM)
        case _:
            return
    if message.incomplete:
        terminal.line("(cut short)", Style.DIM)


def _user_text(message: Message) -> str:
    return "\n".join(part.text for part in message.user.parts if part.text)
