"""What a test plays by hand: a model and tools that do nothing until they are told to."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from parley_server.domain.content import text_of
from parley_server.domain.context import RequestContext
from parley_server.domain.tool import ApprovalRule, ToolEffect
from parley_server.llm.model_service import FinishChunk, ModelChunk, ModelRequest, UserMessage
from parley_server.tools.tool import JsonObject, Tool, ToolContext
from unit.tools.made_tools import made_tool

EFFECTS = {
    "read": ToolEffect.READ,
    "put": ToolEffect.IDEMPOTENT,
    "book": ToolEffect.WRITE,
    "pay": ToolEffect.WRITE,
}
# What happens at most once; before the last of them the user is asked.
WRITES = ("book", "pay")
Call = tuple[str, int]


class Question:
    """One open stream of the model."""

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[ModelChunk | BaseException] = asyncio.Queue()
        self.is_idle = False

    def say(self, *chunks: ModelChunk | BaseException) -> None:
        """Let the model say something; an exception is raised there."""
        self.is_idle = False
        for chunk in chunks:
            self.chunks.put_nowait(chunk)

    async def next(self) -> ModelChunk | BaseException:
        self.is_idle = self.chunks.empty()
        return await self.chunks.get()


class PlayedModel:
    """Implements `ModelService`; `questions` are the open streams, by the run's label.

    That is what the run's input says, and what is added to it says before a colon.
    """

    def __init__(self) -> None:
        self.questions: dict[str, Question] = {}

    async def stream(self, context: RequestContext, request: ModelRequest) -> AsyncGenerator[ModelChunk]:  # noqa: ARG002
        said = [text_of(message.parts) for message in request.messages if isinstance(message, UserMessage)]
        assert len(said) == len(set(said)), f"asked twice over: {said}"
        label, question = said[-1].partition(":")[0], Question()
        assert label not in self.questions, "a run asks twice at a time"
        self.questions[label] = question
        try:
            while True:
                chunk = await question.next()
                if isinstance(chunk, BaseException):
                    raise chunk
                yield chunk
                if isinstance(chunk, FinishChunk):
                    return
        finally:
            del self.questions[label]

    async def aclose(self) -> None:
        """Nothing to close."""


@dataclass
class PlayedTools:
    """Tools that wait until they are told how to end; what has happened is counted, and by which keys."""

    happened: Counter[Call] = field(default_factory=Counter)
    keys: dict[Call, set[str]] = field(default_factory=dict)
    waiting: dict[Call, "asyncio.Future[bool]"] = field(default_factory=dict)

    def tools(self) -> list[Tool]:
        """Make `read`, `put`, `book` and `pay`; each call's `n` is its own in the whole test."""
        return [self._tool(name, effect) for name, effect in EFFECTS.items()]

    def _tool(self, name: str, effect: ToolEffect) -> Tool:
        # Of one engine: the next one's tools wait in a place of their own.
        waiting = self.waiting

        async def perform(context: ToolContext, arguments: JsonObject) -> object:
            number = arguments["n"]
            assert isinstance(number, int)
            call = (name, number)
            waiting[call] = told = asyncio.get_running_loop().create_future()
            self.keys.setdefault(call, set()).add(context.idempotency_key)
            try:
                takes_effect = await told
            finally:
                waiting.pop(call, None)
            if not takes_effect:
                raise RuntimeError("nothing happened")
            self.happened[call] += 1
            return {"done": number}

        approval = ApprovalRule.ALWAYS if name == "pay" else ApprovalRule.NEVER
        # Of which as many are under way as there are runs.
        return made_tool(name, perform, effect=effect, timeout_s=120, approval=approval, per_user_concurrency=64)

    def end(self, call: Call, *, takes_effect: bool) -> None:
        """Let a call end, with its effect or in a failure."""
        told = self.waiting.pop(call)
        if not told.done():
            told.set_result(takes_effect)
