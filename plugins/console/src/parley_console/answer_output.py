"""The forms in which `parley ask` gives an answer: text, the JSON that was asked for, an object, a line per event."""

import json
import sys

from google.protobuf.json_format import MessageToJson
from parley.v1.run_pb2 import RunState, StopReason
from parley.v1.usage_pb2 import Usage
from parley_client import ParleyError, RunEvent, RunFinished, RunStream

from parley_console.enum_names import name_of
from parley_console.run_view import RunView
from parley_console.unattended import EventListener


class TextOutput:
    """Shows the run; the answer's text is the output. `listener` hears every event after it was shown."""

    def __init__(self, view: RunView, listener: EventListener) -> None:
        self._view = view
        self._listener = listener

    def show(self, event: RunEvent) -> None:
        """Take the run's next event."""
        self._view.show(event)
        self._listener.show(event)

    def interrupted(self) -> None:
        """Take the news that Ctrl-C was pressed."""
        self._view.interrupted()

    def could_not_cancel(self, error: ParleyError) -> None:
        """Take the news that the wish to stop did not reach the server."""
        self._view.could_not_cancel(error)

    def finish(self, stream: RunStream | None, failure: ParleyError | None = None) -> None:  # noqa: ARG002 - for the others
        """Take the end: of the run, of our patience with it, or the failure of a call."""
        self._listener.close()
        self._view.settle()


class JsonAnswerOutput(TextOutput):
    """Writes the answer's JSON on one line when it is certain that it fits, and nothing otherwise."""

    def finish(self, stream: RunStream | None, failure: ParleyError | None = None) -> None:
        """Write the line."""
        super().finish(stream, failure)
        if stream is not None and stream.output_json:
            _write_utf8(stream.output_json)


class EventLinesOutput(TextOutput):
    """Writes every event as one line of ProtoJSON. A call that fails is no event and writes nothing."""

    def show(self, event: RunEvent) -> None:
        """Write the event's line."""
        _write_utf8(MessageToJson(event, indent=None, ensure_ascii=False))
        super().show(event)


class ObjectOutput(TextOutput):
    """Writes one JSON object when all is over."""

    def finish(self, stream: RunStream | None, failure: ParleyError | None = None) -> None:
        """Write the object; what never came to be is empty in it."""
        super().finish(stream, failure)
        finished = (stream and stream.finished) or RunFinished()
        error = failure or (stream and stream.error)
        members = {
            "run_id": stream.run_id if stream else "",
            "conversation_id": stream.conversation_id if stream else "",
            "state": name_of(RunState.DESCRIPTOR, finished.state),
            "stop_reason": name_of(StopReason.DESCRIPTOR, finished.stop_reason),
            "output_text": stream.text if stream else "",
            "output": json.loads(stream.output_json) if stream and stream.output_json else None,
            "usage": _usage(finished.usage),
            "error": error and {"code": error.code.name, "reason": error.reason, "message": error.message},
        }
        _write_utf8(json.dumps(members, ensure_ascii=False))


def _usage(usage: Usage) -> dict[str, object]:
    """Write numbers as numbers; what is not told is left out."""
    told = {field.name for field, _ in usage.ListFields()}
    fields = [field.name for field in usage.DESCRIPTOR.fields if not field.has_presence or field.name in told]
    return {name: getattr(usage, name) for name in fields}


def _write_utf8(line: str) -> None:
    """Write a line of JSON, which is UTF-8 whatever the locale says."""
    sys.stdout.buffer.write(line.encode() + b"\n")
    sys.stdout.buffer.flush()
