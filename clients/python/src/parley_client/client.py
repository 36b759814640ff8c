"""The client: one connection to a server, and everything that can be asked over it."""

import os
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping
from datetime import date
from types import TracebackType
from typing import Final, Self

import grpc
from parley.v1.admin_service_pb2 import GetServerInfoRequest, GetServerInfoResponse
from parley.v1.admin_service_pb2_grpc import AdminServiceStub
from parley.v1.agent_pb2 import Agent
from parley.v1.agent_service_pb2 import RunAgentRequest, StartRunRequest
from parley.v1.run_pb2 import UNATTENDED_POLICY_UNSPECIFIED, Run, RunState, UnattendedPolicy
from parley.v1.usage_service_pb2 import Budget, UsageGrouping, UsageRow

from parley_client.account import Accounts
from parley_client.approvals import Approvals
from parley_client.call_metadata import Caller
from parley_client.channel import open_channel, require_private
from parley_client.conversations import Conversations
from parley_client.loop_claim import LoopClaim
from parley_client.reconnect import DEFAULT_LIMITS, ReconnectLimits
from parley_client.run_request import Input, Schema, Words, run_spec, steer_request
from parley_client.run_stream import OnReconnect, RunStream
from parley_client.runs import RunCalls
from parley_client.tls import TlsFiles, tls_from_environment
from parley_client.tools import Tools
from parley_client.transport import Transport
from parley_client.usage import UsageCalls

DEFAULT_TARGET: Final = "127.0.0.1:50051"


class ParleyClient:
    """A connection to a Parley server, open for the length of an `async with`.

    `target` (`HOST:PORT` or `unix:PATH`) and `api_key` come from PARLEY_TARGET and PARLEY_API_KEY when they are None.
    `user_id` is for services that act for their users. `time_zone` and `locale` are this machine's when they are None.
    `tls` is True for the root certificates that gRPC brings, `TlsFiles` for files, or a `grpc.ChannelCredentials`; None
    leaves it to PARLEY_TLS, PARLEY_ROOT_CERTIFICATES, PARLEY_CLIENT_CERTIFICATE and PARLEY_CLIENT_KEY, and without
    those is none. An API key is refused without TLS on anything but loopback and unix sockets, unless
    `allow_plaintext_key` says that the network is safe.
    `timeout_s` bounds every unary call.

    gRPC's asyncio side belongs to one event loop of a process: use all its clients on the same one. Opening a client
    beside those of another loop, and using one on another loop than its own, is a RuntimeError. Programs without an
    event loop have `parley_client.sync`.

    Raises ValueError for a key that may not be sent, and for files that cannot be used.
    """

    def __init__(  # noqa: PLR0913 - a connection's settings, each with a default
        self,
        target: str | None = None,
        api_key: str | None = None,
        *,
        user_id: str = "",
        time_zone: str | None = None,
        locale: str | None = None,
        client_name: str = "",
        client_version: str = "",
        tls: bool | TlsFiles | grpc.ChannelCredentials | None = None,
        allow_plaintext_key: bool = False,
        timeout_s: float = 30.0,
        reconnect: ReconnectLimits = DEFAULT_LIMITS,
    ) -> None:
        self.target = target or os.environ.get("PARLEY_TARGET") or DEFAULT_TARGET
        api_key = os.environ.get("PARLEY_API_KEY", "") if api_key is None else api_key
        tls = tls_from_environment() if tls is None else tls
        self._tls = tls.credentials() if isinstance(tls, TlsFiles) else tls
        if not allow_plaintext_key:
            require_private(self.target, api_key=api_key, tls=self._tls)
        self._caller = Caller.here(
            api_key=api_key,
            user_id=user_id,
            time_zone=time_zone,
            locale=locale,
            client_name=client_name,
            client_version=client_version,
        )
        self._timeout_s = timeout_s
        self._reconnect = reconnect
        self._open: _OpenClient | None = None

    async def __aenter__(self) -> Self:
        claim = LoopClaim()
        channel = open_channel(self.target, self._tls)
        self._open = _OpenClient(Transport(claim, channel, self._caller, self._timeout_s))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._open is not None:
            await self._open.transport.close()

    def run(  # noqa: PLR0913 - a run's wishes, each with a default
        self,
        run_input: Input,
        *,
        agent: str = "",
        conversation_id: str = "",
        request_id: str = "",
        deadline_s: float | None = None,
        output_schema: Schema = "",
        unattended_policy: UnattendedPolicy.ValueType = UNATTENDED_POLICY_UNSPECIFIED,
        on_reconnect: OnReconnect | None = None,
    ) -> RunStream:
        """Start a run and follow it; entering the returned context waits until the server has accepted the run.

        `run_input` is the user's words, a list of ContentPart, or a whole RunSpec. `conversation_id` goes on with a
        conversation; empty begins one. The same `request_id` with the same request is the same run; one is made up
        when it is empty. `deadline_s` is how long the run may take. `output_schema` is a JSON Schema that the answer
        has to fit, as a mapping or as JSON; `RunStream.output_json` is the answer then. `unattended_policy` says what
        happens when a tool call needs an approval: the run waits unless it says otherwise.
        """
        spec = run_spec(
            run_input,
            agent=agent,
            conversation_id=conversation_id,
            deadline_s=deadline_s,
            output_schema=output_schema,
            unattended_policy=unattended_policy,
        )
        request = RunAgentRequest(run=spec, request_id=request_id or uuid.uuid4().hex)
        return RunStream(self._calls.runs, self._reconnect, request=request, on_reconnect=on_reconnect)

    def watch(self, run_id: str, after_seq: int = 0, *, on_reconnect: OnReconnect | None = None) -> RunStream:
        """Follow a run that there is, live or finished, from the event after `after_seq`."""
        return RunStream(
            self._calls.runs, self._reconnect, run_id=run_id, after_seq=after_seq, on_reconnect=on_reconnect
        )

    async def start(  # noqa: PLR0913 - as above
        self,
        run_input: Input,
        *,
        agent: str = "",
        conversation_id: str = "",
        request_id: str = "",
        deadline_s: float | None = None,
        output_schema: Schema = "",
        unattended_policy: UnattendedPolicy.ValueType = UNATTENDED_POLICY_UNSPECIFIED,
    ) -> Run:
        """Start a run and leave it to itself; `watch` follows it later. The arguments are those of `run`."""
        spec = run_spec(
            run_input,
            agent=agent,
            conversation_id=conversation_id,
            deadline_s=deadline_s,
            output_schema=output_schema,
            unattended_policy=unattended_policy,
        )
        return await self._calls.runs.start(StartRunRequest(run=spec, request_id=request_id or uuid.uuid4().hex))

    async def get_run(self, run_id: str) -> Run:
        """Return a run as it stands."""
        return await self._calls.runs.get(run_id)

    async def cancel_run(self, run_id: str, reason: str = "") -> Run:
        """Ask a run to stop and return it as it stands; asking twice changes nothing."""
        return await self._calls.runs.cancel(run_id, reason)

    async def steer_run(self, run_id: str, words: Words, *, request_id: str = "") -> str:
        """Add the user's words to a run under way; they are put before the next call to the model.

        Returns the id by which `steer_applied`, or `run_finished` when the model never saw them, names the addition.
        The same `request_id` with the same words is the same addition; one is made up when it is empty.
        """
        return await self._calls.runs.steer(steer_request(run_id, words, request_id))

    def list_runs(
        self,
        *,
        conversation_id: str = "",
        agent: str = "",
        states: Iterable[RunState.ValueType] = (),
        labels: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Run]:
        """List the user's runs, the newest first, without their output; pages are fetched as they are needed."""
        return self._calls.runs.list(conversation_id=conversation_id, agent=agent, states=states, labels=labels or {})

    async def agents(self) -> list[Agent]:
        """Return the server's agents, ordered by id."""
        return [agent async for agent in self._calls.runs.agents()]

    async def usage(
        self,
        *,
        first_day: date | None = None,
        last_day: date | None = None,
        group_by: Iterable[UsageGrouping.ValueType] = (),
        model: str = "",
        user_id: str = "",
    ) -> list[UsageRow]:
        """Return what the user used from the first day to the last (UTC), summed by what it is grouped by.

        Without days it is the last 30. `model` leaves that model alone. `user_id` is for administrators.
        """
        return [row async for row in self._calls.usage.rows(first_day, last_day, group_by, model, user_id)]

    async def budgets(self) -> list[Budget]:
        """Return the limits that hold for the caller, with what is left of them."""
        return [budget async for budget in self._calls.usage.budgets()]

    async def set_budget(self, budget: Budget) -> Budget:
        """Set the limits of a user, service or key from now on, and return them; for administrators.

        With an `etag` what is there must be what was read; a budget without limits is removed.
        """
        return await self._calls.usage.set_budget(budget)

    async def server_info(self) -> GetServerInfoResponse:
        """Return the server's version, features and limits, and whether a script stands in for a model."""
        return await self._calls.transport.unary(self._calls.admin.GetServerInfo, GetServerInfoRequest())

    @property
    def conversations(self) -> Conversations:
        """The user's conversations."""
        return self._calls.conversations

    @property
    def account(self) -> Accounts:
        """What the user has told of himself, and all that the server has of him."""
        return self._calls.account

    @property
    def approvals(self) -> Approvals:
        """What the user is asked before tools are called."""
        return self._calls.approvals

    @property
    def tools(self) -> Tools:
        """The server's tools and the calls of them in the user's runs."""
        return self._calls.tools

    @property
    def _calls(self) -> "_OpenClient":
        if self._open is None:
            raise RuntimeError("the client is not open: use it inside `async with ParleyClient() as client:`")
        return self._open


class _OpenClient:
    """What exists while the connection does."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.runs = RunCalls(transport)
        self.conversations = Conversations(transport)
        self.account = Accounts(transport)
        self.approvals = Approvals(transport)
        self.tools = Tools(transport)
        self.usage = UsageCalls(transport)
        self.admin = AdminServiceStub(transport.channel)
