"""What time it is, here and elsewhere."""

import zoneinfo
from datetime import UTC, datetime

import pytest
from parley_server.domain.tool import ToolEffect
from parley_server.tools.builtin.current_time import current_time_tool
from parley_server.tools.builtin.places import zone_of
from parley_server.tools.errors import InvalidArgumentsError, ToolError
from parley_server.tools.tool import JsonObject, ToolContext
from unit.tools.user_context import context_of

CLOCK = datetime(2026, 11, 22, 9, 3, 4, 567, tzinfo=UTC)


def a_context(time_zone: str) -> ToolContext:
    request = context_of(time_zone=time_zone)
    return ToolContext(request, run_id="run_1", call_id="call_1", idempotency_key="key", deadline=0.0)


async def ask(arguments: JsonObject, *, time_zone: str = "Europe/Berlin") -> object:
    return await current_time_tool(lambda: CLOCK).call(a_context(time_zone), arguments)


@pytest.mark.parametrize("place", ["Asia/Tokyo", "asia/tokyo", "Tokyo", " TOKYO ", "Tokyo, Japan"])
async def test_the_time_in_a_place(place: str) -> None:
    assert await ask({"place": place}) == {
        "time_zone": "Asia/Tokyo",
        "local_time": "2026-11-22T18:03:04+09:00",
        "spoken": "18:03 on Sunday 22 November 2026",
    }


@pytest.mark.parametrize("arguments", [{}, {"place": ""}, {"place": "  "}])
async def test_without_a_place_it_is_the_users_own(arguments: JsonObject) -> None:
    assert await ask(arguments, time_zone="America/New_York") == {
        "time_zone": "America/New_York",
        "local_time": "2026-11-22T04:03:04-05:00",
        "spoken": "04:03 on Sunday 22 November 2026",
    }


@pytest.mark.parametrize(
    ("place", "zone"),
    [
        ("New York", "America/New_York"),
        ("new_york", "America/New_York"),
        ("S\u00e3o Paulo", "America/Sao_Paulo"),
        ("St. John\u2019s", "America/St_Johns"),
        ("Port-au-Prince", "America/Port-au-Prince"),
        ("Port au Prince", "America/Port-au-Prince"),
        ("utc", "UTC"),
        ("Etc/GMT+3", "Etc/GMT+3"),
        ("Singapore", "Singapore"),
    ],
)
def test_places(place: str, zone: str) -> None:
    assert zone_of(place) == zone


def test_every_zone_is_found_by_its_own_name() -> None:
    names = zoneinfo.available_timezones() - {"localtime", "posixrules", "Factory"}
    assert {name for name in names if zone_of(name.upper()) != name} == set()


@pytest.mark.parametrize(("place", "near"), [("Tokio", "Asia/Tokyo"), ("Newyork", "America/New_York")])
def test_an_unknown_place_brings_near_names(place: str, near: str) -> None:
    with pytest.raises(ToolError) as caught:
        zone_of(place)
    assert caught.value.code == "unknown_place"
    assert near in caught.value.hint


@pytest.mark.parametrize("place", ["../../etc/passwd", "Atlantis Prime", "\x00", "localtime", "GMT+3"])
def test_what_is_no_place_is_no_place(place: str) -> None:
    with pytest.raises(ToolError) as caught:
        zone_of(place)
    assert "Etc/" not in caught.value.hint


async def test_a_long_place_does_not_fit() -> None:
    with pytest.raises(InvalidArgumentsError):
        await ask({"place": "x" * 101})


def test_it_only_reads() -> None:
    assert current_time_tool().spec.effect is ToolEffect.READ
    assert current_time_tool().spec.name == "current_time"


async def test_the_default_clock_is_the_present() -> None:
    result = await current_time_tool().call(a_context("UTC"), {})
    assert isinstance(result, dict)
    assert abs(datetime.fromisoformat(str(result["local_time"])) - datetime.now(UTC)).total_seconds() < 5
