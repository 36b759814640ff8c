"""Rows 31 to 38, 42, 55 and 58: messages that are none, break a rule, or hold what only looks like trouble."""

from dataclasses import dataclass

import grpc
import pytest
from catalogue.door import Door, text_spec
from google.protobuf import field_mask_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from parley.v1 import agent_service_pb2 as agents
from parley.v1 import api_key_service_pb2 as keys
from parley.v1 import content_pb2, conversation_pb2, run_pb2
from parley.v1 import conversation_service_pb2 as conversations
from rpc.chassis import Failure

MAX_TEXT_BYTES = 256 * 1024
START = agents.StartRunRequest.DESCRIPTOR.full_name
# Of two bytes each: a part of the input without anything in it.
EMPTY_PART = b"\x1a\x00"

HOSTILE = {
    "SQL": "'; DROP TABLE runs; -- \" OR 1=1",
    "HTML": "<script>alert(1)</script><img src=x onerror=alert(1)>&amp;",
    "escape sequences": "\x1b[2J\x1b]0;title\x07\x1b[31mred\x08\x7f\r\n",
    "a formula": '=HYPERLINK("http://example.com","x")\t+1-1@SUM(1)',
    "formats": "%s %n %(name)s {0.__class__} {x.__init__.__globals__} ${HOME} #{7*7}",
    "templates": "{{7*7}} {{''.__class__}} {% for x in y %} <%= 1 %>",
    "paths": "../../etc/passwd C:\\nul \\\\host\\share file:///etc/passwd",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308",
    "right to left": "\u202e\u05e9\u05dc\u05d5\u05dd\u202c \u0645\u0631\u062d\u0628\u0627",
    "four bytes": "\U0010ffff \U00020000 \ufffe\uffff \ufeff",
    "forms": "e\u0301 \u00e9 \ufb01 \u2126",
}
COMBINING = "a" + "\u0301" * 10_000


def run_request(**fields: object) -> agents.StartRunRequest:
    """A good request but for the fields given."""
    spec = text_spec()
    spec.MergeFrom(run_pb2.RunSpec(**fields))  # type: ignore[arg-type]  # names vary
    return agents.StartRunRequest(run=spec)


def input_request(*parts: content_pb2.ContentPart) -> agents.StartRunRequest:
    return agents.StartRunRequest(run=run_pb2.RunSpec(input=parts))


def texts(*values: str) -> agents.StartRunRequest:
    return input_request(*(content_pb2.ContentPart(text=value) for value in values))


def image(**fields: object) -> agents.StartRunRequest:
    return input_request(content_pb2.ContentPart(image=content_pb2.Image(**fields)))  # type: ignore[arg-type]  # vary


def options(**fields: object) -> agents.StartRunRequest:
    return run_request(model_options=run_pb2.ModelOptions(**fields))  # type: ignore[arg-type]  # names vary


def update(*paths: str) -> conversations.UpdateConversationRequest:
    changed = conversation_pb2.Conversation(conversation_id="conv_0", title="t")
    return conversations.UpdateConversationRequest(
        conversation=changed, update_mask=field_mask_pb2.FieldMask(paths=paths)
    )


@dataclass(frozen=True)
class Case:
    """A message that breaks a rule in one field."""

    row: int
    what: str
    request: Message
    field: str

    def __str__(self) -> str:
        return f"{self.row}: {self.what}"


CASES = [
    Case(33, "no run", agents.StartRunRequest(), "run"),
    Case(33, "no input", agents.StartRunRequest(run=run_pb2.RunSpec()), "run.input"),
    Case(33, "a part without content", input_request(content_pb2.ContentPart()), "run.input[0].content"),
    Case(33, "an image without source", image(), "run.input[0].image.source"),
    Case(33, "no principal", keys.CreateApiKeyRequest(), "principal"),
    Case(33, "no mask", conversations.UpdateConversationRequest(), "update_mask"),
    Case(33, "an unknown policy", run_request(concurrency_policy=99), "run.concurrency_policy"),
    Case(33, "an unknown state", agents.ListRunsRequest(states=[99]), "states[0]"),  # type: ignore[list-item]  # bad
    Case(33, "a mask of what is not there", update("title.x"), "update_mask"),
    Case(33, "a mask of everything", update("*"), "update_mask"),
    Case(33, "a mask of what the server sets", update("etag"), "update_mask"),
    Case(33, "patterns for a user", keys.CreateApiKeyRequest(user_id="ann", act_as=["bob"]), ""),
    Case(34, "an empty text", texts(""), "run.input[0].text"),
    Case(34, "a blank text", texts("ok", " \t\r\n\u2003\u00a0"), "run.input[1].text"),
    Case(35, "a text too long", texts("x" * (MAX_TEXT_BYTES + 1)), "run.input[0].text"),
    Case(35, "a text too long in bytes", texts("\u00e9" * (MAX_TEXT_BYTES // 2 + 1)), "run.input[0].text"),
    Case(35, "texts too long together", texts("x" * MAX_TEXT_BYTES, "y"), "run.input"),
    Case(35, "33 parts", texts(*["x"] * 33), "run.input"),
    Case(35, "1,001 states", agents.ListRunsRequest(states=[run_pb2.RUN_STATE_QUEUED] * 1001), "states"),
    Case(35, "17 labels", run_request(labels={str(n): "x" for n in range(17)}), "run.labels"),
    Case(35, "a label too long", run_request(labels={"k": "v" * 257}), 'run.labels["k"]'),
    Case(35, "a label's name too long", run_request(labels={"k" * 65: ""}), "run.labels"),
    Case(35, "a title too long", conversations.CreateConversationRequest(title="t" * 201), "title"),
    Case(35, "4,000,000 letters of an id", agents.GetRunRequest(run_id="x" * 4_000_000), "run_id"),
    Case(36, "NUL in a text", texts("a\0b"), "run.input[0].text"),
    Case(36, "NUL in a title", conversations.CreateConversationRequest(title="a\0"), "title"),
    Case(36, "NUL in metadata", conversations.CreateConversationRequest(metadata={"k": "\0"}), "metadata"),
    Case(36, "NUL in a name", conversations.CreateConversationRequest(metadata={"\0": "v"}), "metadata"),
    Case(36, "NUL in a label", run_request(labels={"k": "\0"}), "run.labels"),
    Case(36, "NUL in a stop text", options(stop=["\0"]), "run.model_options.stop"),
    Case(36, "NUL in an image's address", image(uri="https://example.com/\0"), "run.input[0].image.uri"),
    Case(36, "NUL in a filter", agents.ListRunsRequest(labels={"k": "\0"}), "labels"),
    Case(36, "NUL in a reason", agents.CancelRunRequest(run_id="run_1", reason="\0"), "reason"),
    Case(42, "a request id too long", agents.StartRunRequest(run=text_spec(), request_id="r" * 65), "request_id"),
    Case(
        42, "a request id of other letters", agents.StartRunRequest(run=text_spec(), request_id="\u00e9"), "request_id"
    ),
    Case(42, "a request id with a line feed", agents.StartRunRequest(run=text_spec(), request_id="r\n"), "request_id"),
    Case(42, "NUL in a request id", conversations.CreateConversationRequest(request_id="r\0"), "request_id"),
    Case(55, "no temperature", options(temperature=float("nan")), "run.model_options.temperature"),
    Case(55, "a temperature below 0", options(temperature=-1), "run.model_options.temperature"),
    Case(55, "a temperature above 2", options(temperature=1e9), "run.model_options.temperature"),
    Case(55, "no top_p", options(top_p=float("inf")), "run.model_options.top_p"),
    Case(55, "a top_p above 1", options(top_p=1.1), "run.model_options.top_p"),
    Case(55, "no tokens", options(max_output_tokens=0), "run.model_options.max_output_tokens"),
    Case(55, "a model's name with a blank", options(model="gpt 4"), "run.model_options.model"),
    Case(55, "a model's name with a line feed", options(model="gpt\n"), "run.model_options.model"),
    Case(55, "no steps", run_request(limits=run_pb2.Limits(max_steps=0)), "run.limits.max_steps"),
    Case(55, "too many steps", run_request(limits=run_pb2.Limits(max_steps=2**32 - 1)), "run.limits.max_steps"),
    Case(58, "an image from a file", image(uri="file:///etc/passwd"), "run.input[0].image.uri"),
    Case(58, "an image by gopher", image(uri="gopher://example.com/x"), "run.input[0].image.uri"),
    Case(58, "an image in the clear", image(uri="http://example.com/x"), "run.input[0].image.uri"),
    Case(58, "an image's address with a backslash", image(uri="https://a\\@b.example"), "run.input[0].image.uri"),
    Case(58, "an image's address with a line feed", image(uri="https://a.example/\r\nx"), "run.input[0].image.uri"),
    Case(58, "an image's address too long", image(uri="https://" + "x" * 2048), "run.input[0].image.uri"),
    Case(58, "an image of no type", image(data=b"x"), "run.input[0].image"),
]


def fields_of(failure: Failure) -> list[str]:
    bad_request = failure.details["BadRequest"]
    assert isinstance(bad_request, error_details_pb2.BadRequest)
    return [violation.field for violation in bad_request.field_violations]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_message_that_breaks_a_rule_is_refused_by_the_field(door: Door, case: Case) -> None:
    failure = await (door.admin if isinstance(case.request, keys.CreateApiKeyRequest) else door.ann).refused(
        case.request
    )
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert case.field in fields_of(failure)


async def test_a_million_empty_parts_hold_up_nobody(door: Door) -> None:
    """They took 29 s of the event loop, with which every other call stood still."""
    failure = await door.ann.refused_raw(START, nested(EMPTY_PART * 1_000_000), [])
    assert (failure.reason, fields_of(failure)) == ("INVALID_REQUEST", ["run.input"])
    assert failure.message == "run.input: must contain no more than 32 items"


@pytest.mark.parametrize(
    ("fields", "field", "maximum"),
    [
        ({"allowed_tools": [""] * 1_900_000}, "run.allowed_tools", 128),
        ({"model_options": {"stop": [""] * 1_900_000}}, "run.model_options.stop", 4),
        ({"labels": {str(number): "" for number in range(250_000)}}, "run.labels", 16),
    ],
    ids=["tools", "stop texts", "labels"],
)
async def test_long_lists_and_maps_hold_up_nobody(
    door: Door, fields: dict[str, object], field: str, maximum: int
) -> None:
    """Two million empty texts took two minutes of the event loop."""
    failure = await door.ann.refused_raw(START, run_request(**fields).SerializeToString(), [])
    assert (failure.reason, fields_of(failure)) == ("INVALID_REQUEST", [field])
    assert failure.message == f"{field}: must contain no more than {maximum} items"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\xff\xff\xff\xff", id="garbage"),
        pytest.param(b"\x0a\x05abc", id="truncated"),
        pytest.param(b"\x0a\x02\xff\xfe\x12\x02\xff\xfe", id="bad UTF-8"),
        pytest.param(b"\xff" * 11, id="a varint too long"),
        pytest.param(b"\x7b" * 101, id="101 levels"),
        pytest.param(b"\x7b" * 5000 + b"\x7c" * 5000, id="5,000 levels"),
        pytest.param(b"\x0a\xff\xff\xff\xff\x0f", id="a length of 4 GiB"),
    ],
)
@pytest.mark.parametrize("request_type", [START, "parley.v1.WatchRunRequest"], ids=["unary", "stream"])
async def test_bytes_that_are_no_message_are_refused_without_the_parsers_words(
    door: Door, request_type: str, raw: bytes
) -> None:
    failure = await door.ann.refused_raw(request_type, raw, [])
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")
    assert failure.message == "the request is not a message of the method's type"


async def test_fields_that_are_not_known_are_ignored_and_not_stored(either_door: Door) -> None:
    """An unknown field is also no part of what makes two requests the same."""
    request = conversations.CreateConversationRequest(title="known")
    raw = request.SerializeToString() + b"\xfa\x07\x08from-far"
    made = conversations.CreateConversationResponse.FromString(
        await either_door.ann.ask_raw(request.DESCRIPTOR.full_name, raw)
    )
    got = await either_door.ann.ask_raw(
        conversations.GetConversationRequest.DESCRIPTOR.full_name,
        conversations.GetConversationRequest(conversation_id=made.conversation.conversation_id).SerializeToString(),
    )
    assert b"known" in got
    assert b"from-far" not in got


@pytest.mark.parametrize("text", [*HOSTILE.values(), COMBINING], ids=[*HOSTILE, "10,000 combining marks"])
async def test_any_other_text_is_stored_byte_for_byte_and_nowhere_obeyed(either_door: Door, text: str) -> None:
    ann, short = either_door.ann, text[:190]
    create = conversations.CreateConversationRequest(title=short, metadata={short[:60]: short})
    made = (await ann.ask(create, conversations.CreateConversationResponse)).conversation
    assert (made.title, dict(made.metadata)) == (short, {short[:60]: short})
    spec = text_spec(text, made.conversation_id)
    spec.labels[short[:60]] = short
    run_id = (await ann.run_to_the_end(spec))[0].run_id
    run = (await ann.ask(agents.GetRunRequest(run_id=run_id), agents.GetRunResponse)).run
    assert (run.state, dict(run.labels)) == (run_pb2.RUN_STATE_SUCCEEDED, {short[:60]: short})
    listed = await ann.ask(agents.ListRunsRequest(labels={short[:60]: short}), agents.ListRunsResponse)
    assert run_id in [each.run_id for each in listed.runs]
    messages = await ann.ask(
        conversations.ListMessagesRequest(conversation_id=made.conversation_id), conversations.ListMessagesResponse
    )
    assert messages.messages[0].user.parts[0].text == text
    again = (
        await ann.ask(
            conversations.GetConversationRequest(conversation_id=made.conversation_id),
            conversations.GetConversationResponse,
        )
    ).conversation
    assert (again.title, dict(again.metadata)) == (short, {short[:60]: short})


async def test_a_model_that_nobody_has_fails_the_run_and_not_the_call(door: Door) -> None:
    spec = text_spec()
    spec.model_options.model = "offline-down"
    end = (await door.ann.run_to_the_end(spec))[-1].run_finished
    assert end.state == run_pb2.RUN_STATE_FAILED


async def test_what_is_not_built_is_refused_and_not_passed_over(door: Door) -> None:
    part = content_pb2.ContentPart(file=content_pb2.FileRef(file_id="file_1"))
    failure = await door.ann.refused(input_request(part))
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "FEATURE_NOT_AVAILABLE")


def nested(raw_spec: bytes) -> bytes:
    """Return a StartRunRequest around the bytes of its RunSpec."""
    return b"\x0a" + varint(len(raw_spec)) + raw_spec


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])
