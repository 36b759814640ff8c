"""The RequestContext in a call's metadata: binary and ProtoJSON, to and from the domain."""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from parley.v1 import request_context_pb2 as pb
from pydantic import ValidationError

from parley_server.domain.access_errors import ContextInvalidError
from parley_server.domain.context import MAX_CONTEXT_BYTES, ClientInfo, ContextClaim, RequestContext
from parley_server.domain.errors import Violation
from parley_server.rpc.mapping.timestamps import to_datetime, to_timestamp

BINARY_KEY = "parley-context-bin"
JSON_KEY = "parley-context"
# Either spelling of a field's name, to the one it stands for.
_FIELDS = {
    name: field.name for field in pb.RequestContext.DESCRIPTOR.fields for name in (field.name, field.camelcase_name)
}


def claim_from_binary(raw: bytes) -> ContextClaim:
    """Read the serialized message; fields it does not know are ignored. Raises ContextInvalidError."""
    if len(raw) > MAX_CONTEXT_BYTES:
        raise _invalid(BINARY_KEY, f"is over {MAX_CONTEXT_BYTES} bytes")
    try:
        message = pb.RequestContext.FromString(raw)
    except DecodeError:
        raise _invalid(BINARY_KEY, "is not a RequestContext") from None
    timestamp = _timestamp_of(message, BINARY_KEY)
    message.ClearField("timestamp")
    return _lasting_claim(message.SerializeToString()).at(timestamp)


def claim_from_json(text: str) -> ContextClaim:
    """Read ProtoJSON; a name it does not know, or one that comes twice, is an error. Raises ContextInvalidError."""
    if len(text) > MAX_CONTEXT_BYTES:
        raise _invalid(JSON_KEY, f"is over {MAX_CONTEXT_BYTES} bytes")
    try:
        message = json_format.ParseDict(_read_object(text), pb.RequestContext())
    except (json_format.ParseError, ValueError, RecursionError):
        raise _invalid(JSON_KEY, "is not a RequestContext in ProtoJSON") from None
    return _claim_of(message, JSON_KEY)


def to_binary(source: ContextClaim | RequestContext) -> bytes:
    """Serialize what a caller would send for this context."""
    return to_message(source).SerializeToString(deterministic=True)


def to_json(source: ContextClaim | RequestContext) -> str:
    """Write what a caller would send for this context as ProtoJSON, on one line."""
    return json_format.MessageToJson(to_message(source), indent=None)


def to_message(source: ContextClaim | RequestContext) -> pb.RequestContext:
    """Return the contract's message; who the caller was proved to be is not part of it."""
    client = source.client
    return pb.RequestContext(
        user_id=source.user_id,
        metadata=source.metadata,
        timestamp=None if source.timestamp is None else to_timestamp(source.timestamp),
        time_zone=source.time_zone,
        locale=source.locale,
        client=None
        if client == ClientInfo()
        else pb.ClientInfo(name=client.name, version=client.version, channel=client.channel),
    )


def _read_object(text: str) -> dict[str, object]:
    """Read an object that says everything once. Raises ParseError, ValueError or RecursionError for other text."""
    found = json.loads(text, object_pairs_hook=_said_once)
    if not isinstance(found, dict):
        raise json_format.ParseError("not an object")
    # json_format reads both spellings of a field as well, and would let the second one win.
    _said_once([(str(_FIELDS.get(name, name)), value) for name, value in found.items()])
    return found


def _said_once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Return the pairs as an object. Raises ValueError for a name that comes twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


@lru_cache(maxsize=256)
def _lasting_claim(raw: bytes) -> ContextClaim:
    """Return what a claim says besides its timestamp: the same in all calls of most clients, and half of the cost."""
    return _claim_of(pb.RequestContext.FromString(raw), BINARY_KEY)


def _timestamp_of(message: pb.RequestContext, key: str) -> datetime | None:
    try:
        return to_datetime(message.timestamp) if message.HasField("timestamp") else None
    except (ValueError, OverflowError):
        raise _invalid(key, "timestamp is out of bounds") from None


def _claim_of(message: pb.RequestContext, key: str) -> ContextClaim:
    client = message.client
    try:
        return ContextClaim(
            user_id=message.user_id,
            metadata=dict(message.metadata),
            timestamp=_timestamp_of(message, key),
            time_zone=message.time_zone,
            locale=message.locale,
            client=ClientInfo(name=client.name, version=client.version, channel=client.channel),
        )
    except ValidationError as error:
        fields = sorted({str(fault["loc"][0]) for fault in error.errors(include_input=False, include_url=False)})
        raise _invalid(key, *(f"{field} is out of bounds" for field in fields)) from None


def _invalid(key: str, *faults: str) -> ContextInvalidError:
    return ContextInvalidError(
        f"{key}: {'; '.join(faults)}",
        metadata={"key": key},
        violations=[Violation(key, fault) for fault in faults],
    )
