"""The rule that no event of a run is lost or repeated."""

from parley.v1.run_event_pb2 import RunEvent

from parley_client.errors import ProtocolError


class EventOrder:
    """Checks the events of one run against the place its reader has reached, over any number of streams.

    `last_seq` is the seq of the last event; to go on, attach after it.
    """

    def __init__(self, run_id: str, last_seq: int) -> None:
        self.run_id = run_id
        self.last_seq = last_seq
        self._may_skip = False

    def attached(self) -> None:
        """Note that a new stream begins; what the stream before said about gaps does not hold for it."""
        self._may_skip = False

    def check(self, event: RunEvent) -> None:
        """Take the next event of the stream. Raises ProtocolError when it is not the one that has to come."""
        if self.run_id and event.run_id != self.run_id:
            raise ProtocolError(f"an event of run {event.run_id!r} came in the stream of {self.run_id!r}")
        self.run_id = event.run_id
        match event.WhichOneof("event"):
            case "heartbeat":
                return
            case "history_truncated":
                self._may_skip = True
            case _:
                self._advance_to(event.seq)

    def _advance_to(self, seq: int) -> None:
        expected = self.last_seq + 1
        if seq < expected or (seq > expected and not self._may_skip):
            raise ProtocolError(f"event {seq} came where {expected} had to")
        self.last_seq = seq
