"""Run events: the bytes that are both stored and sent.

They are a `WatchRunResponse` with the event as its one field; a `RunAgentResponse` has the same shape on the wire,
so that a stored event is sent by either rpc as it is.
"""

from datetime import UTC, datetime

from google.protobuf.message import DecodeError
from parley.v1.agent_service_pb2 import WatchRunResponse
from parley.v1.run_event_pb2 import RunEvent as RunEventMessage

from parley_server.domain.run import Run
from parley_server.domain.run_event import RunEvent
from parley_server.rpc.mapping.run import write_run
from parley_server.rpc.mapping.run_event_reader import read_body
from parley_server.rpc.mapping.run_event_writer import write_body
from parley_server.rpc.mapping.timestamps import set_timestamp, to_datetime

_FLEETING = frozenset({"text_delta", "reasoning_delta", "tool_call_progress"})


class ProtoEventCodec:
    """The EventCodec of the contract."""

    def encode(self, event: RunEvent) -> bytes:
        """Serialize a numbered event."""
        response = WatchRunResponse()
        target = response.event
        target.run_id = event.run_id
        target.conversation_id = event.conversation_id
        target.seq = event.seq
        set_timestamp(target.emit_time, event.emit_time)
        target.attempt = event.attempt
        target.item_id = event.item_id
        write_body(target, event.body)
        return response.SerializeToString()

    def decode(self, payload: bytes) -> RunEvent:
        """Read `encode`'s bytes; a body this version does not know becomes a `Warned`. Raises ValueError for others."""
        source = _parsed(payload)
        return RunEvent(
            run_id=source.run_id,
            conversation_id=source.conversation_id,
            seq=source.seq,
            emit_time=to_datetime(source.emit_time),
            attempt=source.attempt,
            item_id=source.item_id,
            body=read_body(source),
        )

    def is_fleeting(self, payload: bytes) -> bool:
        """Tell whether an event is a delta or a tool's progress."""
        return _parsed(payload).WhichOneof("event") in _FLEETING


def _parsed(payload: bytes) -> RunEventMessage:
    try:
        return WatchRunResponse.FromString(payload).event
    except DecodeError as error:
        raise ValueError("the bytes are no event") from error


def history_truncated(run: Run, first_available_seq: int) -> bytes:
    """Return the notice that events before that seq are folded away: seq 0, not stored."""
    response = WatchRunResponse()
    event = response.event
    event.run_id, event.conversation_id, event.attempt = run.run_id, run.conversation_id, run.attempt
    set_timestamp(event.emit_time, datetime.now(UTC))
    event.history_truncated.first_available_seq = first_available_seq
    event.history_truncated.run.CopyFrom(write_run(run))
    return response.SerializeToString()


def heartbeat(run: Run, last_seq: int) -> bytes:
    """Return the sign of life of a quiet stream: seq 0, not stored; `last_seq` is the seq that was sent last."""
    response = WatchRunResponse()
    response.event.run_id = run.run_id
    response.event.conversation_id = run.conversation_id
    response.event.attempt = run.attempt
    set_timestamp(response.event.emit_time, datetime.now(UTC))
    response.event.heartbeat.last_seq = last_seq
    return response.SerializeToString()
