"""Entries of the audit log on the wire and as lines: nothing is lost, and a time that is none is refused."""

import json
from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from parley.v1 import admin_service_pb2 as pb
from parley_server.domain.audit import AuditDecision, AuditEntry, AuditHead, RecordedEntry
from parley_server.domain.errors import InvalidRequestError
from parley_server.rpc.mapping.audit_event import audit_json, read_audit_filter, write_audit_event
from parley_server.storage.audit_log import AuditFilter

ENTRY = AuditEntry(
    datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
    "keys revoke",
    AuditDecision.DENIED,
    principal="operator:root",
    actors=("service:bot", "service:gate"),
    user_id="ann",
    object_type="key",
    object_id="k",
    status="NOT_FOUND",
    reason="RESOURCE_NOT_FOUND",
    request_id="r",
    peer="ipv4:127.0.0.1:1",
    credential_id="c",
    about=2**40,
    left_out=3,
)


def test_every_field_is_told_on_the_wire_and_in_a_line() -> None:
    recorded = RecordedEntry(2**53, ENTRY, bytes(range(32)))
    event = write_audit_event(recorded)
    assert len(event.ListFields()) == len(event.DESCRIPTOR.fields)
    line = json.loads(audit_json(recorded))
    assert set(line) == {field.name for field in event.DESCRIPTOR.fields}
    assert (line["position"], line["decision"], line["mac"]) == (2**53, "AUDIT_DECISION_DENIED", bytes(range(32)).hex())
    assert (line["record_time"], line["about"], line["actors"]) == (
        "2026-01-02T03:04:05.000006Z",
        2**40,
        ["service:bot", "service:gate"],
    )


@pytest.mark.parametrize("field", ["start_time", "end_time"])
@pytest.mark.parametrize("time", [Timestamp(seconds=2**62), Timestamp(nanos=-1)])
def test_a_time_that_is_none_is_refused_by_its_name(field: str, time: Timestamp) -> None:
    request = pb.ListAuditEventsRequest()
    getattr(request, field).CopyFrom(time)
    with pytest.raises(InvalidRequestError) as refused:
        read_audit_filter(request)
    assert [violation.field for violation in refused.value.violations] == [field]


def test_a_filter_of_nothing_lets_everything_pass() -> None:
    assert read_audit_filter(pb.ListAuditEventsRequest()) == AuditFilter()


@given(st.integers(1, 2**62), st.binary(min_size=32, max_size=32))
def test_a_head_is_read_as_it_was_printed(position: int, mac: bytes) -> None:
    head = AuditHead(position, mac)
    assert AuditHead.parse(str(head)) == head


@pytest.mark.parametrize("text", ["", "1", f"0:{'0' * 64}", "1:ab", f" 1:{'0' * 64}", f"1:{'A' * 64}", "1:x"])
def test_what_is_no_head_is_none(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # whatever the parts of it say
        AuditHead.parse(text)
