"""Reads a tool off its function when the module is imported, and refuses what could not work, in clear words."""

import inspect
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar, cast, get_type_hints

from pydantic import BaseModel, JsonValue, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from parley_server.domain.principal import ALL_SCOPES, is_tool_scope
from parley_server.domain.tool import ToolEffect, ToolSpec
from parley_server.tools.credentials.source import is_slot
from parley_server.tools.limits import MAX_RETRIES

MAX_TIMEOUT_S = 600.0
MAX_CREDENTIAL_SLOTS = 16

C = TypeVar("C")
A = TypeVar("A", bound=BaseModel)

_NAME = re.compile(r"^[A-Za-z0-9_-]{1,64}\Z")
_JSON_OBJECT = TypeAdapter(dict[str, JsonValue])


class ToolDefinitionError(TypeError):
    """A function that cannot be a tool; the message says which and why."""


@dataclass(frozen=True, slots=True)
class ToolDefinition(Generic[A]):
    """What a function's signature and docstring say of the tool."""

    name: str
    description: str
    input_schema_json: str
    arguments_model: type[A]


def read_definition(
    function: Callable[[C, A], Awaitable[BaseModel] | BaseModel], context_type: type[C], *, name: str, timeout_s: float
) -> ToolDefinition[A]:
    """Check a tool's function and describe it; `name` empty means the function's. Raises ToolDefinitionError."""
    own_name = getattr(function, "__name__", type(function).__name__)
    try:
        model = _arguments_model(function, context_type)
        _require(_NAME.match(name or own_name) is not None, "its name must be 1-64 of A-Z a-z 0-9 _ -")
        _require(0 < timeout_s <= MAX_TIMEOUT_S, f"timeout_s must be above 0 and at most {MAX_TIMEOUT_S:g}")
        description = inspect.getdoc(function) or ""
        _require(bool(description.strip()), "it needs a docstring: that is what the model reads")
        schema_json = json.dumps(_input_schema(model), ensure_ascii=False, separators=(",", ":"))
    except ToolDefinitionError as error:
        raise ToolDefinitionError(f"tool {own_name}: {error}") from error
    return ToolDefinition(name or own_name, description, schema_json, cast("type[A]", model))


def check_rules(spec: ToolSpec) -> None:
    """Refuse rules that no call could follow. Raises ToolDefinitionError."""
    try:
        most = 0 if spec.effect is ToolEffect.WRITE else MAX_RETRIES
        _require(0 <= spec.max_retries <= most, f"max_retries must be at most {MAX_RETRIES}, and 0 for a WRITE")
        _require(spec.per_user_concurrency >= 1, "per_user_concurrency must be at least 1")
        unknown = sorted(scope for scope in spec.required_scopes - ALL_SCOPES if not is_tool_scope(scope))
        _require(all(map(is_slot, spec.credential_slots)), "credential_slots: write a-z, 0-9, _ and -, at most 64")
        _require(len(spec.credential_slots) <= MAX_CREDENTIAL_SLOTS, f"at most {MAX_CREDENTIAL_SLOTS} credential_slots")
        _require(not unknown, f"no key can have the scope {', '.join(unknown)}; name one tool:WORD")
    except ToolDefinitionError as error:
        raise ToolDefinitionError(f"tool {spec.name}: {error}") from error


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ToolDefinitionError(rule)


def _arguments_model(function: Callable[..., object], context_type: type) -> type[BaseModel]:
    shape = f"it must be `[async] def f(context: {context_type.__name__}, arguments: SomeModel) -> SomeResult`"
    _require(not inspect.isgeneratorfunction(function) and not inspect.isasyncgenfunction(function), shape)
    parameters = list(inspect.signature(function).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    _require(len(parameters) == 2 and all(p.kind in positional for p in parameters), shape)
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise ToolDefinitionError(f"its annotations cannot be resolved: {error}") from error
    _require(hints.get(parameters[0].name) is context_type, shape)
    _require(_is_model(hints.get("return")), f"{shape}, SomeResult a pydantic model")
    arguments = hints.get(parameters[1].name)
    if not _is_model(arguments):
        raise ToolDefinitionError(f"{shape}, SomeModel a pydantic model")
    return cast("type[BaseModel]", arguments)


def _is_model(hint: object) -> bool:
    return inspect.isclass(hint) and issubclass(hint, BaseModel)


class _SchemaWithoutTitles(GenerateJsonSchema):
    """Titles repeat the names and cost the model tokens."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002  # pydantic's signature
        return False


def _input_schema(model: type[BaseModel]) -> dict[str, JsonValue]:
    try:
        generated: JsonSchemaValue = model.model_json_schema(schema_generator=_SchemaWithoutTitles)
    except PydanticInvalidForJsonSchema as error:
        raise ToolDefinitionError(f"{model.__name__} has no JSON Schema: {error.message}") from error
    schema = _JSON_OBJECT.validate_python(generated)
    _require(schema.get("type") == "object", f"{model.__name__} must not be recursive or a root model")
    for title in _open_objects(schema):
        raise ToolDefinitionError(f'{title} must be closed: model_config = ConfigDict(extra="forbid")')
    return {key: value for key, value in schema.items() if key not in {"title", "description"}}


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
