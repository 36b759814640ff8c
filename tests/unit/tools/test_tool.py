"""Writing a tool: what the decorator reads off a function, and what it refuses when the module is imported."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import structlog
from parley_server.domain.principal import Principal, PrincipalKind
from parley_server.domain.tool import ToolEffect
from parley_server.tools.definition import ToolDefinitionError
from parley_server.tools.errors import InvalidArgumentsError
from parley_server.tools.tool import ToolContext, tool
from pydantic import BaseModel, ConfigDict
from unit.tools.user_context import context_of


class Place(BaseModel):
    model_config = ConfigDict(extra="forbid")
    city: str


class WeatherArguments(BaseModel):
    model_config = ConfigDict(extra="forbid")
    places: list[Place]
    days: int = 1


class WeatherResult(BaseModel):
    user_id: str
    cities: list[str]


class OpenModel(BaseModel):
    city: str


class HoldsOpenModel(BaseModel):
    model_config = ConfigDict(extra="forbid")
    places: list[OpenModel]


class Recursive(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: "Recursive | None" = None


@tool(effect=ToolEffect.READ, timeout_s=2.5)
async def weather(context: ToolContext, arguments: WeatherArguments) -> WeatherResult:
    """Tell the weather.

    For several places at once.
    """
    return WeatherResult(user_id=context.user_id, cities=[place.city for place in arguments.places])


def a_context(user_id: str = "ann") -> ToolContext:
    return ToolContext(context_of(user_id), run_id="run_1", call_id="call_1", idempotency_key="key", deadline=0.0)


def test_spec_is_read_off_the_function() -> None:
    spec = weather.spec
    assert spec.name == "weather"
    assert spec.description == "Tell the weather.\n\nFor several places at once."
    assert (spec.effect, spec.timeout_s) == (ToolEffect.READ, 2.5)


def test_every_object_of_the_schema_is_closed() -> None:
    schema = json.loads(weather.spec.input_schema_json)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Place"]["additionalProperties"] is False
    assert schema["required"] == ["places"]


async def test_call_validates_runs_and_returns_plain_values() -> None:
    result = await weather.call(a_context("bob"), {"places": [{"city": "Oslo"}]})
    assert result == {"user_id": "bob", "cities": ["Oslo"]}


async def test_the_user_comes_from_the_context_alone() -> None:
    with pytest.raises(InvalidArgumentsError) as caught:
        await weather.call(a_context("ann"), {"places": [], "user_id": "mallory"})
    assert [problem.path for problem in caught.value.fields] == ["user_id"]


async def test_problems_name_the_path_of_the_argument() -> None:
    with pytest.raises(InvalidArgumentsError) as caught:
        await weather.call(a_context(), {"places": [{"city": "Oslo"}, {"city": 5}], "days": "soon"})
    assert [problem.path for problem in caught.value.fields] == ["places[1].city", "days"]


def test_the_context_says_who_asks_and_what_he_may() -> None:
    service = Principal(kind=PrincipalKind.SERVICE, subject="web", scopes=frozenset({"runs:write"}), method="api_key")
    request = context_of("ann").model_copy(update={"principal": service})
    context = ToolContext(request, run_id="run_1", call_id="call_1", idempotency_key="key", deadline=0.0)
    assert (context.user_id, context.actor, context.scopes) == ("ann", "service:web", frozenset({"runs:write"}))


def test_what_a_tool_logs_says_of_which_call_it_is() -> None:
    context = replace(a_context(), tool_name="weather")
    with structlog.testing.capture_logs() as lines:
        context.log.info("asked", places=2)
    [line] = lines
    assert (line["run_id"], line["call_id"], line["tool"], line["places"]) == ("run_1", "call_1", "weather", 2)


async def no_docstring(context: ToolContext, arguments: Place) -> WeatherResult:
    raise NotImplementedError


async def not_one_result(context: ToolContext, arguments: Place) -> AsyncIterator[WeatherResult]:
    """Tell."""
    yield WeatherResult(user_id=context.user_id, cities=[arguments.city])


async def one_parameter(context: ToolContext) -> WeatherResult:
    """Tell."""
    raise NotImplementedError


async def wrong_context(context: str, arguments: Place) -> WeatherResult:
    """Tell."""
    raise NotImplementedError


async def plain_arguments(context: ToolContext, arguments: dict[str, str]) -> WeatherResult:
    """Tell."""
    raise NotImplementedError


async def plain_result(context: ToolContext, arguments: Place) -> str:
    """Tell."""
    raise NotImplementedError


async def open_arguments(context: ToolContext, arguments: OpenModel) -> WeatherResult:
    """Tell."""
    raise NotImplementedError


async def open_inside(context: ToolContext, arguments: HoldsOpenModel) -> WeatherResult:
    """Tell."""
    raise NotImplementedError


async def recursive(context: ToolContext, arguments: Recursive) -> WeatherResult:
    """Tell."""
    raise NotImplementedError


async def unresolved(context: ToolContext, arguments: "Nowhere") -> WeatherResult:  # type: ignore[name-defined]  # noqa: F821  # the point
    """Tell."""
    raise NotImplementedError


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (no_docstring, "docstring"),
        (not_one_result, r"\[async\] def f"),
        (one_parameter, r"\[async\] def f"),
        (wrong_context, "ToolContext"),
        (plain_arguments, "SomeModel a pydantic model"),
        (plain_result, "SomeResult a pydantic model"),
        (open_arguments, "OpenModel must be closed"),
        (open_inside, "OpenModel must be closed"),
        (recursive, "recursive"),
        (unresolved, "Nowhere"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_in_clear_words(function: Callable[..., object], said: str) -> None:
    with pytest.raises(ToolDefinitionError, match=said) as caught:
        tool(effect=ToolEffect.READ)(cast("Any", function))
    assert function.__name__ in str(caught.value)


@pytest.mark.parametrize("name", ["get weather", "x" * 65, "wetter_für", "weather\n"])
def test_names_keep_to_the_grammar(name: str) -> None:
    with pytest.raises(ToolDefinitionError, match="name"):
        tool(effect=ToolEffect.READ, name=name)(weather.function)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, 601.0, float("nan")])
def test_timeouts_are_bounded(timeout_s: float) -> None:
    with pytest.raises(ToolDefinitionError, match="timeout_s"):
        tool(effect=ToolEffect.READ, timeout_s=timeout_s)(weather.function)
