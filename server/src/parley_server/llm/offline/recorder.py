"""Records a real model's answers as a script: a proxy before it that writes a rule for every answer it passes on."""

import json
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import structlog
import yaml
from aiohttp import web
from pydantic import JsonValue, ValidationError

from parley_server.domain.tool import ToolCall
from parley_server.llm.chunk_builder import ChunkBuilder
from parley_server.llm.model_service import FinishReason, ModelChunk, ModelError, ReasoningChunk, TextChunk
from parley_server.llm.offline.actor import MAX_MATCHED_CHARACTERS
from parley_server.llm.offline.script import parse_script
from parley_server.llm.offline.situation import ChatRequest, Situation, situation_of
from parley_server.llm.sse import SseSplitter

MAX_REQUEST_BYTES = 32 * 1024 * 1024
# What a caller's key is and the like goes to the model's server and never into the script.
_PASSED_ON = ("Authorization", "Content-Type", "Accept")
_DEFAULT_ENDS = frozenset({FinishReason.STOP, FinishReason.TOOL_CALLS})

RuleContent = dict[str, JsonValue]

_log = structlog.get_logger(__name__)


class Recorder:
    """Serves what `upstream_url` serves and keeps `script_path` up to date: `async with Recorder(...) as recorder`.

    Only answers that are streamed and complete are recorded; asked the same again, the newer answer replaces the
    older. A script that is there already is added to. Raises ScriptError when it is none.
    """

    def __init__(self, upstream_url: str, script_path: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        self._upstream_url = upstream_url.rstrip("/")
        self._script_path = script_path
        self._host = host
        self._port = port
        self._rules = _read_rules(script_path)
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_route("*", "/v1/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        self._client: aiohttp.ClientSession | None = None

    @property
    def base_url(self) -> str:
        """The address for `[model] base_url`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._runner.addresses[0][1]}/v1"

    async def __aenter__(self) -> Self:
        """Start to listen. Raises OSError when the address cannot be had."""
        self._client = aiohttp.ClientSession(auto_decompress=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening."""
        await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    async def _pass_on(self, http: web.Request) -> web.StreamResponse:
        if self._client is None:
            raise web.HTTPServiceUnavailable
        body = await http.read()
        headers = {name: http.headers[name] for name in _PASSED_ON if name in http.headers}
        url = f"{self._upstream_url}/{http.match_info['path']}"
        try:
            async with self._client.request(http.method, url, data=body or None, headers=headers) as answer:
                return await self._relay(http, answer, body)
        except aiohttp.ClientError as error:
            _log.warning("recording_failed", error=type(error).__name__)
            raise web.HTTPBadGateway(text="the recorded server cannot be reached") from error

    async def _relay(self, http: web.Request, answer: aiohttp.ClientResponse, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
        await response.prepare(http)
        splitter, builder = SseSplitter(), ChunkBuilder()
        chunks: list[ModelChunk] = []
        is_recorded = answer.status == 200 and answer.content_type == "text/event-stream"
        try:
            async for read in answer.content.iter_any():
                await response.write(read)
                if is_recorded:
                    chunks += builder.feed(splitter.feed(read))
            if is_recorded:
                chunks += builder.feed(splitter.finish())
                self._record(body, chunks, builder)
        except ModelError as error:
            _log.warning("answer_not_recorded", reason=error.reason)
        return response

    def _record(self, body: bytes, chunks: list[ModelChunk], builder: ChunkBuilder) -> None:
        finish = builder.finish()
        try:
            situation = situation_of(ChatRequest.model_validate_json(body))
        except ValidationError:
            _log.warning("request_not_recorded")
            return
        rule = _question(situation) | _answer(chunks, finish.tool_calls)
        if finish.reason not in _DEFAULT_ENDS:
            rule["finish_reason"] = finish.reason.value
        self._rules[_key(rule)] = rule
        _write(self._script_path, list(self._rules.values()))
        _log.info("answer_recorded", rules=len(self._rules))


def _question(situation: Situation) -> RuleContent:
    """Write what was asked as the conditions of a rule that fits this and nothing else."""
    text = situation.user_text
    end = r"\Z" if len(text) <= MAX_MATCHED_CHARACTERS else ""
    rule: RuleContent = {"when": rf"\A{re.escape(text[:MAX_MATCHED_CHARACTERS])}{end}"}
    if situation.tool_turn is not None:
        rule["after_tool"] = situation.tool_turn.name
    return rule


def _key(rule: RuleContent) -> str:
    """Return what tells a rule from others: its conditions."""
    return json.dumps({name: rule[name] for name in ("when", "model", "after_tool") if name in rule}, sort_keys=True)


def _answer(chunks: list[ModelChunk], tool_calls: tuple[ToolCall, ...]) -> RuleContent:
    """Write what was answered as the texts of a rule, braces doubled: they are no placeholders."""
    rule: RuleContent = {}
    for name, kind in (("text", TextChunk), ("reasoning", ReasoningChunk)):
        joined = "".join(chunk.text for chunk in chunks if isinstance(chunk, kind))
        if joined or (name == "text" and not tool_calls):
            rule[name] = _literal(joined)
    if tool_calls:
        rule["tool_calls"] = [{"name": call.name, "arguments": _arguments(call)} for call in tool_calls]
    return rule


def _arguments(call: ToolCall) -> JsonValue:
    try:
        arguments: JsonValue = json.loads(call.arguments_json)
    except ValueError:
        return {}
    return _literal_json(arguments) if isinstance(arguments, dict) else {}


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _literal_json(value: JsonValue) -> JsonValue:
    match value:
        case str():
            return _literal(value)
        case list():
            return [_literal_json(element) for element in value]
        case dict():
            return {name: _literal_json(element) for name, element in value.items()}
        case _:
            return value


def _read_rules(path: Path) -> dict[str, RuleContent]:
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    parse_script(text, path.name)
    rules: list[RuleContent] = yaml.safe_load(text)["rules"]
    return {_key(rule): rule for rule in rules}


def _write(path: Path, rules: list[RuleContent]) -> None:
    """Replace the script whole: whoever reads it meanwhile sees the one before."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    text = yaml.safe_dump({"rules": rules}, allow_unicode=True, sort_keys=False, width=120)
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
