"""`/approvals` and `parley approvals`: what the user is asked, in whichever conversation, and his answers."""

from parley.v1.approval_pb2 import APPROVAL_REMEMBER_CONVERSATION, APPROVAL_STATE_PENDING, Approval
from parley_client import ParleyClient

from parley_console.approval_questions import MAX_REASON
from parley_console.approval_text import asked_rows, outcome_text, question_rows, time_left, time_text
from parley_console.lines import Lines
from parley_console.numbered import Numbered
from parley_console.screen import Style
from parley_console.tool_line import call_text


class ApprovalCommands:
    """Lists and answers. Every method raises ParleyError."""

    def __init__(self, client: ParleyClient, lines: Lines) -> None:
        self._client = client
        self._lines = lines
        self._listed: Numbered[Approval] = Numbered(lambda approval: approval.approval_id)

    async def obey(self, argument: str) -> None:
        """Do what was typed after `/approvals`."""
        verb, chosen, reason = [*argument.split(maxsplit=2), "", "", ""][:3]
        if not verb:
            await self.show_pending()
            return
        approval = self._listed.named(chosen)
        if verb not in {"approve", "always", "deny", "show"}:
            self._note("/approvals [approve|always|deny|show NUMBER [REASON]]")
        elif approval is None:
            self._note(f"there is no approval {chosen}; /approvals lists them" if chosen else "which? give its number")
        elif verb == "show":
            self.show(approval)
        elif verb == "deny":
            await self.deny(approval.approval_id, reason)
        else:
            await self.approve(approval.approval_id, reason, always=verb == "always")

    async def show_pending(self) -> None:
        """Write a numbered line for everything the user is asked, the oldest first."""
        pending = [approval async for approval in self._client.approvals.list(states=[APPROVAL_STATE_PENDING])]
        self._listed.entries = pending[::-1]
        if not pending:
            self._note("nothing waits for your approval")
        for number, approval in enumerate(self._listed.entries, start=1):
            call = call_text(approval.tool_name, approval.arguments_json)
            left = time_text(await time_left(self._client, approval))
            conversation = approval.conversation_id
            self._lines.line(f"{number:>3}  {approval.approval_id}  {call}")
            self._note("\n".join(f"     {row}" for row in (*asked_rows(approval.question), f"{left} · {conversation}")))

    def show(self, approval: Approval) -> None:
        """Write all there is to know before answering."""
        self._lines.line("\n".join(question_rows(approval, whole=True)[0]))

    async def show_one(self, approval_id: str) -> None:
        """Write all there is to know of one of any state."""
        approval = await self._client.approvals.get(approval_id)
        self.show(approval)
        if approval.state != APPROVAL_STATE_PENDING:
            self._tell(approval)

    async def approve(self, approval_id: str, reason: str = "", *, always: bool = False) -> None:
        """Say yes, once or to every call of the tool in the conversation."""
        approvals = self._client.approvals
        if always:
            remember = APPROVAL_REMEMBER_CONVERSATION
            self._tell(await approvals.approve(approval_id, reason=reason[:MAX_REASON], remember=remember))
        else:
            self._tell(await approvals.approve(approval_id, reason=reason[:MAX_REASON]))

    async def deny(self, approval_id: str, reason: str = "") -> None:
        """Say no."""
        self._tell(await self._client.approvals.deny(approval_id, reason=reason[:MAX_REASON]))

    def _tell(self, approval: Approval) -> None:
        call = call_text(approval.tool_name, approval.arguments_json)
        self._note(f"{call} {outcome_text(approval.state, approval.reason)}")

    def _note(self, text: str) -> None:
        self._lines.line(text, Style.DIM)
