"""What a listing's filter names must be the user's own, for every list that can be of one conversation or run."""

from sqlalchemy import bindparam, select

from parley_server.domain.errors import NotFoundError
from parley_server.storage.sql.clock import now_micros
from parley_server.storage.sql.database import Reader
from parley_server.storage.sql.expiry import is_alive, of_living_conversation
from parley_server.storage.sql.tables import conversations, runs

_CONVERSATION = select(conversations.c.conversation_id).where(
    conversations.c.user_id == bindparam("user_id"), conversations.c.conversation_id == bindparam("id"), is_alive()
)
_RUN = select(runs.c.run_id).where(
    runs.c.user_id == bindparam("user_id"), runs.c.run_id == bindparam("id"), of_living_conversation()
)


async def require_own(reader: Reader, user_id: str, *, conversation_id: str = "", run_id: str = "") -> None:
    """See that what is named is the user's; an empty id names nothing. Raises NotFoundError."""
    named = (("conversation", _CONVERSATION, conversation_id), ("run", _RUN, run_id))
    for resource_type, statement, named_id in named:
        own = {"user_id": user_id, "id": named_id, "now": now_micros()}
        if named_id and not await reader.fetch(statement, own):
            raise NotFoundError(resource_type)
