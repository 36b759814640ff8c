"""What calls are held to besides their credentials and the access policy."""

from dataclasses import dataclass, field

from parley_server.rpc.auditor import Auditor
from parley_server.rpc.interceptors.account import Accounts, NoAccounts
from parley_server.rpc.interceptors.quota import RequestCounter
from parley_server.rpc.interceptors.recheck import RECHECK_S


@dataclass(frozen=True, slots=True)
class CallChecks:
    """The checks of a server; by default it has no accounts, counts no requests and audits in the log alone.

    `recheck_s` is how often the credentials of streams are looked at again.
    """

    accounts: Accounts = field(default_factory=NoAccounts)
    auditor: Auditor | None = None
    requests: RequestCounter | None = None
    recheck_s: float = RECHECK_S
