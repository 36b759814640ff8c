"""Tools: one typed async function each. `@tool` reads the rest off its signature and docstring."""

import asyncio
import zoneinfo
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from parley_server.domain.context import RequestContext
from parley_server.domain.tool import ToolEffect, ToolSpec
from parley_server.tools.definition import read_definition
from parley_server.tools.errors import FieldProblem, InvalidArgumentsError

JsonObject = dict[str, JsonValue]
A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ToolContext:
    """For whom and under which identity a call runs; the only place a tool learns the user from.

    `idempotency_key` is the same whenever this call is repeated; `deadline` is in seconds of the running loop's
    clock. `cancelled` is set when the run is to stop: a tool that only reads, or is idempotent, is cancelled then; a
    WRITE is left up to 10 s to come to an end of its own, so that its result is known.
    """

    request: RequestContext
    run_id: str
    call_id: str
    idempotency_key: str
    deadline: float
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def user_id(self) -> str:
        """The effective user."""
        return self.request.user_id

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """The user's time zone."""
        return self.request.zone


class Tool(Protocol):
    """Something a model can call, wherever it runs. Serves all users at once."""

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model sees it."""
        ...

    async def call(self, context: ToolContext, arguments: JsonObject) -> object:
        """Run once and return a JSON value.

        Raises:
            InvalidArgumentsError: the arguments do not fit; nothing happened.
            ToolError: the tool cannot do it, in words meant for the model.
        """
        ...


@dataclass(frozen=True, slots=True)
class FunctionTool(Generic[A]):
    """A tool that is a function of this server; made by `@tool`."""

    spec: ToolSpec
    arguments_model: type[A]
    function: Callable[[ToolContext, A], Awaitable[BaseModel]]

    async def call(self, context: ToolContext, arguments: JsonObject) -> object:
        """Validate, run, and return the result as JSON values; see `Tool.call`."""
        try:
            checked = self.arguments_model.model_validate(arguments)
        except ValidationError as error:
            raise InvalidArgumentsError(_problems(error)) from error
        result = await self.function(context, checked)
        return result.model_dump(mode="json")


def tool(
    *, effect: ToolEffect, timeout_s: float = 30.0, name: str = ""
) -> Callable[[Callable[[ToolContext, A], Awaitable[BaseModel]]], FunctionTool[A]]:
    """Make a tool of `async def f(context: ToolContext, arguments: SomeModel) -> SomeResult`.

    Both models are pydantic's; the docstring is what the model reads. `name` defaults to the function's own.
    Raises ToolDefinitionError, when the module is imported, for anything that does not fit.
    """

    def decorate(function: Callable[[ToolContext, A], Awaitable[BaseModel]]) -> FunctionTool[A]:
        definition = read_definition(function, ToolContext, name=name, timeout_s=timeout_s)
        spec = ToolSpec(definition.name, definition.description, definition.input_schema_json, effect, timeout_s)
        return FunctionTool(spec, definition.arguments_model, function)

    return decorate


def _problems(error: ValidationError) -> list[FieldProblem]:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return [FieldProblem(_path(problem["loc"]), problem["msg"]) for problem in problems]


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
