"""What became of a call that an MCP server did not answer with a result, in words for the model."""

from http import HTTPStatus

from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INVALID_PARAMS, METHOD_NOT_FOUND, PARSE_ERROR, REQUEST_TIMEOUT

from parley_server.domain.tool import ToolEffect
from parley_server.tools.errors import FieldProblem, InvalidArgumentsError, ToolError, UnknownOutcomeError
from parley_server.tools.mcp import http

_LATER = "Try again later."
_RENEW = "The user has to renew the credential, or the operator to set it right; do not repeat the call."
# No answer, or none that says what happened.
_LOST_CODES = frozenset({CONNECTION_CLOSED, PARSE_ERROR, REQUEST_TIMEOUT})


def unavailable(message: str = "The tool's server cannot be reached.") -> ToolError:
    """Return the error of a call that was not made."""
    return ToolError("unavailable", message, hint=_LATER, retryable=True)


def lost(effect: ToolEffect) -> ToolError:
    """Return the error of a call that was made and not answered."""
    if effect is ToolEffect.WRITE:
        return UnknownOutcomeError("The tool's server was lost while it was at work")
    return unavailable("The tool's server was lost before it answered.")


def invalid_result(effect: ToolEffect) -> ToolError:
    """Return the error of a call whose answer breaks the protocol."""
    hint = "It has most likely taken effect: check before you repeat it." if effect is ToolEffect.WRITE else ""
    return ToolError("invalid_result", "The tool's server gave an answer that cannot be read.", hint=hint)


def failure(error: MCPError, effect: ToolEffect) -> ToolError:
    """Return what an error of the protocol means for a call; the server's own words go to the model."""
    if error.code in _LOST_CODES:
        return lost(effect)
    if error.code == INVALID_PARAMS:
        return InvalidArgumentsError([FieldProblem("", error.message)])
    if error.code == METHOD_NOT_FOUND:
        return ToolError("unknown_tool", "The tool's server does not have the tool any more.")
    status = status_of(error)
    return ToolError("refused", f"The tool's server refused: {error.message}") if status == 0 else _http(status, effect)


def status_of(error: MCPError) -> int:
    """Return the HTTP status that an error stands for; 0 for none."""
    status = http.STATUS_BASE - error.code
    return status if HTTPStatus.BAD_REQUEST <= status <= http.NOT_SENT else 0


def _http(status: int, effect: ToolEffect) -> ToolError:
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return ToolError("credential_refused", "The tool's server refused the credential.", hint=_RENEW)
        case HTTPStatus.TOO_MANY_REQUESTS:
            message = "The tool's server asks to be called less often."
            return ToolError("rate_limited", message, hint=_LATER, retryable=True)
        case HTTPStatus.NOT_FOUND | http.NOT_SENT:
            return unavailable()
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return lost(effect)
        case _:
            return ToolError("refused", f"The tool's server refused the call (HTTP status {status}).")
