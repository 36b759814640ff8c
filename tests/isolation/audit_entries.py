"""Whether the audit log names everybody through whom a call was made, as those who called know it."""

from isolation.cast import Speaker
from isolation.world import World
from parley.v1 import admin_service_pb2 as admin
from parley.v1 import audit_event_pb2


class AuditEntries:
    """Knows who made which call, by the name that he gave it."""

    def __init__(self) -> None:
        self._callers: dict[str, Speaker] = {}

    def note(self, request_name: str, speaker: Speaker) -> None:
        """Take in a call that is about to be made."""
        self._callers[request_name] = speaker

    def judge(self, world: World, page: admin.ListAuditEventsResponse) -> None:
        """Hold a page of the log to who it was, of every call that was let in."""
        for event in page.events:
            caller = self._callers.get(event.request_id)
            if caller is None or event.decision != audit_event_pb2.AUDIT_DECISION_ALLOWED:
                continue
            told = (event.principal, tuple(event.actors), event.user_id, event.credential_id)
            known = (caller.principal, caller.actors, caller.owner, caller.key_id)
            if told != known:
                world.leak("audit log", f"has {told} in the place of {known} for {event.action}")
