"""What the users of a server did and saw, in a form that can be judged once it is over."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2
from parley.v1 import run_event_pb2

# It knows what a run's error holds because its module is imported.
_POOL = error_details_pb2.DESCRIPTOR.pool
# After these the caller cannot know whether it was done, and asks again.
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
# Refusals that are no fault of the server's: a conversation with four waiting runs, words for a run that has ended.
REFUSALS = (("StartRun", "RESOURCE_EXHAUSTED"), ("RunAgent", "RESOURCE_EXHAUSTED"), ("SteerRun", "FAILED_PRECONDITION"))


class Outcome(StrEnum):
    """How a call ended, as far as its caller can know."""

    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Operation:
    """One call; times in nanoseconds since 1970."""

    user: str
    kind: str
    target: str
    invoke_ns: int
    end_ns: int
    outcome: Outcome
    detail: str = ""


@dataclass
class Wish:
    """A run that a user asked for: `run_ids` are what he was told it is, one if all is well, none until then.

    `steers` are the ids that the words he added were given, by request; empty while it is not known.
    """

    user: str
    request_id: str
    prompt: str
    in_conversation: str
    run_ids: list[str] = field(default_factory=list)
    conversation_id: str = ""
    cancel_confirmed: bool = False
    steers: dict[str, str] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        """The run; empty until it was acknowledged."""
        return self.run_ids[0] if self.run_ids else ""


@dataclass
class Reading:
    """Events that one stream has brought, from the one after `after_seq`; `is_whole` when it ended with OK."""

    user: str
    after_seq: int = 0
    events: list[run_event_pb2.RunEvent] = field(default_factory=list)
    is_whole: bool = False


@dataclass
class History:
    """Everything that was done and seen while the server was killed; `kills` are (what was hit, when) in order."""

    operations: list[Operation] = field(default_factory=list)
    wishes: list[Wish] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    kills: list[tuple[str, int]] = field(default_factory=list)

    @contextmanager
    def operation(self, user: str, kind: str, target: str) -> Iterator[Reading]:
        """Record a call, however it ends; a stream that is cut counts as answered by its first event."""
        invoked = time.time_ns()
        outcome, detail = Outcome.UNKNOWN, ""
        reading = Reading(user)
        try:
            yield reading
            outcome = Outcome.OK
        except grpc.aio.AioRpcError as error:
            detail = f"{error.code().name}: {error.details()}"
            if error.code() not in PASSING:
                outcome = Outcome.FAIL
            elif reading.events:
                outcome = Outcome.OK
            raise
        finally:
            self.operations.append(Operation(user, kind, target, invoked, time.time_ns(), outcome, detail))
            if reading.events or reading.is_whole:
                self.readings.append(reading)

    def write(self, path: Path) -> None:
        """Write it as JSON lines, for whoever has to find out what went wrong."""
        with path.open("w", encoding="utf-8") as file:
            for entry in [*self.operations, *self.wishes]:
                file.write(json.dumps({type(entry).__name__: vars(entry)}) + "\n")
            for kill in self.kills:
                file.write(json.dumps({"Kill": kill}) + "\n")
            for reading in self.readings:
                events = [json_format.MessageToDict(event, descriptor_pool=_POOL) for event in reading.events]
                entry_of = {"user": reading.user, "after_seq": reading.after_seq, "events": events}
                file.write(json.dumps({"Reading": entry_of}) + "\n")
