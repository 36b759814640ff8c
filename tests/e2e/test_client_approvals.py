"""The Python client answers approvals, and knows the tools and what was called."""

import json
from collections.abc import AsyncIterator, Iterator

import pytest
from e2e.asking_server import asking_server
from parley.v1.approval_pb2 import (
    APPROVAL_REMEMBER_CONVERSATION,
    APPROVAL_STATE_APPROVED,
    APPROVAL_STATE_DENIED,
    APPROVAL_STATE_PENDING,
)
from parley.v1.run_pb2 import (
    RUN_STATE_WAITING_APPROVAL,
    STOP_REASON_APPROVAL_NEEDED,
    UNATTENDED_POLICY_DENY,
    UNATTENDED_POLICY_FAIL,
)
from parley.v1.tool_pb2 import (
    TOOL_APPROVAL_ALWAYS,
    TOOL_CALL_OUTCOME_HAPPENED,
    TOOL_CALL_STATUS_DENIED,
    TOOL_CALL_STATUS_OK,
    TOOL_EFFECT_WRITE,
)
from parley_client import FailedPreconditionError, NotFoundError, ParleyClient, RunEvent, RunStream
from server_process import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with asking_server(tmp_path_factory.mktemp("asking")) as running:
        yield running


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[ParleyClient]:
    async with ParleyClient(server.address, "") as opened:
        yield opened


async def until_it_waits(run: RunStream) -> str:
    """Read until the run waits; return the id of what it asks."""
    async for event in run:
        if event.HasField("run_waiting"):
            [approval_id] = event.run_waiting.approval_ids
            return approval_id
    raise AssertionError("the run asked nothing")


def kinds_of(events: list[RunEvent]) -> list[str]:
    return [str(event.WhichOneof("event")) for event in events]


async def test_an_approval_is_read_answered_once_and_remembered(client: ParleyClient) -> None:
    async with client.run("mail ann") as run:
        approval_id = await until_it_waits(run)
        assert (await client.get_run(run.run_id)).state == RUN_STATE_WAITING_APPROVAL
        pending = [
            each
            async for each in client.approvals.list(
                states=[APPROVAL_STATE_PENDING], conversation_id=run.conversation_id, run_id=run.run_id, page_size=1
            )
        ]
        approval = await client.approvals.get(approval_id)
        assert pending == [approval]
        assert (approval.tool_name, json.loads(approval.arguments_json)["to"]) == ("send_mail", "ann")
        always = APPROVAL_REMEMBER_CONVERSATION
        for _ in range(2):  # the same answer again changes nothing
            approved = await client.approvals.approve(approval_id, reason="go on", remember=always)
            assert (approved.state, approved.reason) == (APPROVAL_STATE_APPROVED, "go on")
        with pytest.raises(FailedPreconditionError) as refused:
            await client.approvals.deny(approval_id)
        assert refused.value.reason == "APPROVAL_DECIDED"
        rest = kinds_of([event async for event in run])
        assert rest[:2] == ["approval_resolved", "run_resumed"]
        assert run.text == "That was all."
    async with client.run("mail bob", conversation_id=run.conversation_id) as run:
        assert "approval_requested" not in kinds_of([event async for event in run])


async def test_a_denial_and_its_reason_reach_the_model(client: ParleyClient) -> None:
    async with client.run("mail cat") as run:
        denied = await client.approvals.deny(await until_it_waits(run), reason="too dear")
        assert denied.state == APPROVAL_STATE_DENIED
        [finished] = [event.tool_call_finished async for event in run if event.HasField("tool_call_finished")]
    assert finished.status == TOOL_CALL_STATUS_DENIED
    assert "too dear" in finished.result_json
    with pytest.raises(NotFoundError):
        await client.approvals.get("apr_nowhere")


async def test_a_run_may_wish_that_nobody_is_asked(client: ParleyClient) -> None:
    async with client.run("mail dan", unattended_policy=UNATTENDED_POLICY_FAIL) as run:
        assert (await run.wait()).stop_reason == STOP_REASON_APPROVAL_NEEDED
        assert run.error is not None
        assert run.error.reason == "APPROVAL_NEEDED"
    started = await client.start("mail eve", unattended_policy=UNATTENDED_POLICY_DENY)
    async with client.watch(started.run_id) as run:
        await run.wait()
    assert run.text == "That was all."


async def test_the_tools_are_listed_with_their_rules(client: ParleyClient) -> None:
    tools = {tool.name: tool async for tool in client.tools.list(agent="assistant", page_size=2)}
    assert {"calculator", "send_mail", "launch"} <= set(tools)
    mail = tools["send_mail"]
    assert (mail.effect, mail.approval, mail.source) == (TOOL_EFFECT_WRITE, TOOL_APPROVAL_ALWAYS, "server")
    with pytest.raises(NotFoundError):
        [tool async for tool in client.tools.list(agent="nobody")]


async def test_calls_are_listed_large_results_read_and_what_is_known_is_not_settled(client: ParleyClient) -> None:
    async with client.run("recite") as run:
        await run.wait()
    [call] = [each async for each in client.tools.calls(run_id=run.run_id, statuses=[TOOL_CALL_STATUS_OK])]
    assert (call.name, call.truncated) == ("recite", True)
    assert json.loads(await client.tools.result(call.result_id)) == {"word": "größer " * 200_000}
    assert not [each async for each in client.tools.calls(run_id=run.run_id, unresolved=True)]
    with pytest.raises(FailedPreconditionError) as refused:
        await client.tools.resolve(call.run_id, call.call_id, TOOL_CALL_OUTCOME_HAPPENED, note="I saw it")
    assert refused.value.reason == "TOOL_CALL_NOT_IN_DOUBT"
