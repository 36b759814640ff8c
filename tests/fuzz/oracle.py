"""What an answer may be: a status the contract documents, in the form it documents. Anything else is a bug."""

import base64
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import unquote

import grpc
from rpc.chassis import read_failure
from siege.connection import Answer

_CODES = {code.value[0]: code for code in grpc.StatusCode}
# What nothing in a request brings about on a server that is well.
_NEVER = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
}
# What the core says by itself: too large, not there, too late; and where a call breaks HTTP/2's or gRPC's own rules.
_OF_THE_CORE = {
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
_OF_THE_CORE_FOR_BROKEN_CALLS = _OF_THE_CORE | {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNAVAILABLE,
}
_MOST_BUGS = 20


@dataclass
class Verdicts:
    """All answers counted, by layer and status, and the bugs among them, each with what reproduces it."""

    counts: Counter[str] = field(default_factory=Counter)
    bugs: list[str] = field(default_factory=list)

    @property
    def are_enough(self) -> bool:
        """Tell whether there are more bugs than anybody reads."""
        return len(self.bugs) >= _MOST_BUGS

    def note(self, layer: str, what: str) -> None:
        """Count what is no status: a reset, a closed connection."""
        self.counts[f"{layer}: {what}"] += 1

    def bug(self, layer: str, what: str, case: str) -> None:
        """Keep a bug."""
        self.note(layer, "BUG")
        self.bugs.append(f"{layer}: {what}\n    {case}")

    def judge(self, layer: str, answer: Answer, case: str, *, is_broken: bool) -> None:
        """Judge a stream's answer; a broken call may be refused by the core with INTERNAL."""
        if answer.status is None:
            self.note(layer, "reset")
            return
        raw = answer.headers.get("grpc-status-details-bin")
        details = None if raw is None else base64.b64decode(raw + "=" * (-len(raw) % 4))
        code = _CODES[answer.status]
        said = unquote(answer.headers.get("grpc-message", ""))
        self.note(layer, code.name)
        if (what := self._fault(code, said, details, dict(answer.headers), is_broken=is_broken)) is not None:
            self.bug(layer, what, case)

    def _fault(
        self,
        code: grpc.StatusCode,
        said: str,
        details: bytes | None,
        trailers: dict[str, str | bytes],
        *,
        is_broken: bool,
    ) -> str | None:
        if code is grpc.StatusCode.OK:
            return None
        if details is None:
            allowed = _OF_THE_CORE_FOR_BROKEN_CALLS if is_broken else _OF_THE_CORE
            return None if code in allowed else f"{code.name} without details: {said}"
        if code in _NEVER:
            return f"{code.name} of ours: {said}"
        try:
            read_failure(code, said, details, trailers)
        except (AssertionError, KeyError) as error:
            return f"{code.name} {said!r} in another form than documented: {error!r}"
        return None
