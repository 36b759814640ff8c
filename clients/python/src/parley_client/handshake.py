"""Why two ends could not agree to talk, out of what gRPC says when a connection fails."""

import re
from typing import Final

_UNTRUSTED: Final = re.compile(r"CERTIFICATE_VERIFY_FAILED: (?P<why>[^:]+)")
_OTHER_HOST: Final = re.compile(r"Hostname Verification Check failed|is not in peer certificate")
# Before the connection stood, and not while a call was under way: that is a server that went.
_CLOSED: Final = re.compile(r"failed to connect to all addresses; last error: .*(Socket closed|Connection reset)")


def handshake_fault(details: str) -> str:
    """Return what went wrong in the handshake, as a sentence without its end; empty when it was something else."""
    if untrusted := _UNTRUSTED.search(details):
        return f"the server's certificate is not trusted: {untrusted['why']}"
    if _OTHER_HOST.search(details):
        return "the server's certificate is for another host"
    if "WRONG_VERSION_NUMBER" in details:
        return "the server does not speak TLS"
    if _CLOSED.search(details):
        return "the server closed the connection at once: it may want TLS, or a client certificate that it trusts"
    return ""
