"""The optional parts of the contract: which this server has, and how it refuses the others."""

from parley_server.domain.errors import FeatureNotAvailableError, MethodNotImplementedError

AVAILABLE = (
    "api_key_request_id",
    "approvals",
    "concurrency_interrupt",
    "conversation_query",
    "delete_conversation",
    "disconnect_cancel",
    "erase_account",
    "export_account",
    "export_conversation",
    "fork_conversation",
    "get_account",
    "get_usage",
    "image_input",
    "issue_delegation_token",
    "list_audit_events",
    "list_budgets",
    "mcp",
    "output_schema",
    "rotate_api_key",
    "set_budget",
    "steer_run",
    "tool_calls",
    "tool_hosts",
    "unattended_policy",
    "update_account",
    "update_conversation",
)


def not_available(feature: str) -> FeatureNotAvailableError:
    """Return the error for an option of a request."""
    return FeatureNotAvailableError(f"this server lacks the feature {feature}", metadata={"feature": feature})


def not_implemented(feature: str) -> MethodNotImplementedError:
    """Return the error for a whole rpc; `feature` is its name in snake case."""
    return MethodNotImplementedError(f"this server lacks the feature {feature}", metadata={"feature": feature})
