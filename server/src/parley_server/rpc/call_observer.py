"""What is kept of calls: every one ends with exactly one outcome, in the metrics and in the request log."""

import asyncio
from dataclasses import dataclass

from parley_server.metrics.recorder import SILENT, CallType, MethodRecorder, Recorder
from parley_server.rpc.call import Call
from parley_server.rpc.connections import connected_peers
from parley_server.rpc.outcome import CANCELLED, DISCONNECTED, Outcome, Tally
from parley_server.rpc.request_log import RequestLog

# The core strikes a connection off its book a moment after the calls on it have ended.
SETTLE_S = 0.02
# Reading the book takes time for many connections, so a flood of cancels shares one reading.
SETTLE_GAP_S = 0.25


@dataclass(frozen=True, slots=True)
class _Departure:
    """A call whose caller left by cancel or by disconnecting; which of the two is not known yet."""

    call: Call
    tally: Tally
    peer: str


class CallObserver:
    """Hears of every call's end."""

    def __init__(self, recorder: Recorder = SILENT, request_log: RequestLog | None = None) -> None:
        self.recorder = recorder
        self._request_log = request_log
        self._departures: list[_Departure] = []
        self._settled_at = 0.0

    def method(self, name: str, call_type: CallType) -> MethodRecorder:
        """Return what counts a method's calls."""
        return self.recorder.method(name, call_type)

    def ended(self, call: Call, tally: Tally, outcome: Outcome) -> None:
        """Note a call's one outcome, now."""
        tally.stop()
        self._note(call, tally, outcome)

    def left(self, call: Call, tally: Tally) -> None:
        """Note, in a moment, a call whose caller cancelled it or is gone."""
        tally.stop()
        call.request = None
        if not self._departures:
            loop = asyncio.get_running_loop()
            loop.call_later(max(SETTLE_S, self._settled_at + SETTLE_GAP_S - loop.time()), self.settle)
        peer = call.peer()
        # The core forgets it with the call: asked later, it reads what is freed, and the process dies of it.
        call.peer = lambda: peer
        self._departures.append(_Departure(call, tally, peer))

    def settle(self) -> None:
        """Decide of the callers who left: whose connection is still there has cancelled."""
        departures, self._departures = self._departures, []
        if not departures:
            return
        peers = connected_peers()
        self._settled_at = asyncio.get_running_loop().time()
        for departure in departures:
            self._note(departure.call, departure.tally, CANCELLED if departure.peer in peers else DISCONNECTED)

    def _note(self, call: Call, tally: Tally, outcome: Outcome) -> None:
        tally.recorder.ended(outcome.code, outcome.end, tally.seconds)
        if self._request_log is not None:
            self._request_log.write(call, tally, outcome)
