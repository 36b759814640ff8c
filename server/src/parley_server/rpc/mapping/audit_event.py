"""The audit log on the wire."""

import json
from datetime import datetime

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from parley.v1 import admin_service_pb2, audit_event_pb2

from parley_server.domain.audit import RecordedEntry
from parley_server.domain.errors import InvalidRequestError
from parley_server.rpc.mapping.enums import AUDIT_DECISION_NUMBERS, AUDIT_DECISIONS
from parley_server.rpc.mapping.timestamps import to_datetime, to_timestamp
from parley_server.storage.audit_log import AuditFilter


def read_audit_filter(request: admin_service_pb2.ListAuditEventsRequest) -> AuditFilter:
    """Return which entries are asked for. Raises InvalidRequestError for a time that is none."""
    return AuditFilter(
        user_id=request.user_id,
        principal=request.principal,
        action=request.action,
        decision=AUDIT_DECISIONS.get(request.decision),
        start_time=_read_time("start_time", request.start_time) if request.HasField("start_time") else None,
        end_time=_read_time("end_time", request.end_time) if request.HasField("end_time") else None,
    )


def write_audit_event(recorded: RecordedEntry) -> audit_event_pb2.AuditEvent:
    """Return an entry as it is sent."""
    entry = recorded.entry
    return audit_event_pb2.AuditEvent(
        position=recorded.position,
        record_time=to_timestamp(entry.time),
        action=entry.action,
        decision=AUDIT_DECISION_NUMBERS[entry.decision],
        principal=entry.principal,
        actors=entry.actors,
        user_id=entry.user_id,
        object_type=entry.object_type,
        object_id=entry.object_id,
        status=entry.status,
        reason=entry.reason,
        request_id=entry.request_id,
        peer=entry.peer,
        credential_id=entry.credential_id,
        about=entry.about or 0,
        left_out=entry.left_out,
        mac=recorded.mac,
    )


def audit_json(recorded: RecordedEntry) -> str:
    """Return an entry as a line of JSON, with all the fields of an AuditEvent by their names in the proto."""
    fields = MessageToDict(
        write_audit_event(recorded), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    # The usual way of writing 64-bit numbers, as texts, is for readers that have none.
    numbers = {"position": recorded.position, "about": recorded.entry.about or 0, "left_out": recorded.entry.left_out}
    return json.dumps(fields | numbers | {"mac": recorded.mac.hex()}, ensure_ascii=False)


def _read_time(field: str, time: Timestamp) -> datetime:
    try:
        return to_datetime(time)
    except (ValueError, OverflowError):
        raise InvalidRequestError.of(field, "is out of range") from None
