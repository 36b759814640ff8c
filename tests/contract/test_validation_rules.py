"""What the rules in the protos let through and what they refuse, at the bounds the contract names."""

import math
from functools import partial

import protovalidate
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from parley.v1.agent_service_pb2 import GetRunRequest, ListRunsRequest, StartRunRequest, SteerRunRequest
from parley.v1.api_key_service_pb2 import CreateApiKeyRequest
from parley.v1.content_pb2 import ContentPart, FileRef, Image
from parley.v1.conversation_pb2 import Conversation
from parley.v1.conversation_service_pb2 import CreateConversationRequest, UpdateConversationRequest
from parley.v1.request_context_pb2 import RequestContext
from parley.v1.run_pb2 import ConcurrencyPolicy, Limits, ModelOptions, RunSpec, RunState
from parley.v1.tool_host_service_pb2 import (
    CallToolRequest,
    CallToolResponse,
    HostedTool,
    HostedToolError,
    HostedToolProgress,
    HostedToolResult,
)

VALIDATOR = protovalidate.Validator()
HELLO = ContentPart(text="hello")
a_tool = partial(HostedTool, name="book", description="Books.", input_schema_json="{}", spec_hash="1")
a_call = partial(CallToolRequest, name="book", spec_hash="1", idempotency_key="k", run_id="run_1", call_id="call_1")
PAIRS = {f"key{number}": "value" for number in range(16)}


def _violated(message: Message) -> set[str]:
    """The paths of the fields that break a rule; `` for a rule of the whole message."""
    return {
        ".".join(element.field_name for element in violation.proto.field.elements)
        if violation.proto.field is not None
        else ""
        for violation in VALIDATOR.collect_violations(message)
    }


@pytest.mark.parametrize(
    "message",
    [
        GetRunRequest(run_id="a"),
        GetRunRequest(run_id="A-z_0" + "9" * 59),
        StartRunRequest(run=RunSpec(input=[HELLO])),
        StartRunRequest(run=RunSpec(input=[HELLO] * 32), request_id="~ " * 32),
        StartRunRequest(run=RunSpec(input=[ContentPart(text="x" * 262_144)])),
        StartRunRequest(run=RunSpec(input=[ContentPart(image=Image(uri="https://example.org/a.png"))])),
        StartRunRequest(run=RunSpec(input=[ContentPart(image=Image(data=b"x", media_type="image/svg+xml"))])),
        StartRunRequest(run=RunSpec(input=[HELLO], labels=PAIRS, allowed_tools=["read_file"] * 128)),
        ModelOptions(model="org/model:free@1", temperature=0, top_p=0, max_output_tokens=1, stop=["\n"] * 4),
        ModelOptions(temperature=2, top_p=1, seed=-1),
        Limits(deadline=Duration(nanos=1), max_steps=1, max_tool_calls=0, max_output_tokens=1),
        ListRunsRequest(states=[RunState.RUN_STATE_QUEUED, RunState.RUN_STATE_EXPIRED], labels=PAIRS),
        ListRunsRequest(page_size=2_147_483_647),
        CreateConversationRequest(title="é" * 200, metadata=PAIRS),
        UpdateConversationRequest(
            conversation=Conversation(conversation_id="c"), update_mask=FieldMask(paths=["title", "metadata"])
        ),
        CreateApiKeyRequest(user_id="ann", scopes=["admin", "runs:read"]),
        CreateApiKeyRequest(service_id="bridge", act_as=["telegram:*", "ann@example.org"]),
        CreateApiKeyRequest(user_id="ann", lifetime=Duration(seconds=3650 * 86_400)),
        a_tool(timeout=Duration(seconds=600), required_scopes=["tool:refunds", "admin"], max_retries=2),
        a_call(arguments_json="{}"),
        CallToolResponse(progress=HostedToolProgress(message="m" * 1024, fraction=1.0)),
        CallToolResponse(result=HostedToolResult(result_json="x" * 4_194_304)),
        RequestContext(),
        RequestContext(user_id="telegram:42", time_zone="America/Argentina/Buenos_Aires", locale="sr-Latn-RS"),
        RequestContext(user_id="a" * 128, metadata={"k" * 64: "v" * 256, **dict(list(PAIRS.items())[:15])}),
    ],
    ids=lambda message: str(message)[:60],
)
def test_what_the_contract_allows_breaks_no_rule(message: Message) -> None:
    assert _violated(message) == set()


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (GetRunRequest(), {"run_id"}),
        (GetRunRequest(run_id="a" * 65), {"run_id"}),
        (GetRunRequest(run_id="abc\n"), {"run_id"}),
        (GetRunRequest(run_id="../x"), {"run_id"}),
        (StartRunRequest(), {"run"}),
        (StartRunRequest(run=RunSpec()), {"run.input"}),
        (StartRunRequest(run=RunSpec(input=[HELLO] * 33)), {"run.input"}),
        (StartRunRequest(run=RunSpec(input=[ContentPart()])), {"run.input.content"}),
        (StartRunRequest(run=RunSpec(input=[ContentPart(text="")])), {"run.input.text"}),
        (StartRunRequest(run=RunSpec(input=[ContentPart(text="é" * 131_073)])), {"run.input.text"}),
        (StartRunRequest(run=RunSpec(input=[HELLO], agent_id="no blanks")), {"run.agent_id"}),
        (StartRunRequest(run=RunSpec(input=[HELLO], allowed_tools=["a.b"])), {"run.allowed_tools"}),
        (StartRunRequest(run=RunSpec(input=[HELLO]), request_id="x" * 65), {"request_id"}),
        (StartRunRequest(run=RunSpec(input=[HELLO]), request_id="tab\t"), {"request_id"}),
        (StartRunRequest(run=RunSpec(input=[HELLO]), request_id="é"), {"request_id"}),
        (
            RunSpec(input=[HELLO], concurrency_policy=ConcurrencyPolicy.ValueType(4)),
            {"concurrency_policy"},
        ),
        (SteerRunRequest(run_id="r"), {"input"}),
        (Image(uri="http://example.org"), {"uri"}),
        (Image(data=b"x"), {""}),
        (Image(data=b"x", media_type="text/html"), {"media_type"}),
        (FileRef(), {"file_id"}),
        (ModelOptions(temperature=math.nan), {"temperature"}),
        (ModelOptions(temperature=2.1, top_p=math.inf), {"temperature", "top_p"}),
        (ModelOptions(stop=["a"] * 5), {"stop"}),
        (ModelOptions(stop=["", "a" * 65]), {"stop"}),
        (ModelOptions(max_output_tokens=0, model="a b"), {"max_output_tokens", "model"}),
        (Limits(deadline=Duration(), max_steps=0, max_output_tokens=0), {"deadline", "max_steps", "max_output_tokens"}),
        (Limits(deadline=Duration(seconds=-1)), {"deadline"}),
        (ListRunsRequest(page_size=-1), {"page_size"}),
        (ListRunsRequest(states=[RunState.RUN_STATE_UNSPECIFIED]), {"states"}),
        (ListRunsRequest(labels={**PAIRS, "one": "more"}), {"labels"}),
        (ListRunsRequest(labels={"": "x"}), {"labels"}),
        (CreateConversationRequest(title="é" * 201), {"title"}),
        (UpdateConversationRequest(), {"conversation", "update_mask"}),
        (
            UpdateConversationRequest(conversation=Conversation(), update_mask=FieldMask()),
            {"conversation.conversation_id", "update_mask"},
        ),
        (
            UpdateConversationRequest(
                conversation=Conversation(conversation_id="c"), update_mask=FieldMask(paths=["etag"])
            ),
            {"update_mask"},
        ),
        (CreateApiKeyRequest(), {"principal"}),
        (CreateApiKeyRequest(user_id="ann", act_as=["b"]), {""}),
        (CreateApiKeyRequest(service_id="s", act_as=["*"]), {"act_as"}),
        (CreateApiKeyRequest(service_id="s", act_as=["a*b"]), {"act_as"}),
        (CreateApiKeyRequest(user_id="ann", scopes=["Admin"]), {"scopes"}),
        (CreateApiKeyRequest(user_id="ann", lifetime=Duration()), {"lifetime"}),
        (HostedTool(), {"name", "description", "input_schema_json", "spec_hash"}),
        (a_tool(timeout=Duration(), max_retries=3), {"timeout", "max_retries"}),
        (a_call(), {"arguments_json"}),
        (CallToolRequest(arguments_json="{}"), {"name", "spec_hash", "idempotency_key", "run_id", "call_id"}),
        (a_call(arguments_json="x" * 1_048_577), {"arguments_json"}),
        (CallToolResponse(), {"event"}),
        (CallToolResponse(progress=HostedToolProgress(fraction=math.nan)), {"progress.fraction"}),
        (CallToolResponse(result=HostedToolResult()), {"result.result_json"}),
        (CallToolResponse(error=HostedToolError(code="Not One")), {"error.code"}),
        (RequestContext(user_id="-ann"), {"user_id"}),
        (RequestContext(user_id="a" * 129), {"user_id"}),
        (RequestContext(metadata={"k": "v" * 257}), {"metadata"}),
        (RequestContext(metadata={"k" * 65: "v"}), {"metadata"}),
        (RequestContext(time_zone="Europe Berlin", locale="de_CH"), {"time_zone", "locale"}),
    ],
    ids=lambda value: ",".join(sorted(value)) if isinstance(value, set) else str(value)[:60],
)
def test_what_the_contract_forbids_breaks_a_rule_of_its_field(message: Message, fields: set[str]) -> None:
    assert _violated(message) == fields
