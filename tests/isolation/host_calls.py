"""Whether what tool hosts are handed is of the user they are called for, and the token of this very call."""

from collections import deque

from isolation.delegates import Delegates, speaker_of
from isolation.hosts import DELEGATED, HostCall
from isolation.tokens import SERVER, Expected, TokenClaims, TokenReader
from isolation.world import World

_WHERE = "host call"
# Of calls whose runs nobody was told of: given up at their very beginning.
_MOST_OPEN = 500


class HostCallJudge:
    """Judges every call; by the token it brought somebody calls from then on. The server's keys are in the `reader`.

    Whatever has one of the `denied` words was not to be called any more.
    """

    def __init__(self, world: World, delegates: Delegates) -> None:
        self.reader = TokenReader([])
        self._world = world
        self._delegates = delegates
        self._open: deque[HostCall] = deque(maxlen=_MOST_OPEN)
        self.denied: set[str] = set()

    def take(self, call: HostCall) -> None:
        """Judge a call as far as that can be now."""
        context = call.context
        self._world.scan(context.user_id, _WHERE, _handed(call))
        claims = self.reader.read(context.delegation_token)
        if claims is None:
            self._tell(call, "has no token that is signed so")
            return
        if call.words in self.denied:
            self._tell(call, "changes something for a credential that is revoked")
        for difference in _expected(call, claims).denied_by(claims):
            self._tell(call, f"has a token with {difference}")
        self._delegates.add(speaker_of(context.delegation_token, claims, f"host {call.host}"))
        self._open.append(call)

    def look_again(self) -> None:
        """Judge whose run it was, where somebody has been told that by now."""
        for call in [self._open.popleft() for _ in range(len(self._open))]:
            run = self._world.things.get(call.context.run_id)
            if run is None:
                self._open.append(call)
            elif run.owner != call.context.user_id:
                self._tell(call, f"is in a run of {run.owner}'s")

    def _tell(self, call: HostCall, what: str) -> None:
        self._world.leak(_WHERE, f"{call.host}_{call.context.tool_name} for {call.context.user_id} {what}")


def _handed(call: HostCall) -> bytes:
    """Return all of it but for the token, which is read."""
    context = call.context
    named = (context.request_id, context.run_id, context.call_id, context.idempotency_key, call.words)
    return b" ".join([context.request.SerializeToString(), *(each.encode() for each in named)])


def _expected(call: HostCall, claims: TokenClaims) -> Expected:
    """Return what the token must say: its caller has said of himself in the call that began the run who he is."""
    context = call.context
    said = context.request.metadata
    scopes = DELEGATED[call.host] & frozenset(said["scopes"].split())
    until = float(said["until"] or "inf")
    opens = bool(scopes) and claims.iat < until
    host = f"host:{call.host}"
    # A second for the part of one that its beginning was cut by, and one because its end is rounded up.
    end = claims.iat + call.timeout_s + 2
    return Expected(
        user_id=context.user_id,
        actors=(f"service:{host}", *said["actors"].split()),
        audiences=frozenset({host, SERVER} if opens else {host}),
        scopes=scopes if opens else frozenset(),
        key_id=said["key"],
        latest_end=min(end, until) if opens else end,
        run_id=context.run_id,
        call_id=context.call_id,
    )
