"""Parley's Python client: ask an agent, follow a run, and re-attach when the connection drops."""

from parley.v1.account_pb2 import Account, QuietHours
from parley.v1.agent_pb2 import Agent
from parley.v1.approval_pb2 import Approval, ApprovalRemember, ApprovalState
from parley.v1.content_pb2 import ContentPart
from parley.v1.conversation_pb2 import Conversation, Message
from parley.v1.run_event_pb2 import RunEvent, RunFinished
from parley.v1.run_pb2 import Run, RunSpec, RunState, StopReason, UnattendedPolicy
from parley.v1.tool_pb2 import Tool, ToolCall, ToolCallOutcome, ToolCallStatus

from parley_client.account import Accounts
from parley_client.approvals import Approvals
from parley_client.client import DEFAULT_TARGET, ParleyClient
from parley_client.conversations import Conversations
from parley_client.errors import (
    AbortedError,
    AlreadyExistsError,
    CallCancelledError,
    ClientClosedError,
    DeadlineExceededError,
    FailedPreconditionError,
    HandshakeError,
    InternalError,
    InvalidRequestError,
    LimitReachedError,
    NotAuthenticatedError,
    NotFoundError,
    OutOfRangeError,
    ParleyError,
    PermissionDeniedError,
    ProtocolError,
    UnavailableError,
    UnimplementedError,
    Violation,
)
from parley_client.reconnect import ReconnectLimits
from parley_client.run_stream import RunStream
from parley_client.tls import TlsFiles
from parley_client.tools import Tools
from parley_client.version import VERSION

__version__ = VERSION

__all__ = [
    "DEFAULT_TARGET",
    "AbortedError",
    "Account",
    "Accounts",
    "Agent",
    "AlreadyExistsError",
    "Approval",
    "ApprovalRemember",
    "ApprovalState",
    "Approvals",
    "CallCancelledError",
    "ClientClosedError",
    "ContentPart",
    "Conversation",
    "Conversations",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "HandshakeError",
    "InternalError",
    "InvalidRequestError",
    "LimitReachedError",
    "Message",
    "NotAuthenticatedError",
    "NotFoundError",
    "OutOfRangeError",
    "ParleyClient",
    "ParleyError",
    "PermissionDeniedError",
    "ProtocolError",
    "QuietHours",
    "ReconnectLimits",
    "Run",
    "RunEvent",
    "RunFinished",
    "RunSpec",
    "RunState",
    "RunStream",
    "StopReason",
    "TlsFiles",
    "Tool",
    "ToolCall",
    "ToolCallOutcome",
    "ToolCallStatus",
    "Tools",
    "UnattendedPolicy",
    "UnavailableError",
    "UnimplementedError",
    "Violation",
    "__version__",
]
