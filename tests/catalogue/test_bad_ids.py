"""Rows 39, 40, 43 to 46, 50, 52 and 62: ids, page tokens, etags and queries that are not what they seem."""

import asyncio
from pathlib import Path

import grpc
import pytest
from catalogue.door import Caller, Door, text_spec
from google.protobuf.message import Message
from parley.v1 import agent_service_pb2 as agents
from parley.v1 import api_key_service_pb2 as keys
from parley.v1 import approval_service_pb2 as approvals
from parley.v1 import conversation_pb2, tool_pb2
from parley.v1 import conversation_service_pb2 as conversations
from parley.v1 import tool_service_pb2 as tools
from rpc.chassis import Failure
from server_process import running_server

CODE = grpc.StatusCode
MALFORMED = {
    "empty": "",
    "too long": "x" * 65,
    "a blank": "run 1",
    "a line feed": "run_1\n",
    "a path": "../run_1",
    "a pattern": "run_%",
    "a quote": "run'--",
    "not ASCII": "r\u00fcn_1",
    "full width": "\uff52\uff55\uff4e",
    "NUL": "run\0",
}


def requests_with(id_: str) -> list[Message]:
    return [
        agents.GetRunRequest(run_id=id_),
        agents.WatchRunRequest(run_id=id_),
        agents.CancelRunRequest(run_id=id_),
        agents.GetAgentRequest(agent_id=id_),
        conversations.GetConversationRequest(conversation_id=id_),
        conversations.ListMessagesRequest(conversation_id=id_),
        conversations.DeleteConversationRequest(conversation_id=id_),
        approvals.GetApprovalRequest(approval_id=id_),
        approvals.DecideApprovalRequest(approval_id=id_, decision=approvals.APPROVAL_DECISION_DENY),
        tools.GetToolResultRequest(result_id=id_),
        resolution("run_0", id_),
        resolution(id_, "call_0"),
    ]


def resolution(run_id: str, call_id: str) -> tools.ResolveToolCallRequest:
    return tools.ResolveToolCallRequest(run_id=run_id, call_id=call_id, outcome=tool_pb2.TOOL_CALL_OUTCOME_HAPPENED)


@pytest.mark.parametrize("id_", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_no_id_is_refused(door: Door, id_: str) -> None:
    optional = [
        agents.StartRunRequest(run=text_spec("hello", id_)),
        agents.ListRunsRequest(conversation_id=id_),
        agents.ListRunsRequest(agent_id=id_),
        tools.ListToolsRequest(agent_id=id_),
        tools.ListToolCallsRequest(conversation_id=id_),
        tools.ListToolCallsRequest(run_id=id_),
        approvals.ListApprovalsRequest(conversation_id=id_),
        approvals.ListApprovalsRequest(run_id=id_),
    ]
    for request in [*requests_with(id_), *(optional if id_ else [])]:
        failure = await door.ann.refused(request)
        assert (failure.code, failure.reason) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST")


@pytest.mark.parametrize("id_", ["x", "run_1", "__proto__", "-", "0" * 64, "run_01KAQ3ZZZZZZZZZZZZZZZZZZZZ"])
async def test_an_id_of_nothing_is_not_found(either_door: Door, id_: str) -> None:
    for request in requests_with(id_):
        failure = await either_door.ann.refused(request)
        assert (failure.code, failure.reason) == (CODE.NOT_FOUND, "RESOURCE_NOT_FOUND")


async def test_what_was_deleted_is_as_if_it_never_was(either_door: Door) -> None:
    ann = either_door.ann
    events = await ann.run_to_the_end(text_spec())
    conversation_id, run_id = events[0].conversation_id, events[0].run_id
    await ann.ask(
        conversations.DeleteConversationRequest(conversation_id=conversation_id),
        conversations.DeleteConversationResponse,
    )
    for gone, absent in (
        (agents.GetRunRequest(run_id=run_id), agents.GetRunRequest(run_id="run_0")),
        (agents.WatchRunRequest(run_id=run_id), agents.WatchRunRequest(run_id="run_0")),
        (
            agents.StartRunRequest(run=text_spec("x", conversation_id)),
            agents.StartRunRequest(run=text_spec("x", "c_0")),
        ),
    ):
        assert told(await ann.refused(gone)) == told(await ann.refused(absent))
        assert (await ann.refused(gone)).code == CODE.NOT_FOUND


def told(failure: Failure) -> tuple[grpc.StatusCode, str, str, dict[str, str], str]:
    resource = str(failure.details.get("ResourceInfo"))
    return failure.code, failure.reason, failure.message, failure.metadata, resource


async def test_a_request_id_stands_for_one_request(either_door: Door) -> None:
    ann = either_door.ann
    first = await ann.start(text_spec("one"), "stands-for-one")
    assert (await ann.start(text_spec("one"), "stands-for-one")).run_id == first.run_id
    for other in (text_spec("two"), text_spec("one", first.conversation_id)):
        failure = await ann.refused(agents.StartRunRequest(run=other, request_id="stands-for-one"))
        assert (failure.code, failure.reason) == (CODE.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    conversation = conversations.CreateConversationRequest(title="one", request_id="stands-for-one")
    made = await ann.ask(conversation, conversations.CreateConversationResponse)
    assert made == await ann.ask(conversation, conversations.CreateConversationResponse)
    conversation.title = "two"
    assert (await ann.refused(conversation)).reason == "REQUEST_ID_REUSED"


async def test_one_request_sent_by_many_at_once_is_done_once(either_door: Door) -> None:
    ann = either_door.ann
    runs = await asyncio.gather(*(ann.start(text_spec(), "at-once") for _ in range(20)))
    assert len({run.run_id for run in runs}) == 1
    create = conversations.CreateConversationRequest(title="t", request_id="at-once")
    made = await asyncio.gather(*(ann.ask(create, conversations.CreateConversationResponse) for _ in range(20)))
    assert len({each.conversation.conversation_id for each in made}) == 1


async def test_the_request_id_of_another_user_is_another(either_door: Door) -> None:
    mine = await either_door.ann.start(text_spec("mine"), "of-each")
    his = await either_door.bob.start(text_spec("his"), "of-each")
    assert mine.run_id != his.run_id


async def test_a_request_id_is_remembered_over_a_crash(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            first = await Caller(channel).start(text_spec("one"), "over-a-crash")
        server.kill()
        server.start()
        async with grpc.aio.insecure_channel(server.address) as channel:
            caller = Caller(channel)
            assert (await caller.start(text_spec("one"), "over-a-crash")).run_id == first.run_id
            failure = await caller.refused(agents.StartRunRequest(run=text_spec("two"), request_id="over-a-crash"))
    assert failure.reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize("size", [-1, -(2**31)])
async def test_a_page_of_less_than_nothing_is_refused(door: Door, size: int) -> None:
    for request in (
        agents.ListRunsRequest(page_size=size),
        agents.ListAgentsRequest(page_size=size),
        conversations.ListConversationsRequest(page_size=size),
        conversations.ListMessagesRequest(conversation_id="c", page_size=size),
        tools.ListToolsRequest(page_size=size),
        tools.ListToolCallsRequest(page_size=size),
    ):
        failure = await door.ann.refused(request)
        assert (failure.code, failure.reason) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert (await door.admin.refused(keys.ListApiKeysRequest(page_size=size))).reason == "INVALID_REQUEST"


async def test_a_page_too_large_is_the_largest_there_is(either_door: Door) -> None:
    request = agents.ListRunsRequest(page_size=2**31 - 1)
    assert len((await either_door.ann.ask(request, agents.ListRunsResponse)).runs) <= 200


async def second_pages(
    ann: Caller,
) -> tuple[agents.ListRunsRequest, conversations.ListConversationsRequest, conversations.ListMessagesRequest]:
    """Return the requests for the second page of each of the caller's lists."""
    spec = text_spec("paged")
    spec.conversation_id = (await ann.run_to_the_end(spec))[0].conversation_id
    await ann.run_to_the_end(spec)
    await ann.converse()
    runs = agents.ListRunsRequest(page_size=1)
    runs.page_token = (await ann.ask(runs, agents.ListRunsResponse)).next_page_token
    listed = conversations.ListConversationsRequest(page_size=1)
    listed.page_token = (await ann.ask(listed, conversations.ListConversationsResponse)).next_page_token
    messages = conversations.ListMessagesRequest(conversation_id=spec.conversation_id, page_size=1)
    messages.page_token = (await ann.ask(messages, conversations.ListMessagesResponse)).next_page_token
    return runs, listed, messages


async def test_a_page_token_is_good_for_its_list_alone(either_door: Door) -> None:
    ann, bob = either_door.ann, either_door.bob
    runs, listed, messages = await second_pages(ann)
    assert (await ann.ask(runs, agents.ListRunsResponse)).runs
    assert (await ann.ask(messages, conversations.ListMessagesResponse)).messages
    filtered = agents.ListRunsRequest(agent_id="assistant", page_token=runs.page_token)
    searched = conversations.ListConversationsRequest(query="paged", page_token=listed.page_token)
    other_one = conversations.ListMessagesRequest(conversation_id=await ann.converse(), page_token=messages.page_token)
    swapped = agents.ListRunsRequest(page_token=listed.page_token)
    for caller, request in (
        (bob, runs),
        (bob, listed),
        (ann, filtered),
        (ann, searched),
        (ann, swapped),
        (ann, other_one),
        (either_door.admin, runs),
    ):
        await check_refused_token(caller, request)


async def test_a_page_token_that_was_changed_is_none(either_door: Door) -> None:
    """One text for all of them, whatever was done to the token."""
    ann = either_door.ann
    token = (await second_pages(ann))[0].page_token
    changed = [
        token[:place] + ("A" if letter != "A" else "B") + token[place + 1 :] for place, letter in enumerate(token)
    ]
    garbage = ["x", "====", "\0", "\N{BOMB}", "' OR 1=1", "A" * 1024]
    for bad in [*changed, *garbage, token[:-1], token[:8], token + "A", token + "=", f"!{token}", f"{token}\n"]:
        await check_refused_token(ann, agents.ListRunsRequest(page_token=bad))


async def check_refused_token(caller: Caller, request: Message) -> None:
    failure = await caller.refused(request)
    assert (failure.code, failure.reason) == (CODE.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")
    assert failure.message == "page_token is not valid for this caller and this list"


@pytest.mark.parametrize("etag", ["0", "-1", "x", "\0", "\N{BOMB}", "1 OR 1=1"])
async def test_what_was_changed_meanwhile_is_not_overwritten(either_door: Door, etag: str) -> None:
    ann = either_door.ann
    conversation_id = await ann.converse("kept")
    changed = conversation_pb2.Conversation(conversation_id=conversation_id, title="lost", etag=etag)
    request = conversations.UpdateConversationRequest(conversation=changed)
    request.update_mask.paths.append("title")
    failure = await ann.refused(request)
    assert (failure.code, failure.reason) == (CODE.ABORTED, "ETAG_MISMATCH")
    got = conversations.GetConversationRequest(conversation_id=conversation_id)
    assert (await ann.ask(got, conversations.GetConversationResponse)).conversation.title == "kept"


QUERIES = [
    '"',
    "*",
    "NEAR(",
    "NEAR(a b, 5)",
    "a OR",
    "OR",
    "NOT a",
    "a AND (",
    "%",
    "_",
    "'",
    "a'b",
    "\\",
    "\0",
    "title:x",
]


@pytest.mark.parametrize("query", [*QUERIES, "-a ^b", "a:* & !b | <-> c", "$1 ?", "\u202e", "a " * 128, "x" * 256])
async def test_a_query_is_words_and_nothing_else(either_door: Door, query: str) -> None:
    request = conversations.ListConversationsRequest(query=query)
    await either_door.ann.ask(request, conversations.ListConversationsResponse)


async def test_a_query_too_long_is_refused(door: Door) -> None:
    for query in ("x" * 257, "a " * 10_000):
        failure = await door.ann.refused(conversations.ListConversationsRequest(query=query))
        assert (failure.code, failure.reason) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST")
