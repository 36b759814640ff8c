"""The request log: a line for every call at its end, without a word of what was said in it."""

import hashlib
from functools import lru_cache

import structlog

from parley_server.auth.peer import ip_address_of
from parley_server.domain.principal import SERVICE_PREFIX
from parley_server.rpc.call import Call
from parley_server.rpc.outcome import OK, Outcome, Tally

_NAME_BYTES = 8

_log = structlog.get_logger(__name__)


class RequestLog:
    """Writes the lines. With a `name_key` users are told apart by it and not named."""

    def __init__(self, name_key: bytes = b"") -> None:
        self._log = _log.bind()
        # The key has other uses, and what it makes for one must say nothing to another.
        self._name_key = hashlib.blake2b(name_key, person=b"request-log").digest() if name_key else b""

    def write(self, call: Call, tally: Tally, outcome: Outcome) -> None:
        """Write a call's line; the health of a healthy server is told at debug level alone."""
        fields = {
            "method": call.method.name,
            "code": outcome.code,
            "end": outcome.end.value,
            "duration_ms": round(tally.seconds * 1000, 3),
            "sent": tally.sent_messages,
            "request_id": call.metadata.request_id,
            "peer": _address(call.peer()),
        }
        if outcome.reason:
            fields["reason"] = outcome.reason
        if call.principal is not None:
            fields["principal"] = f"{call.principal.kind.value}:{self._name(call.principal.subject)}"
        if call.context is not None:
            fields["user"] = self._user(call.context.user_id)
            if call.context.actors:
                fields["actors"] = " ".join(self._actor(actor) for actor in call.context.actors)
        if call.method.is_public and outcome is OK:
            self._log.debug("call", **fields)
        else:
            self._log.info("call", **fields)

    def _user(self, user_id: str) -> str:
        """Name a user; a service's own things by the word that it is named by as a caller."""
        return self._actor(user_id) if user_id.startswith(SERVICE_PREFIX) else self._name(user_id)

    def _actor(self, actor: str) -> str:
        kind, _, subject = actor.partition(":")
        return f"{kind}:{self._name(subject)}"

    def _name(self, user_id: str) -> str:
        if not self._name_key:
            return user_id
        return hashlib.blake2b(user_id.encode(), key=self._name_key, digest_size=_NAME_BYTES).hexdigest()


@lru_cache(maxsize=1024)
def _address(peer: str) -> str:
    """Return a peer's address without its port, which says nothing tomorrow."""
    address = ip_address_of(peer)
    return "unix" if address is None else str(address)
