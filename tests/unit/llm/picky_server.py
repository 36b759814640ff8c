"""A model server that takes what it is told to take, and refuses the rest as real ones do."""

import json
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web
from model_server import DONE, delta_frame, finish_frame, usage_frame

COUNT = " ".join(str(number) for number in range(1, 51))


@dataclass
class PickyServer:
    """Refuses the fields of `refuses` with 400; the others say what it does with those it takes."""

    refuses: frozenset[str] = frozenset()
    limits_by: tuple[str, ...] = ("max_tokens",)
    keeps_stop: bool = True
    calls: int = 2
    holds_schema: bool = True
    calls_beside_schema: bool = False
    makes_json: bool = True
    sees: bool = True
    sends_usage: str = "asked"
    reasoning_field: str = ""
    wants_reasoning: bool = False
    roles: frozenset[str] = frozenset({"system", "user", "assistant", "tool"})
    key: str = ""
    listed: tuple[str, ...] = ("m",)
    asked: int = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _models(self, http: web.Request) -> web.Response:
        self.asked += 1
        self._check_key(http)
        data = [{"id": name, "object": "model", "max_model_len": 4096} for name in self.listed]
        return web.json_response({"object": "list", "data": data})

    async def _complete(self, http: web.Request) -> web.Response:
        self.asked += 1
        self._check_key(http)
        body = await http.json()
        messages = body["messages"]
        if self.refuses & body.keys() or any(message["role"] not in self.roles for message in messages):
            raise web.HTTPBadRequest(text='{"error": {"message": "unknown field"}}')
        missing = [each for each in messages if "tool_calls" in each and not each.get(self.reasoning_field or "-")]
        if self.wants_reasoning and missing:
            raise web.HTTPBadRequest(text='{"error": {"message": "reasoning must be passed back"}}')
        return web.Response(body=self._answer(body), content_type="text/event-stream")

    def _check_key(self, http: web.Request) -> None:
        if self.key and http.headers.get("Authorization") != f"Bearer {self.key}":
            raise web.HTTPUnauthorized

    def _answer(self, body: dict[str, Any]) -> bytes:
        frames = b""
        if self.reasoning_field:
            frames += delta_frame(**{self.reasoning_field: "Hm."})
        asked = body["messages"][-1]["content"]
        may_call = self.calls_beside_schema or "response_format" not in body
        is_question = body["messages"][-1]["role"] == "user"
        calls = self._calls() if "tools" in body and is_question and may_call else []
        text, reason = self._text(body, asked), "stop"
        if calls:
            text, reason = "", "tool_calls"
        elif any(body.get(name, 1000) < len(text.split()) for name in self.limits_by):
            text, reason = text[:20], "length"
        frames += delta_frame(content=text, tool_calls=calls) + finish_frame(reason)
        with_usage = self.sends_usage == "always" or (self.sends_usage == "asked" and "stream_options" in body)
        return frames + (usage_frame(prompt_tokens=1, completion_tokens=1) if with_usage else b"") + DONE

    def _text(self, body: dict[str, Any], asked: object) -> str:
        if isinstance(asked, list):
            return "Red." if self.sees else "I see no image."
        kind = body.get("response_format", {}).get("type")
        if (kind == "json_schema" and self.holds_schema) or (kind == "json_object" and self.makes_json):
            return '{"city": "Oslo", "country": "Norway"}'
        if "Count" in str(asked):
            return COUNT.split(body["stop"][0])[0] if "stop" in body and self.keeps_stop else COUNT
        return "hello"

    def _calls(self) -> list[dict[str, object]]:
        return [
            {
                "index": number,
                "id": f"c{number}",
                "type": "function",
                "function": {"name": "temperature_of", "arguments": json.dumps({"city": "Oslo"})},
            }
            for number in range(self.calls)
        ]
