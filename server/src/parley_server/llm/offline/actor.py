"""Chooses the rule that answers and plays it: the offline model's whole wit."""

import json
import re
from dataclasses import dataclass

from pydantic import JsonValue

from parley_server.domain.tool import ToolCall
from parley_server.llm.offline.script import ANY_TOOL, Rule, Script
from parley_server.llm.offline.situation import Situation, ToolTurn
from parley_server.llm.offline.template import fill, fill_json
from parley_server.llm.tool_call_builder import new_call_id

# The offline model may share the server's event loop, which a long message must not hold up.
MAX_MATCHED_CHARACTERS = 2000

_NO_RULE = Rule(text="The offline model's script has no rule for this message.")


class _MissingValueError(Exception):
    """A template asks for what this situation does not have; the rule does not fit."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send. `rule` says how fast, and what goes wrong."""

    rule: Rule
    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]


def act(script: Script, situation: Situation) -> Answer:
    """Answer by the first rule that fits; when none does, say so."""
    for rule in script.rules:
        if not _fits(rule, situation):
            continue
        match = rule.when.search(situation.user_text[:MAX_MATCHED_CHARACTERS]) if rule.when else None
        if rule.when and not match:
            continue
        try:
            return _play(rule, _Values(rule, match, situation.tool_turn))
        except _MissingValueError:
            continue
    return Answer(_NO_RULE, _NO_RULE.text, "", ())


def _fits(rule: Rule, situation: Situation) -> bool:
    """Tell whether the rule answers such a turn, for this model, with tools that the request offers."""
    if rule.model is not None and not rule.model.search(situation.model):
        return False
    if not all(call.name in situation.offered_tools for call in rule.tool_calls):
        return False
    if situation.tool_turn is None:
        return rule.after_tool is None
    return rule.after_tool in {ANY_TOOL, situation.tool_turn.name}


def _play(rule: Rule, values: "_Values") -> Answer:
    calls = tuple(
        ToolCall(new_call_id(), call.name, json.dumps(fill_json(call.arguments, values.text_of), ensure_ascii=False))
        for call in rule.tool_calls
    )
    return Answer(rule, fill(rule.text, values.text_of), fill(rule.reasoning, values.text_of), calls)


class _Values:
    """The values of one rule's templates."""

    def __init__(self, rule: Rule, match: re.Match[str] | None, tool_turn: ToolTurn | None) -> None:
        self._rewrite = rule.rewrite
        self._groups = match.groupdict() if match else {}
        self._tool_turn = tool_turn

    def text_of(self, path: str) -> str:
        """Return the text that stands for a placeholder. Raises _MissingValueError."""
        name, *fields = path.split(".")
        if name in self._groups:
            return self._group(name)
        if self._tool_turn is None:
            raise _MissingValueError(path)
        if path == "tool_result":
            return self._tool_turn.result_text
        return _text_at(self._tool_turn.result if name == "tool_result" else self._tool_turn.arguments, fields)

    def _group(self, name: str) -> str:
        value = self._groups[name]
        if value is None:
            raise _MissingValueError(name)
        for pattern, replacement in self._rewrite.items():
            value = pattern.sub(replacement, value)
        return value.strip()


def _text_at(value: JsonValue, fields: list[str]) -> str:
    for field in fields:
        if not isinstance(value, dict) or field not in value:
            raise _MissingValueError(field)
        value = value[field]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
