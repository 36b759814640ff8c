"""What an audited call is done to is read off ids, and no request may write anything but an id there."""

import importlib
import pkgutil
from collections.abc import Iterator

import parley.v1
import pytest
from buf.validate import validate_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from parley.v1 import (
    admin_service_pb2,
    agent_service_pb2,
    api_key_service_pb2,
    approval_service_pb2,
    conversation_service_pb2,
    tool_service_pb2,
)
from parley_server.rpc.mapping.audit_object import NOTHING, made_object_reader, object_reader
from parley_server.rpc.service import rule_of


def services() -> Iterator[ServiceDescriptor]:
    for module in pkgutil.iter_modules(parley.v1.__path__):
        if module.name.endswith("_service_pb2"):
            yield from importlib.import_module(f"parley.v1.{module.name}").DESCRIPTOR.services_by_name.values()


def is_audited(method: MethodDescriptor) -> bool:
    rule = rule_of(method)
    return rule is not None and rule.audit


AUDITED = [method for service in services() for method in service.methods if is_audited(method)]


@pytest.mark.parametrize("method", AUDITED, ids=lambda method: method.name)
def test_an_id_of_an_audited_request_is_held_to_a_pattern(method: MethodDescriptor) -> None:
    request_type = GetMessageClass(method.input_type)
    for field in method.input_type.fields:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        request = request_type(**{field.name: "canary"}) if field.name.endswith("_id") else None
        if request is not None and object_reader(request_type)(request) != NOTHING:
            assert rules.string.pattern.startswith("^["), field.full_name
            assert rules.string.pattern.endswith("}$"), field.full_name
            assert " " not in rules.string.pattern, field.full_name


@pytest.mark.parametrize(
    ("request_", "target"),
    [
        (conversation_service_pb2.DeleteConversationRequest(conversation_id="c"), ("conversation", "c")),
        (tool_service_pb2.ResolveToolCallRequest(run_id="r", call_id="c", note="n"), ("run/call", "r/c")),
        (api_key_service_pb2.CreateApiKeyRequest(service_id="bot", request_id="q"), ("service", "bot")),
        (approval_service_pb2.DecideApprovalRequest(approval_id="a", reason="why"), ("approval", "a")),
        (agent_service_pb2.CancelRunRequest(), NOTHING),
        (admin_service_pb2.ListAuditEventsRequest(user_id="ann", principal="user:bob"), ("user", "ann")),
    ],
)
def test_the_object_is_what_the_ids_name(request_: Message, target: tuple[str, str]) -> None:
    assert object_reader(type(request_))(request_) == target


def test_what_was_made_is_what_the_response_alone_names() -> None:
    pb = api_key_service_pb2
    made = made_object_reader(pb.CreateApiKeyRequest, pb.CreateApiKeyResponse)
    assert made(pb.CreateApiKeyResponse(api_key=pb.ApiKey(key_id="k"), secret="s")) == ("key", "k")
    rotated = made_object_reader(pb.RotateApiKeyRequest, pb.RotateApiKeyResponse)
    assert rotated(pb.RotateApiKeyResponse(api_key=pb.ApiKey(key_id="k"))) == NOTHING
