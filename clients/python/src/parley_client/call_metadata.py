"""What travels beside every call: the credential, the RequestContext and the call's own id."""

import re
import uuid
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio
from parley.v1.request_context_pb2 import ClientInfo, RequestContext

from parley_client.local_context import local_locale, local_time_zone
from parley_client.version import VERSION

_KEY_GRAMMAR = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Caller:
    """Who calls, and for whom.

    `user_id` is a claim the server checks; empty means the credential's own user. Raises ValueError for an API key
    that cannot be sent as metadata.
    """

    api_key: str = field(default="", repr=False)
    user_id: str = ""
    time_zone: str = ""
    locale: str = ""
    client_name: str = ""
    client_version: str = ""

    def __post_init__(self) -> None:
        if self.api_key and not _KEY_GRAMMAR.fullmatch(self.api_key):
            raise ValueError("an API key is printable ASCII without blanks")

    @classmethod
    def here(
        cls,
        *,
        api_key: str = "",
        user_id: str = "",
        time_zone: str | None = None,
        locale: str | None = None,
        client_name: str = "",
        client_version: str = "",
    ) -> "Caller":
        """Build a caller; a zone or locale that is None is taken from this machine."""
        return cls(
            api_key=api_key,
            user_id=user_id,
            time_zone=local_time_zone() if time_zone is None else time_zone,
            locale=local_locale() if locale is None else locale,
            client_name=client_name or "parley-client-python",
            client_version=client_version if client_name else VERSION,
        )

    def metadata(self) -> aio.Metadata:
        """Build the metadata of one call, with a fresh timestamp and a fresh `x-request-id`."""
        metadata = aio.Metadata(
            ("parley-context-bin", self._context().SerializeToString()), ("x-request-id", uuid.uuid4().hex)
        )
        if self.api_key:
            metadata.add("authorization", f"Bearer {self.api_key}")
        return metadata

    def _context(self) -> RequestContext:
        now = Timestamp()
        now.GetCurrentTime()
        return RequestContext(
            user_id=self.user_id,
            timestamp=now,
            time_zone=self.time_zone,
            locale=self.locale,
            client=ClientInfo(name=self.client_name, version=self.client_version),
        )
