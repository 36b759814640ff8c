"""A model server that does what users' commands say, tells them all it was shown, and looks that over itself.

A command is the first word of the last thing the user has said; what follows it are his words. Whatever the command,
the answer ends with every canary that the request held: what the model was wrongly shown comes back to the user, too.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from isolation.canary import has_token, owners_in, words_in
from isolation.world import World
from model_server import DONE, delta_frame, finish_frame, text_frame, usage_frame

# The tool that a command calls with the words, and the name of its argument.
_TOOLS = {
    "keep": ("remember", "text"),
    "find": ("recall", ""),
    "big": ("recite", "words"),
    "ask": ("ask_first", "words"),
    "spend": ("spend", "words"),
    "refuse": ("refuse", "words"),
    "doubt": ("ponder", "words"),
    "look": ("read_result", "result_id"),
    "forget": ("forget_note", "note_id"),
    "fetch": ("desk_fetch", "words"),
    "whose": ("desk_whose", "words"),
    "protest": ("desk_protest", "words"),
    "linger": ("desk_linger", "words"),
    "hold": ("desk_hold", "words"),
    "hush": ("mute_fetch", "words"),
}
_BY_ID = {"look", "forget"}
# As many as the tool tells at once.
MOST_NOTES = 50
_SLOW_STEPS = 6
_SLOW_STEP_S = 0.02
_MOST_WORDS = 40


class EchoModel:
    """The server; `base_url` once it is open. What it is shown of two users at once is a leak in the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        self.base_url = ""

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self._look_over(raw)
        body: dict[str, Any] = json.loads(raw)
        command, words = _command_of(body)
        if command == "break":
            # What went wrong at the model may tell what it was asked.
            return web.Response(status=400, text=json.dumps({"error": {"message": " ".join(words_in(raw))}}))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        # Whoever asked may be dead by now.
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            for frame in _frames(body, raw, command, words):
                if command == "slow":
                    await asyncio.sleep(_SLOW_STEP_S)
                await response.write(frame)
        return response

    def _look_over(self, raw: bytes) -> None:
        self._world.scanned_bytes["model"] += len(raw)
        found = list(owners_in(raw))
        owners = {owner for owner, _ in found}
        for _, word in found:
            if word in self._world.secrets:
                self._world.leak("model request", f"has the secret {word}")
        if has_token(raw):
            self._world.leak("model request", f"has a token that acts for {', '.join(sorted(owners))}")
        if len(owners) > 1:
            self._world.leak("model request", f"words of {', '.join(sorted(owners))} together")


def _command_of(body: dict[str, Any]) -> tuple[str, str]:
    said = [message["content"] for message in body["messages"] if message["role"] == "user"]
    command, _, words = _text_of(said[-1] if said else "").partition(" ")
    return command, words


def _text_of(content: object) -> str:
    if isinstance(content, list):
        return " ".join(part.get("text", "") for part in content)
    return str(content)


def _frames(body: dict[str, Any], raw: bytes, command: str, words: str) -> Iterator[bytes]:
    offered = {tool["function"]["name"] for tool in body.get("tools", ())}
    name, argument = _TOOLS.get(command, ("", ""))
    if name in offered and body["messages"][-1]["role"] == "user":
        value = words.rpartition(" ")[2] if command in _BY_ID else words
        arguments = json.dumps({argument: value} if argument else {"limit": MOST_NOTES})
        call = {"index": 0, "id": "call_of_the_model", "function": {"name": name, "arguments": arguments}}
        yield delta_frame(tool_calls=[call])
        yield finish_frame("tool_calls")
    else:
        shown = words_in(raw)[:_MOST_WORDS]
        yield from (text_frame(f"part {step} ") for step in range(_SLOW_STEPS if command == "slow" else 1))
        yield text_frame(f"{command}: {' '.join(shown)}")
        yield finish_frame()
    yield usage_frame(prompt_tokens=1, completion_tokens=1)
    yield DONE
