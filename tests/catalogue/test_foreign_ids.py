"""Row 40 for every rpc there is: somebody else's id and an absent one get the same status, byte for byte.

The fields are found in the descriptors. One that a later rpc brings is tried without anybody thinking of it, and one of
a new kind fails until there is something foreign of that kind to try.
"""

import asyncio
from collections.abc import Iterator

import grpc
import pytest
from catalogue.door import ASK_FIRST, MANY_WORDS, METHODS, Caller, Door, text_spec
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from parley.v1 import agent_service_pb2 as agents
from parley.v1 import api_key_service_pb2 as keys
from parley.v1 import approval_service_pb2 as approvals
from parley.v1 import content_pb2, tool_pb2
from parley.v1 import conversation_service_pb2 as conversations
from parley.v1 import tool_service_pb2 as tools

# By the last part of the path: what names no object of a user's.
NO_OBJECT = {
    "request_id": "the caller's own word for his request",
    "agent_id": "agents are everybody's",
    "user_id": "a name, in an administrator's request",
    "service_id": "a name, in an administrator's request",
    "file_id": "files cannot be sent yet",
    "active_run_id": "told by the server, not read by it",
}
# What a request must have besides the id to be a good one.
GOOD: list[Message] = [
    agents.StartRunRequest(run=text_spec()),
    agents.RunAgentRequest(run=text_spec()),
    agents.SteerRunRequest(run_id="run_0", input=[content_pb2.ContentPart(text="x")]),
    conversations.UpdateConversationRequest(update_mask={"paths": ["title"]}),  # type: ignore[arg-type]  # as JSON has it
    conversations.ForkConversationRequest(conversation_id="conv_0"),
    approvals.DecideApprovalRequest(decision=approvals.APPROVAL_DECISION_APPROVE),
    tools.ResolveToolCallRequest(run_id="run_0", call_id="call_0", outcome=tool_pb2.TOOL_CALL_OUTCOME_HAPPENED),
]


def id_paths(descriptor: Descriptor, path: str = "") -> Iterator[str]:
    """Return the path of every id in a message."""
    for field in descriptor.fields:
        place = f"{path}{field.name}"
        if field.name.endswith(("_id", "_ids")) and field.name not in NO_OBJECT:
            yield place
        elif field.message_type is not None and field.message_type.file.package == "parley.v1":
            yield from id_paths(field.message_type, f"{place}.")


PATHS = [(name, path) for name, method in METHODS.items() for path in id_paths(method.input_type)]


def request_with(request_type: str, path: str, id_: str) -> Message:
    """Return a request that is good when the id is."""
    request = GetMessageClass(METHODS[request_type].input_type)()
    for good in GOOD:
        if good.DESCRIPTOR.full_name == request_type:
            request.MergeFrom(good)
    *parents, field = path.split(".")
    target = request
    for parent in parents:
        value = getattr(target, parent)
        target = value if isinstance(value, Message) else value.add()
    if field.endswith("_ids"):
        getattr(target, field).append(id_)
    else:
        setattr(target, field, id_)
    return request


async def anns_objects(door: Door) -> dict[str, str]:
    """Make one of everything there is, for Ann."""
    events = await door.ann.run_to_the_end(text_spec(MANY_WORDS))
    run, [called] = events[0], [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
    listed = conversations.ListMessagesRequest(conversation_id=run.conversation_id)
    messages = (await door.ann.ask(listed, conversations.ListMessagesResponse)).messages
    key = await door.admin.ask(keys.CreateApiKeyRequest(user_id="ann"), keys.CreateApiKeyResponse)
    return {
        "run_id": run.run_id,
        "conversation_id": run.conversation_id,
        "message_id": messages[0].message_id,
        "call_id": called.call_id,
        "result_id": called.result_id,
        "key_id": key.api_key.key_id,
    }


async def anns_approval(door: Door) -> str:
    """Have a run of Ann's wait for her."""
    run = await door.ann.start(text_spec(ASK_FIRST))
    wanted = approvals.ListApprovalsRequest(run_id=run.run_id)
    while not (listed := await door.ann.ask(wanted, approvals.ListApprovalsResponse)).approvals:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0.01)
    return listed.approvals[0].approval_id


async def answer(caller: Caller, request: Message) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]:
    """Return all that a caller can see of a failed call; with his own request id nothing in it is by chance."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await caller.saying(("x-request-id", "the-same")).ask_raw(
            request.DESCRIPTOR.full_name, request.SerializeToString()
        )
    return error.value.code(), error.value.details() or "", tuple(error.value.trailing_metadata())


@pytest.mark.parametrize(("request_type", "path"), PATHS, ids=[f"{name[10:]}.{path}" for name, path in PATHS])
async def test_a_foreign_id_and_an_absent_one_are_told_alike(either_door: Door, request_type: str, path: str) -> None:
    kind = path.rpartition(".")[2].removesuffix("s")
    foreign = await anns_approval(either_door) if kind == "approval_id" else (await anns_objects(either_door))[kind]
    absent = foreign[:-4] + "0000"
    told = await answer(either_door.bob, request_with(request_type, path, foreign))
    assert told == await answer(either_door.bob, request_with(request_type, path, absent))
    assert told[0] in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED}
    assert foreign not in str(told)


async def test_deleting_what_may_be_missing_deletes_nothing_foreign(either_door: Door) -> None:
    conversation_id = await either_door.ann.converse("mine alone")
    for id_ in (conversation_id, "conv_0"):
        request = conversations.DeleteConversationRequest(conversation_id=id_, allow_missing=True)
        await either_door.bob.ask(request, conversations.DeleteConversationResponse)
    got = conversations.GetConversationRequest(conversation_id=conversation_id)
    assert (await either_door.ann.ask(got, conversations.GetConversationResponse)).conversation.title == "mine alone"
