"""What a server of the protocol of 2026 is sent with a call that it has interrupted by questions."""

import json
from collections.abc import Mapping

from mcp_types import ElicitResult
from pydantic import BaseModel, ConfigDict


class Resumption(BaseModel):
    """The answers to its questions, and its own state, which goes back as it came. The server itself holds nothing."""

    model_config = ConfigDict(frozen=True)

    responses: Mapping[str, ElicitResult] = {}
    state: str | None = None

    @property
    def text(self) -> str:
        """Write it as ASCII, to be kept; `model_validate_json` reads it."""
        return json.dumps(self.model_dump(exclude_none=True))

    @property
    def fields(self) -> dict[str, object]:
        """The fields of the request."""
        return {"input_responses": dict(self.responses) or None, "request_state": self.state}
