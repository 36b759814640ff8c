"""Reads a tool off its function when the module is imported, and refuses what could not work, in clear words."""

import hashlib
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypedDict, TypeVar, cast, get_type_hints

from parley.v1 import tool_host_service_pb2 as pb
from parley.v1 import tool_pb2
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema

from parley_client.tool_host.call import ToolContext

MAX_TIMEOUT_S = 600.0

Effect = Literal["read", "idempotent", "write"]
A = TypeVar("A", bound=BaseModel)
ToolFunction = Callable[[ToolContext, A], Awaitable[BaseModel]]

_EFFECTS: dict[Effect, tool_pb2.ToolEffect.ValueType] = {
    "read": tool_pb2.TOOL_EFFECT_READ,
    "idempotent": tool_pb2.TOOL_EFFECT_IDEMPOTENT,
    "write": tool_pb2.TOOL_EFFECT_WRITE,
}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHAPE = "it must be `async def f(context: ToolContext, arguments: SomeModel) -> SomeResult`, both models pydantic's"
_JSON_OBJECT = TypeAdapter(dict[str, JsonValue])


class ToolDefinitionError(TypeError):
    """A function that cannot be a tool; the message says which and why."""


class Arguments(BaseModel):
    """A base for the arguments of tools: closed, so that no misspelled argument passes unnoticed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CallRules(TypedDict, total=False):
    """Rules a tool's calls follow beside its effect; each is told at the `HostedTool` field of its name."""

    requires_approval: bool
    required_scopes: list[str]
    max_retries: int
    per_user_concurrency: int
    sequential: bool
    repeatable: bool


@dataclass(frozen=True, slots=True)
class DefinedTool(Generic[A]):
    """A function that is a tool, and its description as the server gets it."""

    description: pb.HostedTool
    arguments_model: type[A]
    function: ToolFunction[A]
    timeout_s: float


def define_tool(
    function: ToolFunction[A], *, effect: Effect, name: str, timeout_s: float, rules: CallRules
) -> DefinedTool[A]:
    """Describe a tool; `name` empty means the function's own. Raises ToolDefinitionError."""
    name = name or function.__name__
    try:
        _require(_NAME.fullmatch(name) is not None, "its name must be 1-64 of A-Z a-z 0-9 _ -")
        _require(0 < timeout_s <= MAX_TIMEOUT_S, f"timeout_s must be above 0 and at most {MAX_TIMEOUT_S:g}")
        arguments_model, result_model = _models(function)
        text = inspect.getdoc(function) or ""
        _require(bool(text.strip()), "it needs a docstring: that is what the model reads")
        description = pb.HostedTool(
            name=name,
            description=text,
            input_schema_json=_input_schema(arguments_model),
            output_schema_json=json.dumps(_schema_of(result_model, "serialization"), ensure_ascii=False),
            effect=_EFFECTS[effect],
            **rules,
        )
    except ToolDefinitionError as error:
        raise ToolDefinitionError(f"tool {name}: {error}") from error
    description.timeout.FromNanoseconds(round(timeout_s * 1e9))
    description.spec_hash = hashlib.sha256(description.SerializeToString(deterministic=True)).hexdigest()
    return DefinedTool(description, cast("type[A]", arguments_model), function, timeout_s)


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ToolDefinitionError(rule)


def _models(function: ToolFunction[A]) -> tuple[type[BaseModel], type[BaseModel]]:
    """Return the models of a function's arguments and of its result."""
    parameters = list(inspect.signature(function).parameters)
    _require(inspect.iscoroutinefunction(function) and len(parameters) == 2, _SHAPE)
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise ToolDefinitionError(f"its annotations cannot be resolved: {error}") from error
    _require(hints.get(parameters[0]) is ToolContext, _SHAPE)
    arguments, result = hints.get(parameters[1]), hints.get("return")
    if not (_is_model(arguments) and _is_model(result)):
        raise ToolDefinitionError(_SHAPE)
    return cast("type[BaseModel]", arguments), cast("type[BaseModel]", result)


def _is_model(hint: object) -> bool:
    return inspect.isclass(hint) and issubclass(hint, BaseModel)


class _SchemaWithoutTitles(GenerateJsonSchema):
    """Titles repeat the names and cost the model tokens."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002  # pydantic's signature
        return False


def _input_schema(model: type[BaseModel]) -> str:
    schema = _schema_of(model, "validation")
    _require(schema.get("type") == "object", f"{model.__name__} must not be recursive or a root model")
    for title in _open_objects(schema):
        raise ToolDefinitionError(f'{title} must be closed: derive it from Arguments, or ConfigDict(extra="forbid")')
    told = {key: value for key, value in schema.items() if key not in {"title", "description"}}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def _schema_of(model: type[BaseModel], mode: Literal["validation", "serialization"]) -> dict[str, JsonValue]:
    try:
        return _JSON_OBJECT.validate_python(model.model_json_schema(schema_generator=_SchemaWithoutTitles, mode=mode))
    except PydanticInvalidForJsonSchema as error:
        raise ToolDefinitionError(f"{model.__name__} has no JSON Schema: {error.message}") from error


def _open_objects(schema: JsonValue) -> Iterator[str]:
    """Name the models in the schema that would let unknown arguments pass unnoticed."""
    if isinstance(schema, dict):
        if "title" in schema and schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            yield str(schema["title"])
        for value in schema.values():
            yield from _open_objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _open_objects(value)
