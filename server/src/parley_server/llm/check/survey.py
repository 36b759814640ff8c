"""Asks one model of one server the small questions, and keeps what they show."""

import json
from dataclasses import dataclass, field

from parley_server.llm.check.asker import Answer, Asker
from parley_server.llm.check.questions import (
    COUNT,
    COUNT_LIMIT,
    HELLO,
    ROOM,
    SCHEMA_KEYS,
    STOP_AT,
    JsonObject,
    image_question,
    question,
    schema_format,
    tool_question,
    tool_results,
)
from parley_server.llm.model_service import FinishReason
from parley_server.llm.profile_settings import MaxTokensField, ReasoningReplay, ResponseFormat, SystemRole
from parley_server.llm.provider_profiles import ProviderProfile

_WINDOWS = ("context_window", "context_length", "max_model_len", "max_context_length")


@dataclass(slots=True)
class Findings:
    """What a server showed; None where it did not show it."""

    status: int = 0
    listed_models: int | None = None
    is_listed: bool | None = None
    hello: Answer = field(default_factory=lambda: Answer(0))
    has_usage_unasked: bool = False
    stream_options: bool | None = None
    has_usage: bool = False
    limits_kept: tuple[MaxTokensField, ...] = ()
    limits_refused: tuple[MaxTokensField, ...] = ()
    system_role_refused: SystemRole | None = None
    sampling: bool | None = None
    stop: bool | None = None
    is_stop_ignored: bool = False
    seed: bool | None = None
    tools: bool | None = None
    calls_at_once: int = 0
    replay_reasoning: ReasoningReplay | None = None
    reasoning_field: str = ""
    response_format: ResponseFormat | None = None
    format_beside_tools: bool | None = None
    images: bool | None = None
    context_window: int | None = None

    @property
    def is_usable(self) -> bool:
        """Whether the model answers at all; without that nothing else was asked."""
        return self.hello.is_good


async def survey(asker: Asker, model: str, profile: ProviderProfile) -> Findings:
    """Ask everything; at most MAX_QUESTIONS questions."""
    findings = Findings()
    await _list(asker, model, findings)
    findings.hello = await asker.ask(question(model, HELLO))
    findings.status = findings.hello.status
    if not findings.is_usable:
        return findings
    findings.has_usage_unasked = findings.hello.has_usage
    surveyor = _Surveyor(asker, model, profile, findings)
    await surveyor.ask_all()
    return findings


async def _list(asker: Asker, model: str, findings: Findings) -> None:
    status, entries = await asker.models()
    if status != 200:
        return
    findings.listed_models = len(entries)
    names = (model, f"models/{model}", f"{model}:latest")
    entry = next((entry for entry in entries if entry.get("id") in names), None)
    findings.is_listed = entry is not None
    windows = (entry.get(name) for name in _WINDOWS) if entry is not None else ()
    findings.context_window = next((each for each in windows if isinstance(each, int) and each > 0), None)


class _Surveyor:
    """Asks one thing after the other; whatever can be limited is, once it is known how."""

    def __init__(self, asker: Asker, model: str, profile: ProviderProfile, findings: Findings) -> None:
        self._asker = asker
        self._model = model
        self._profile = profile
        self._found = findings
        self._room: JsonObject = {}

    async def ask_all(self) -> None:
        await self._usage()
        await self._limits()
        await self._system_role()
        await self._options()
        await self._tools()
        await self._formats()
        await self._images()

    async def _ask(self, text: str, **options: object) -> Answer:
        return await self._asker.ask(question(self._model, text, **{**self._room, **options}))

    async def _usage(self) -> None:
        answer = await self._ask(HELLO, stream_options={"include_usage": True})
        self._found.stream_options = _is_taken(answer)
        self._found.has_usage = answer.has_usage

    async def _limits(self) -> None:
        fields: tuple[MaxTokensField, ...] = ("max_completion_tokens", "max_tokens")
        for name in fields:
            answer = await self._ask(COUNT, **{name: COUNT_LIMIT})
            if answer.is_refused:
                self._found.limits_refused += (name,)
            elif answer.finish is FinishReason.LENGTH:
                self._found.limits_kept += (name,)
        if self._found.limits_kept:
            self._room = {self._found.limits_kept[0]: ROOM}

    async def _system_role(self) -> None:
        role = self._profile.system_role
        body = question(self._model, HELLO, **self._room)
        messages = [{"role": role, "content": "Be brief."}, {"role": "user", "content": HELLO}]
        if (await self._asker.ask({**body, "messages": messages})).is_refused:
            self._found.system_role_refused = role

    async def _options(self) -> None:
        self._found.sampling = _is_taken(await self._ask(HELLO, temperature=0.5))
        stopped = await self._ask(COUNT, stop=[STOP_AT])
        if stopped.is_refused:
            self._found.stop = False
        elif stopped.is_good and "5 6" in stopped.text:
            self._found.is_stop_ignored = STOP_AT in stopped.text
            self._found.stop = None if self._found.is_stop_ignored else True
        if self._profile.seed_field != "none":
            self._found.seed = _is_taken(await self._ask(HELLO, **{self._profile.seed_field: 7}))

    async def _tools(self) -> None:
        answer = await self._asker.ask(tool_question(self._model, **self._room))
        self._found.calls_at_once = len(answer.calls)
        self._found.reasoning_field = answer.reasoning_field or self._found.hello.reasoning_field
        if answer.calls:
            self._found.tools = True
            await self._replay(answer)
        elif answer.is_refused:
            self._found.tools = False

    async def _replay(self, called: Answer) -> None:
        calls: list[JsonObject] = [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}
            for call in called.calls
        ]
        without = await self._asker.ask(tool_results(self._model, calls, {}, **self._room))
        if without.is_good:
            self._found.replay_reasoning = "never"
        elif without.is_refused and called.reasoning:
            replayed: JsonObject = {called.reasoning_field: called.reasoning}
            answer = await self._asker.ask(tool_results(self._model, calls, replayed, **self._room))
            self._found.replay_reasoning = "tool_calls" if answer.is_good else None

    async def _formats(self) -> None:
        answer = await self._ask("Name a city.", response_format=schema_format())
        if _fits(answer):
            self._found.response_format = "json_schema"
            await self._format_beside_tools()
            return
        text = 'Name a city. Answer in JSON: {"city": ..., "country": ...}'
        answer = await self._ask(text, response_format={"type": "json_object"})
        if answer.is_good or answer.is_refused:
            self._found.response_format = "json_object" if _fits(answer) else "none"

    async def _format_beside_tools(self) -> None:
        if self._found.tools:
            answer = await self._asker.ask(tool_question(self._model, response_format=schema_format(), **self._room))
            if answer.is_good or answer.is_refused:
                self._found.format_beside_tools = bool(answer.calls)

    async def _images(self) -> None:
        answer = await self._asker.ask(image_question(self._model, **self._room))
        if answer.is_refused:
            self._found.images = False
        elif answer.is_good and "red" in answer.text.lower():
            self._found.images = True


def _is_taken(answer: Answer) -> bool | None:
    if answer.is_good:
        return True
    return False if answer.is_refused else None


def _fits(answer: Answer) -> bool:
    try:
        value: object = json.loads(answer.text)
    except ValueError:
        return False
    return isinstance(value, dict) and value.keys() == SCHEMA_KEYS
