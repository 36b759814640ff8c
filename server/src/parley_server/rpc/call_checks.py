"""What calls are held to besides their credentials and the access policy."""

from dataclasses import dataclass

from parley_server.accounts.cache import AccountCache
from parley_server.quotas.quotas import Quotas
from parley_server.rpc.auditor import Auditor
from parley_server.rpc.interceptors.recheck import RECHECK_S


@dataclass(frozen=True, slots=True)
class CallChecks:
    """The checks of a server; without the first three it has no accounts, audits in the log alone, counts no requests.

    `recheck_s` is how often the credentials of streams are looked at again.
    """

    accounts: AccountCache | None = None
    auditor: Auditor | None = None
    quotas: Quotas | None = None
    recheck_s: float = RECHECK_S
