"""What an MCP server asks the user while a call is under way: who answers, and how it is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mcp_types import ElicitRequestFormParams, ElicitRequestParams, ElicitResult

from parley_server.tools.errors import ConfirmationNeededError
from parley_server.tools.mcp.resumption import Resumption


@dataclass(slots=True)
class Questions:
    """The questions of one call.

    `is_approved` says that the user has approved the call and may be taken to confirm it. Those that were `confirmed`
    before, he has said yes to himself.
    """

    is_approved: bool = False
    confirmed: list[str] = field(default_factory=list)
    declined: list[str] = field(default_factory=list)
    _expected: list[str] = field(default_factory=list)

    def answer(self, asked: ElicitRequestParams) -> ElicitResult:
        """Answer at once: with yes if that is all it can be, and the call was approved; else it is declined."""
        confirmation = _confirmation(asked) if self.is_approved else None
        if confirmation is None:
            self.declined.append(asked.message)
            return ElicitResult(action="decline")
        self.confirmed.append(asked.message)
        return confirmation

    def answers(self, asked: Mapping[str, ElicitRequestParams], state: str | None) -> Resumption:
        """Answer a server that waits for nothing meanwhile, so that the user can be asked what yes or no answers.

        Raises:
            ConfirmationNeededError: he is to be asked.
        """
        confirmations = {key: _confirmation(each) for key, each in asked.items()}
        yes = {key: each for key, each in confirmations.items() if each is not None}
        if not asked or self.is_approved or len(yes) < len(asked):
            return self._at_once(asked, state)
        question = "\n".join(each.message for each in asked.values())
        resumption = Resumption(responses=yes, state=state)
        if self._expected and self._expected.pop(0) == question:
            return resumption
        try:
            needed = ConfirmationNeededError(question, resumption.text)
        except ValueError:
            # He could not be shown all of it.
            return self._at_once(asked, state)
        raise needed

    def expect_again(self) -> None:
        """Expect what was confirmed before to be asked once more, in the same order, since the call begins anew."""
        self._expected = list(self.confirmed)

    def told(self) -> dict[str, object]:
        """Return what a result says of the questions; nothing where there were none."""
        lists = {"confirmed_questions": self.confirmed, "declined_questions": self.declined}
        return {name: questions for name, questions in lists.items() if questions}

    def _at_once(self, asked: Mapping[str, ElicitRequestParams], state: str | None) -> Resumption:
        return Resumption(responses={key: self.answer(each) for key, each in asked.items()}, state=state)


def _confirmation(asked: ElicitRequestParams) -> ElicitResult | None:
    """Return what says yes; None for a question that yes does not answer."""
    if not isinstance(asked, ElicitRequestFormParams):
        return None
    properties = asked.requested_schema.get("properties", {})
    if not isinstance(properties, dict) or len(properties) > 1:
        return None
    is_yes_or_no = all(isinstance(each, dict) and each.get("type") == "boolean" for each in properties.values())
    return ElicitResult(action="accept", content={**dict.fromkeys(properties, True)}) if is_yes_or_no else None
