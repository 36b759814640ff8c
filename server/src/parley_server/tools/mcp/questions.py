"""What an MCP server asks the user while a call is under way, when no user waits: who answers, and how it is told."""

from dataclasses import dataclass, field

from mcp_types import ElicitRequestFormParams, ElicitRequestParams, ElicitResult


@dataclass(slots=True)
class Questions:
    """The questions of one call. `is_approved` says that the user has approved it and may be taken to confirm it."""

    is_approved: bool = False
    confirmed: list[str] = field(default_factory=list)
    declined: list[str] = field(default_factory=list)

    def answer(self, asked: ElicitRequestParams) -> ElicitResult:
        """Answer a question: with yes if that is all it can be, and the call was approved; else it is declined."""
        confirmation = _confirmation(asked) if self.is_approved else None
        if confirmation is None:
            self.declined.append(asked.message)
            return ElicitResult(action="decline")
        self.confirmed.append(asked.message)
        return ElicitResult(action="accept", content={**confirmation})

    def told(self) -> dict[str, object]:
        """Return what a result says of the questions; nothing where there were none."""
        lists = {"confirmed_questions": self.confirmed, "declined_questions": self.declined}
        return {name: questions for name, questions in lists.items() if questions}


def _confirmation(asked: ElicitRequestParams) -> dict[str, bool] | None:
    """Return what says yes; None for a question that yes does not answer."""
    if not isinstance(asked, ElicitRequestFormParams):
        return None
    properties = asked.requested_schema.get("properties", {})
    if not isinstance(properties, dict) or len(properties) > 1:
        return None
    is_yes_or_no = all(isinstance(each, dict) and each.get("type") == "boolean" for each in properties.values())
    return dict.fromkeys(properties, True) if is_yes_or_no else None
