"""AdminService: what the server is and can do, and what was done with it."""

from datetime import UTC, datetime
from importlib.metadata import version

from parley.v1 import admin_service_pb2 as pb

from parley_server.agents.registry import AgentRegistry
from parley_server.domain.content import MAX_INPUT_TEXT_BYTES
from parley_server.domain.context import RequestContext
from parley_server.domain.run import MAX_DEADLINE, MAX_QUEUED_RUNS, MAX_STEPS, MAX_TOOL_CALLS, Limits
from parley_server.llm.model_catalog import ModelCatalog
from parley_server.rpc.mapping.audit_event import read_audit_filter, write_audit_event
from parley_server.rpc.mapping.features import AVAILABLE
from parley_server.rpc.mapping.model import write_model
from parley_server.rpc.mapping.page import MAX_PAGE_SIZE, read_page
from parley_server.rpc.mapping.timestamps import to_timestamp
from parley_server.rpc.server_options import MAX_MESSAGE_BYTES
from parley_server.storage.audit_log import AuditLog


class AdminServicer:
    """Tells of the server. `offline_model` says whether a scripted model stands in for a real one."""

    def __init__(self, agents: AgentRegistry, models: ModelCatalog, audit: AuditLog, *, offline_model: bool) -> None:
        self._agents = agents
        self._models = models
        self._audit = audit
        self._offline_model = offline_model
        self._version = version("parley-server")

    async def get_server_info(
        self,
        _context: RequestContext,
        _request: pb.GetServerInfoRequest,
    ) -> pb.GetServerInfoResponse:
        """Return the server's version, features and limits."""
        default_agent = self._agents.get("").description
        return pb.GetServerInfoResponse(
            version=self._version,
            features=sorted(AVAILABLE),
            limits=_limits(),
            offline_model=self._offline_model,
            default_model=default_agent.default_model,
            default_agent_id=default_agent.agent_id,
            server_time=to_timestamp(datetime.now(UTC)),
            models=[write_model(model) for model in self._models.models],
            model_patterns=self._models.patterns,
        )

    async def list_audit_events(
        self, _context: RequestContext, request: pb.ListAuditEventsRequest
    ) -> pb.ListAuditEventsResponse:
        """Return a page of the audit log."""
        page = await self._audit.list(read_page(request.page_size, request.page_token), read_audit_filter(request))
        return pb.ListAuditEventsResponse(events=map(write_audit_event, page.items), next_page_token=page.next_token)


def _limits() -> pb.ServerLimits:
    defaults = Limits()
    limits = pb.ServerLimits(
        max_message_bytes=MAX_MESSAGE_BYTES,
        max_input_text_bytes=MAX_INPUT_TEXT_BYTES,
        max_page_size=MAX_PAGE_SIZE,
        max_queued_runs=MAX_QUEUED_RUNS,
        default_steps=defaults.max_steps,
        max_steps=MAX_STEPS,
        default_tool_calls=defaults.max_tool_calls,
        max_tool_calls=MAX_TOOL_CALLS,
    )
    limits.default_deadline.FromTimedelta(defaults.deadline)
    limits.max_deadline.FromTimedelta(MAX_DEADLINE)
    return limits
