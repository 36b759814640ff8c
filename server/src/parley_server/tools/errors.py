"""Why a call brought no result, told to the model in words it can act on. Never exception text, paths or hosts."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar, Self

from parley_server.domain.approval import MAX_QUESTION_BYTES, MAX_QUESTION_STATE_BYTES, Confirmation
from parley_server.domain.content import storable_text
from parley_server.domain.tool import ToolCallStatus, ToolEffect

_NEAREST = 3


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One argument that breaks a rule; `path` is its place (`items[0].price`), empty for the arguments as a whole."""

    path: str
    problem: str


class ToolError(Exception):
    """An error meant for the model, raised by a tool.

    `code` is stable and in snake_case, `message` a sentence, `hint` says what to do instead, `retryable` whether
    the same call may work later. All four reach the model and the user.
    """

    status: ClassVar[ToolCallStatus] = ToolCallStatus.ERROR

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str = "",
        retryable: bool = False,
        fields: Sequence[FieldProblem] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.retryable = retryable
        self.fields = tuple(fields)

    def edited(self, edit: Callable[[str], str]) -> Self:
        """Put what `edit` returns in the place of its texts, and return it."""
        self.message, self.hint = edit(self.message), edit(self.hint)
        self.fields = tuple(FieldProblem(edit(each.path), edit(each.problem)) for each in self.fields)
        return self


class ConfirmationNeededError(ToolError):
    """The tool has a question to the user, in its own words, and has done nothing yet.

    He is asked as for an approval, in which `state` is kept for the tool. When he says yes it is called again, with
    the same arguments and idempotency key, and with the question in `ToolContext.confirmed`; else it is not called.

    Raises:
        ValueError: there is no question, it or the state is too long, or one of them cannot be stored.
    """

    def __init__(self, question: str, state: str = "") -> None:
        if not question.strip() or any(text != storable_text(text) for text in (question, state)):
            raise ValueError("it is empty, or has characters that cannot be stored")
        if len(question.encode()) > MAX_QUESTION_BYTES or len(state.encode()) > MAX_QUESTION_STATE_BYTES:
            raise ValueError("it is too long")
        super().__init__("confirmation_needed", "The tool waits for the user's yes.")
        self.confirmation = Confirmation(question, state)

    @property
    def question(self) -> str:
        """What the user is asked."""
        return self.confirmation.question

    def edited(self, edit: Callable[[str], str]) -> Self:
        """Put what `edit` returns in the place of the question; see `ToolError.edited`."""
        question = edit(self.question).encode()[:MAX_QUESTION_BYTES].decode(errors="ignore")
        self.confirmation = Confirmation(question, self.confirmation.state)
        return super().edited(edit)


class InvalidArgumentsError(ToolError):
    """The arguments do not parse or do not fit the tool's schema."""

    status = ToolCallStatus.INVALID_ARGUMENTS

    def __init__(self, fields: Sequence[FieldProblem]) -> None:
        hint = "Correct the arguments and call the tool again."
        super().__init__("invalid_arguments", "The arguments do not fit the tool.", hint=hint, fields=fields)


class UnknownToolError(ToolError):
    """The model named a tool that is not there, or that this run may not use."""

    status = ToolCallStatus.UNKNOWN_TOOL

    def __init__(self, name: str, allowed: Collection[str]) -> None:
        nearest = get_close_matches(name, sorted(allowed), n=_NEAREST, cutoff=0.0)
        hint = f"Nearest tools: {', '.join(nearest)}." if nearest else "There are no tools in this run."
        super().__init__("unknown_tool", f"There is no tool named {name!r}.", hint=hint)


class PermissionDeniedError(ToolError):
    """The caller lacks a scope that the tool asks for."""

    status = ToolCallStatus.DENIED

    def __init__(self, name: str, missing: Collection[str]) -> None:
        message = f"The user may not use {name}: the credential lacks the scope {', '.join(sorted(missing))}."
        super().__init__("permission_denied", message, hint="Go on without this tool, and tell the user so.")


class TooManyCallsError(ToolError):
    """The call lies beyond what one turn, or the run, may still make."""

    status = ToolCallStatus.TOO_MANY_CALLS

    def __init__(self, limit: int) -> None:
        message = f"Not run: only the first {limit} calls of this turn were allowed."
        super().__init__("too_many_calls", message, hint="Make fewer calls at once.")


class DuplicateCallError(ToolError):
    """The same call with an effect was made before in this turn."""

    status = ToolCallStatus.DUPLICATE

    def __init__(self, original_call_id: str) -> None:
        message = f"Not run again: {original_call_id} in this turn is the same call with the same arguments."
        super().__init__("duplicate", message, hint="Use the result of that call.")
        self.original_call_id = original_call_id


class LoopDetectedError(ToolError):
    """The model has made a call of its turn too often in a row, which ends the run."""

    status = ToolCallStatus.DENIED

    def __init__(self) -> None:
        super().__init__("loop_detected", "Not run: the run ends, since its model repeats itself without getting on.")


class ToolTimedOutError(ToolError):
    """The tool did not answer in time."""

    status = ToolCallStatus.TIMED_OUT

    def __init__(self, timeout_s: float, effect: ToolEffect) -> None:
        is_write = effect is ToolEffect.WRITE
        hint = "It may have taken effect all the same: check before you repeat it." if is_write else ""
        message = f"The tool did not answer within {timeout_s:.3g} seconds."
        super().__init__("timeout", message, hint=hint, retryable=not is_write)


class ToolGoneError(ToolError):
    """The tool was there when the call was planned, and is not any more; the call has had no effect."""

    def __init__(self) -> None:
        hint = "Go on without it, or try again later."
        super().__init__("unavailable", "The tool is not there at the moment.", hint=hint, retryable=True)


class ToolTimeUsedUpError(ToolError):
    """The tools of the run have had all their time, so that the call is not begun."""

    status = ToolCallStatus.TIMED_OUT

    def __init__(self, limit_s: float) -> None:
        message = f"Not run: the tools of this run have been at work for the {limit_s:g} seconds they may."
        super().__init__("tool_time_used_up", message, hint="Answer the user with what you have.")


class CallCancelledError(ToolError):
    """The run ended before the tool had answered."""

    status = ToolCallStatus.CANCELLED

    def __init__(self) -> None:
        super().__init__("cancelled", "The run was stopped before the tool answered.")


class UnknownOutcomeError(ToolError):
    """A WRITE was under way when the run was cut, or the way to its tool: it may have happened, and is not repeated."""

    status = ToolCallStatus.UNKNOWN_OUTCOME

    def __init__(self, what: str = "The run was cut while the tool was at work") -> None:
        message = f"{what}: it may or may not have taken effect."
        hint = "Do not repeat it before you have checked whether it happened, or asked the user."
        super().__init__("unknown_outcome", message, hint=hint)


class ResultLostError(ToolError):
    """The history has a call and not what it came to."""

    status = ToolCallStatus.UNKNOWN_OUTCOME

    def __init__(self) -> None:
        message = "What this call came to is not known any more: it may or may not have taken effect."
        super().__init__("unknown_outcome", message, hint="Check before you repeat it, or ask the user.")


class ResultTooLargeError(ToolError):
    """The tool's result is larger than anything that is kept."""

    def __init__(self) -> None:
        super().__init__("result_too_large", "The tool's result is too large.", hint="Ask for less at once.")


class ToolFailedError(ToolError):
    """The tool broke; what happened is in the server's log under `error_id`."""

    def __init__(self, error_id: str) -> None:
        super().__init__("internal", f"The tool failed (error id {error_id}).")
