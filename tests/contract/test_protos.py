"""The house rules of the contract, held against the descriptors of parley.v1 and the text of its files."""

import json
import re

import protovalidate
import pytest
from buf.validate import validate_pb2
from contract.contract_files import (
    DECLARATIONS,
    ENUMS,
    FIELDS,
    MESSAGES,
    METHODS,
    REQUEST_FIELDS,
    SERVICES,
    map_entry,
    rules,
    snake_case,
    type_name,
)
from contract.proto_source import Declaration
from google.protobuf import message_factory
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)
from google.protobuf.message import Message
from parley.v1 import access_policy_pb2, run_event_pb2

SCOPES = {
    "account:erase",
    "account:read",
    "account:write",
    "admin",
    "agents:read",
    "approvals:decide",
    "conversations:read",
    "conversations:write",
    "runs:read",
    "runs:write",
}
# The messages of others that ours may use. Empty and Struct are not among them, and never will be.
FOREIGN_MESSAGES = {
    "google.protobuf.Duration",
    "google.protobuf.FieldMask",
    "google.protobuf.Timestamp",
    "google.rpc.Status",
}
ID_PATTERN = "^[A-Za-z0-9_-]{1,64}$"
PRINCIPAL_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._@+:-]{0,127}$"
REQUEST_ID_PATTERN = "^[ -~]{0,64}$"
STATUS_CODES = {
    "ABORTED",
    "ALREADY_EXISTS",
    "DEADLINE_EXCEEDED",
    "FAILED_PRECONDITION",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "OUT_OF_RANGE",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "UNIMPLEMENTED",
}
ONE_OF_A_KIND: dict[int, object] = {
    FieldDescriptor.TYPE_BOOL: True,
    FieldDescriptor.TYPE_BYTES: b"x",
    FieldDescriptor.TYPE_DOUBLE: 1.0,
    FieldDescriptor.TYPE_ENUM: 1,
    FieldDescriptor.TYPE_INT32: 1,
    FieldDescriptor.TYPE_INT64: 1,
    FieldDescriptor.TYPE_STRING: "x",
    FieldDescriptor.TYPE_UINT32: 1,
    FieldDescriptor.TYPE_UINT64: 1,
}
RUN_EVENT_FIELDS = {
    "run_id": 1,
    "conversation_id": 2,
    "seq": 3,
    "emit_time": 4,
    "attempt": 5,
    "item_id": 6,
    "run_accepted": 10,
    "run_started": 11,
    "run_waiting": 12,
    "run_resumed": 13,
    "attempt_restarted": 14,
    "prompt_resolved": 15,
    "text_delta": 16,
    "reasoning_delta": 17,
    "message_completed": 18,
    "tool_call_started": 19,
    "tool_call_progress": 20,
    "tool_call_finished": 21,
    "approval_requested": 22,
    "approval_resolved": 23,
    "steer_applied": 24,
    "usage_updated": 25,
    "warning": 26,
    "run_finished": 27,
    "heartbeat": 28,
    "history_truncated": 29,
    "reasoning_completed": 30,
    "history_compacted": 31,
}


# --- Rpcs ------------------------------------------------------------------------------------------------------------


def test_there_is_a_contract() -> None:
    """The other tests walk over these; an empty list would let them all pass."""
    assert len(METHODS) >= 22
    assert len(MESSAGES) >= 80
    assert len(ENUMS) >= 9


@pytest.mark.parametrize("service", SERVICES, ids=type_name)
def test_a_service_has_a_file_of_its_own(service: ServiceDescriptor) -> None:
    assert service.name.endswith("Service")
    assert service.file.name == f"parley/v1/{snake_case(service.name)}.proto"
    assert list(service.file.services_by_name) == [service.name]


@pytest.mark.parametrize("method", METHODS, ids=type_name)
def test_an_rpc_has_its_own_request_and_response(method: MethodDescriptor) -> None:
    assert method.input_type.full_name == f"parley.v1.{method.name}Request"
    assert method.output_type.full_name == f"parley.v1.{method.name}Response"
    assert not method.client_streaming


@pytest.mark.parametrize("method", METHODS, ids=type_name)
def test_an_rpc_says_who_may_call_it(method: MethodDescriptor) -> None:
    policy = method.GetOptions().Extensions[access_policy_pb2.access_policy]
    rule = policy.WhichOneof("rule")
    assert rule is not None
    if rule == "scope":
        assert policy.scope in SCOPES
    else:
        assert policy.any_authenticated is True


def test_every_scope_is_asked_for() -> None:
    policies = [method.GetOptions().Extensions[access_policy_pb2.access_policy] for method in METHODS]
    assert {policy.scope for policy in policies if policy.scope} == SCOPES


@pytest.mark.parametrize("method", METHODS, ids=type_name)
def test_an_rpc_that_makes_something_takes_a_request_id(method: MethodDescriptor) -> None:
    field = method.input_type.fields_by_name.get("request_id")
    if re.match(r"(Create|Start|Run|Steer|Fork|Trigger|Redeem|Rotate)(?=[A-Z])", method.name):
        assert field is not None
        assert rules(field).string.pattern == REQUEST_ID_PATTERN
    else:
        assert field is None


@pytest.mark.parametrize("method", [m for m in METHODS if m.name.startswith("List")], ids=type_name)
def test_a_list_has_pages(method: MethodDescriptor) -> None:
    asked, answered = method.input_type.fields_by_name, method.output_type.fields_by_name
    assert asked["page_size"].type == FieldDescriptor.TYPE_INT32
    assert rules(asked["page_size"]).int32.gte == 0
    assert asked["page_token"].type == FieldDescriptor.TYPE_STRING
    assert answered["next_page_token"].type == FieldDescriptor.TYPE_STRING
    assert rules(asked["page_token"]).string.max_bytes == rules(answered["next_page_token"]).string.max_bytes
    repeated = [field for field in method.output_type.fields if field.is_repeated]
    assert len(repeated) == 1
    assert repeated[0].number == 1


# --- Messages and fields ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [field for field in FIELDS if field.message_type is not None], ids=type_name)
def test_a_field_holds_our_messages_or_the_allowed_ones(field: FieldDescriptor) -> None:
    assert field.message_type is not None
    name = field.message_type.full_name
    assert name.startswith("parley.v1.") or name in FOREIGN_MESSAGES


@pytest.mark.parametrize("field", FIELDS, ids=type_name)
def test_a_field_states_its_maximum(field: FieldDescriptor) -> None:
    assert _unbounded_parts(field, rules(field)) == []


def _unbounded_parts(field: FieldDescriptor, rules: validate_pb2.FieldRules) -> list[str]:
    """Which parts of a field may grow without end: the field itself, its items, keys or values."""
    entry = map_entry(field)
    if entry is not None:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        return [
            *([] if rules.map.HasField("max_pairs") else ["pairs"]),
            *([] if _is_bounded(key, rules.map.keys) else ["keys"]),
            *([] if _is_bounded(value, rules.map.values) else ["values"]),
        ]
    if field.is_repeated:
        return [
            *([] if rules.repeated.HasField("max_items") else ["number"]),
            *([] if _is_bounded(field, rules.repeated.items) else ["items"]),
        ]
    return [] if _is_bounded(field, rules) else ["length"]


def _is_bounded(field: FieldDescriptor, rules: validate_pb2.FieldRules) -> bool:
    if field.type == FieldDescriptor.TYPE_STRING:
        text = rules.string
        by_length = any(text.HasField(rule) for rule in ("len", "len_bytes", "max_len", "max_bytes"))
        return by_length or _pattern_is_bounded(text.pattern)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rules.bytes.HasField("len") or rules.bytes.HasField("max_len")
    return True


def _pattern_is_bounded(pattern: str) -> bool:
    """Whether a pattern is anchored at both ends and repeats nothing without an upper bound."""
    without_classes = re.sub(r"\[[^\]]*\]", "x", pattern)
    anchored = pattern.startswith("^") and pattern.endswith("$")
    return anchored and re.search(r"[*+]|,\}|\|", without_classes) is None


# These are the server's to set and ignored in requests; request_id has a grammar of its own.
SET_BY_THE_SERVER = {"parley.v1.Conversation.active_run_id", "parley.v1.Account.user_id"}
REQUEST_IDS = [
    field
    for field in REQUEST_FIELDS
    if field.name.endswith("_id") and field.name != "request_id" and field.full_name not in SET_BY_THE_SERVER
]


@pytest.mark.parametrize("field", REQUEST_IDS, ids=type_name)
def test_an_id_in_a_request_has_the_grammar_of_ids(field: FieldDescriptor) -> None:
    principal = field.name in ("user_id", "service_id")
    assert rules(field).string.pattern == (PRINCIPAL_PATTERN if principal else ID_PATTERN)


@pytest.mark.parametrize("field", [f for f in REQUEST_FIELDS if f.enum_type is not None], ids=type_name)
def test_an_enum_in_a_request_takes_known_numbers_alone(field: FieldDescriptor) -> None:
    own = rules(field)
    assert (own.repeated.items if field.is_repeated else own).enum.defined_only


@pytest.mark.parametrize("field", FIELDS, ids=type_name)
def test_a_name_tells_its_type(field: FieldDescriptor) -> None:
    assert field.name != "id"
    kind = field.message_type.full_name if field.message_type is not None else None
    if field.name.endswith("_time"):
        assert kind == "google.protobuf.Timestamp"
    if kind == "google.protobuf.Timestamp":
        assert field.name.endswith("_time") or field.name == "timestamp"
    if field.name.endswith("_json"):
        assert field.type == FieldDescriptor.TYPE_STRING


@pytest.mark.parametrize("message", MESSAGES, ids=type_name)
def test_the_rules_of_a_message_can_be_evaluated(message: Descriptor) -> None:
    """A rule that does not fit its field, or a broken expression, is found here and not by the first caller."""
    validator = protovalidate.Validator()
    validator.collect_violations(message_factory.GetMessageClass(message)())
    for field in message.fields:
        validator.collect_violations(_message_with(message, field))


def _message_with(message: Descriptor, field: FieldDescriptor) -> Message:
    """A message in which one field alone is set, to anything of its type."""
    sample = message_factory.GetMessageClass(message)()
    value = getattr(sample, field.name)
    if map_entry(field) is not None:
        value["key"] = "value"
    elif field.message_type is not None:
        value.add() if field.is_repeated else value.SetInParent()
    elif field.is_repeated:
        value.append(ONE_OF_A_KIND[field.type])
    else:
        setattr(sample, field.name, ONE_OF_A_KIND[field.type])
    return sample


def test_run_event_has_the_numbers_of_the_contract() -> None:
    fields = run_event_pb2.RunEvent.DESCRIPTOR.fields
    assert {field.name: field.number for field in fields} == RUN_EVENT_FIELDS
    in_event = {field.name for field in fields if field.containing_oneof is not None}
    assert in_event == {name for name, number in RUN_EVENT_FIELDS.items() if number >= 10}


# --- Enums -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("enum", ENUMS, ids=type_name)
def test_an_enum_has_its_prefix_and_its_zero(enum: EnumDescriptor) -> None:
    prefix = f"{snake_case(enum.name).upper()}_"
    assert all(value.name.startswith(prefix) for value in enum.values)
    numbers = [value.number for value in enum.values]
    assert numbers == list(range(len(numbers)))
    assert enum.values[0].name == f"{prefix}UNSPECIFIED"


REASONS = [d for d in DECLARATIONS if d.file == "error_reason.proto" and d.kind == "value"][1:]


@pytest.mark.parametrize("reason", REASONS, ids=str)
def test_an_error_reason_names_its_code_and_shows_an_example(reason: Declaration) -> None:
    first = re.match(rf"{reason.name},(?: with| in Run\.error with) ([A-Z_]+)[:,]", reason.comment)
    assert first is not None
    assert first[1] in STATUS_CODES
    example = json.loads(reason.comment.rpartition("\n\n")[2])
    assert example["reason"] == reason.name.removeprefix("ERROR_REASON_")
    assert example["domain"] == "parley.v1"
    assert all(isinstance(value, str) for value in example["metadata"].values())
