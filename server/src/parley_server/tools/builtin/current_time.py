"""The tool `current_time`: what time it is, for the user or in a place."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from parley_server.domain.tool import ToolEffect
from parley_server.tools.builtin.places import zone_of
from parley_server.tools.tool import Tool, ToolContext, tool


class CurrentTimeArguments(BaseModel):
    """Where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: Annotated[
        str,
        Field(
            max_length=100,
            description="An IANA time zone (Asia/Tokyo) or a large city that names one (Tokyo). "
            "Leave it out for the user's own time.",
        ),
    ] = ""


class CurrentTimeResult(BaseModel):
    """The moment: `local_time` is ISO 8601 with its offset, `spoken` the same in words."""

    time_zone: str
    local_time: str
    spoken: str


def _now() -> datetime:
    return datetime.now(UTC)


def current_time_tool(clock: Callable[[], datetime] = _now) -> Tool:
    """Make the tool; `clock` returns the present moment, aware of its offset."""

    @tool(effect=ToolEffect.READ, timeout_s=5.0)
    async def current_time(context: ToolContext, arguments: CurrentTimeArguments) -> CurrentTimeResult:
        """Tell the current date and time, for the user or in a given place."""
        zone = ZoneInfo(zone_of(arguments.place)) if arguments.place.strip() else context.zone
        return _told(clock().astimezone(zone), zone)

    return current_time


def _told(moment: datetime, zone: ZoneInfo) -> CurrentTimeResult:
    return CurrentTimeResult(
        time_zone=zone.key,
        local_time=moment.isoformat(timespec="seconds"),
        spoken=f"{moment:%H:%M} on {moment:%A} {moment.day} {moment:%B} {moment.year}",
    )
