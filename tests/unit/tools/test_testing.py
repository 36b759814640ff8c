"""What the author of a tool tests it with: a call as the server makes it, without a server."""

import asyncio

import pytest
from parley_server.domain.tool import ApprovalRule, ToolCallStatus, ToolEffect
from parley_server.testing import call_tool
from parley_server.tools.tool import ToolContext, tool
from pydantic import BaseModel, ConfigDict


class Words(BaseModel):
    model_config = ConfigDict(extra="forbid")

    words: str


class Told(BaseModel):
    user_id: str
    zone: str
    secret: str = ""
    key: str = ""


@tool(
    effect=ToolEffect.WRITE,
    timeout_s=0.2,
    required_scopes=frozenset({"tool:telling"}),
    credential_slots=("desk",),
    approval=ApprovalRule.ALWAYS,
)
async def tell(context: ToolContext, arguments: Words) -> Told:
    """Tell."""
    context.progress("half", 0.5)
    await asyncio.sleep(0.01)
    if arguments.words == "hang":
        await asyncio.Event().wait()
    if arguments.words == "break":
        raise RuntimeError("in pieces")
    secret = (await context.credential("desk")).get_secret_value()
    return Told(user_id=context.user_id, zone=context.zone.key, secret=secret[::-1], key=context.idempotency_key)


async def test_a_tool_is_called_for_a_user_with_what_he_has() -> None:
    secrets = {"desk": "for the desk"}
    outcome = await call_tool(
        tell, {"words": "x"}, user_id="bob", time_zone="Asia/Tokyo", credentials=secrets, call_id="call_1"
    )
    assert outcome.status is ToolCallStatus.OK
    assert outcome.progress == (("half", 0.5),)
    assert isinstance(outcome.result, dict)
    assert (outcome.result["user_id"], outcome.result["zone"]) == ("bob", "Asia/Tokyo")
    assert outcome.result["secret"] == "ksed eht rof"
    again = await call_tool(tell, {"words": "x"}, credentials=secrets, call_id="call_1")
    assert isinstance(again.result, dict)
    assert again.result["key"] == outcome.result["key"]
    with pytest.raises(AssertionError, match="was answered"):
        _ = outcome.error


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        ({"words": "x", "user_id": "eve"}, ToolCallStatus.INVALID_ARGUMENTS, "invalid_arguments"),
        ('{"words":', ToolCallStatus.INVALID_ARGUMENTS, "invalid_arguments"),
        ({"words": "hang"}, ToolCallStatus.TIMED_OUT, "timeout"),
        ({"words": "break"}, ToolCallStatus.ERROR, "internal"),
        ({"words": "x"}, ToolCallStatus.ERROR, "credential_missing"),
    ],
)
async def test_what_goes_wrong_is_what_the_model_would_be_told(
    arguments: dict[str, str] | str, status: ToolCallStatus, code: str
) -> None:
    outcome = await call_tool(tell, dict(arguments) if isinstance(arguments, dict) else arguments)
    assert (outcome.status, outcome.error["code"]) == (status, code)
    with pytest.raises(AssertionError, match=code):
        _ = outcome.result


async def test_a_caller_without_the_scope_is_denied() -> None:
    outcome = await call_tool(tell, {"words": "x"}, scopes=["runs:write"])
    assert (outcome.status, outcome.error["code"]) == (ToolCallStatus.DENIED, "permission_denied")
