"""The script of the offline model: what it answers to what, read from YAML. docs/offline-model.md is its manual."""

import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from parley_server.llm.offline.template import placeholders

ANY_TOOL = "*"
TOOL_VALUES = frozenset({"tool_result", "tool_arguments"})


class ScriptError(Exception):
    """A script that cannot be used; the message names each place that is wrong."""


def _compile(pattern: object) -> re.Pattern[str]:
    if not isinstance(pattern, str):
        raise ValueError("must be a regular expression in quotes")  # noqa: TRY004 - pydantic reports ValueErrors
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error


Regex = Annotated[re.Pattern[str], BeforeValidator(_compile)]
Milliseconds = Annotated[float, Field(ge=0, le=600_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScriptedCall(_Strict):
    """A tool call; strings in `arguments` are templates."""

    name: Annotated[str, Field(min_length=1)]
    arguments: dict[str, JsonValue] = {}


class Fault(_Strict):
    """What goes wrong with an answer; see the manual."""

    status: Annotated[int, Field(ge=400, le=599)] | None = None
    retry_after_s: Annotated[int, Field(ge=0)] | None = None
    cut_after_chunks: Annotated[int, Field(ge=0)] | None = None
    stall_s: Annotated[float, Field(ge=0, le=3600)] = 0.0
    garbage: str = ""


class Rule(_Strict):
    """When to answer, what, and how fast."""

    when: Regex | None = None
    model: Regex | None = None
    after_tool: Annotated[str, Field(min_length=1)] | None = None
    rewrite: dict[Regex, str] = {}
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ScriptedCall, ...] = ()
    finish_reason: Annotated[str, Field(min_length=1)] | None = None
    first_delay_ms: Milliseconds = 0.0
    chunk_delay_ms: Milliseconds = 0.0
    chunk_size: Annotated[int, Field(ge=1)] = 1
    chunk_unit: Literal["words", "characters"] = "words"
    fault: Fault = Fault()

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not (self.text or self.tool_calls or self.fault != Fault()):
            raise ValueError("needs a text, tool_calls or a fault")
        return self

    @model_validator(mode="after")
    def _asks_for_what_there_is(self) -> Self:
        groups = set(self.when.groupindex) if self.when else set()
        of_tool = TOOL_VALUES if self.after_tool else frozenset()
        asked = placeholders([self.text, self.reasoning, *(call.arguments for call in self.tool_calls)])
        unknown = sorted(name for name in asked - groups if name.partition(".")[0] not in of_tool)
        if unknown:
            raise ValueError(f"nothing gives {{{unknown[0]}}} a value: no such group in `when`, or no `after_tool`")
        return self


def _not_empty(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    if not rules:
        raise ValueError("needs at least one rule")
    return rules


class Script(_Strict):
    """The rules; the first that fits answers."""

    rules: Annotated[tuple[Rule, ...], AfterValidator(_not_empty)]


def load_script(path: Path | None = None) -> Script:
    """Read a script file; without one, the script that is shipped.

    Raises:
        ScriptError: it is no script.
        OSError: it cannot be read.
    """
    if path is not None:
        return parse_script(path.read_bytes(), path.name)
    shipped = resources.files("parley_server.llm.offline") / "default_script.yaml"
    return parse_script(shipped.read_bytes(), shipped.name)


def parse_script(text: str | bytes, source: str) -> Script:
    """Read a script from YAML; `source` names it in errors. Raises ScriptError."""
    try:
        content: object = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScriptError(f"{source}: not YAML: {error}") from error
    try:
        return Script.model_validate(content)
    except ValidationError as error:
        problems = [f"{source}: {_place(problem['loc'])}: {problem['msg']}" for problem in error.errors()]
        raise ScriptError("\n".join(problems)) from error


def _place(location: tuple[int | str, ...]) -> str:
    """Write a location as `rules[2].fault.status`."""
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return steps.removeprefix(".") or "the script"
