"""Writes an answer in the chat-completions form: whole, or as the chunks of a stream."""

import re
import time
from collections.abc import Iterator

import msgspec

from parley_server.domain.identifiers import new_id
from parley_server.llm.offline.actor import Answer
from parley_server.llm.offline.script import Rule
from parley_server.llm.offline.situation import ChatRequest

JsonObject = dict[str, object]

DONE = b"data: [DONE]\n\n"


class ChatAnswer:
    """One answer under one id. Its parts are made as they are asked for."""

    def __init__(self, request: ChatRequest, answer: Answer) -> None:
        self._answer = answer
        self._head = {"id": new_id("chatcmpl"), "created": int(time.time()), "model": request.model}
        self._usage = _usage(request, answer)
        self._finish_reason = answer.rule.finish_reason or ("tool_calls" if answer.tool_calls else "stop")

    def whole(self) -> JsonObject:
        """Return the body of an answer that is not streamed."""
        message: JsonObject = {"role": "assistant", "content": self._answer.text or None}
        if self._answer.reasoning:
            message["reasoning_content"] = self._answer.reasoning
        if self._answer.tool_calls:
            message["tool_calls"] = self._calls()
        choice = {"index": 0, "message": message, "finish_reason": self._finish_reason}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": self._usage}

    def opening(self) -> bytes:
        """Return the first event, which names the role alone."""
        return self._event(delta={"role": "assistant", "content": ""})

    def chunks(self) -> Iterator[bytes]:
        """Return the events that carry the answer, by the rule's chunk size; a tool call is two of them."""
        for piece in _pieces(self._answer.reasoning, self._answer.rule):
            yield self._event(delta={"reasoning_content": piece})
        for piece in _pieces(self._answer.text, self._answer.rule):
            yield self._event(delta={"content": piece})
        for index, call in enumerate(self._answer.tool_calls):
            function = {"name": call.name, "arguments": ""}
            head = {"index": index, "id": call.call_id, "type": "function", "function": function}
            tail = {"index": index, "function": {"arguments": call.arguments_json}}
            yield self._event(delta={"tool_calls": [head]})
            yield self._event(delta={"tool_calls": [tail]})

    def ending(self, *, with_usage: bool) -> bytes:
        """Return the events that end the stream."""
        finish = self._event(delta={}, finish_reason=self._finish_reason)
        usage = self._frame(choices=[], usage=self._usage) if with_usage else b""
        return finish + usage + DONE

    def _calls(self) -> list[JsonObject]:
        return [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}
            for call in self._answer.tool_calls
        ]

    def _event(self, delta: JsonObject, finish_reason: str | None = None) -> bytes:
        return self._frame(choices=[{"index": 0, "delta": delta, "finish_reason": finish_reason}])

    def _frame(self, **fields: object) -> bytes:
        chunk = {**self._head, "object": "chat.completion.chunk", **fields}
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def _pieces(text: str, rule: Rule) -> Iterator[str]:
    """Cut a text by the rule; the pieces join to it exactly."""
    atoms = re.findall(r"\s*\S+(?:\s+\Z)?|\s+\Z", text) if rule.chunk_unit == "words" else list(text)
    for start in range(0, len(atoms), rule.chunk_size):
        yield "".join(atoms[start : start + rule.chunk_size])


def _usage(request: ChatRequest, answer: Answer) -> JsonObject:
    """Count words, which is near enough for a model that has no tokens."""
    asked = sum(len(message.text.split()) for message in request.messages)
    answered = len(answer.text.split()) + sum(len(call.arguments_json.split()) for call in answer.tool_calls)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
