"""Write docs/access.md from the access rules in the protos, or prove that it is what would be written.

`python scripts/document_access.py` writes it; with `--check` it writes nothing and ends with 1 when the file differs.
"""

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import parley.v1
from google.protobuf.descriptor import MethodDescriptor
from parley_server.auth.policy import MethodWithoutRuleError, Rule
from parley_server.domain.principal import ALL_SCOPES, SERVICE_SCOPES, USER_SCOPES
from parley_server.rpc.service import rule_of

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "access.md"

HEAD = """\
<!-- Made by `python scripts/document_access.py` from the access_policy options in protos/parley/v1; change those. -->

# Access

Every rpc states in its proto who may call it, and the server refuses to start with one that does not. A caller is a
user or a service; his credential holds scopes. [Keys](guides/keys.md) tells how to make credentials.

- *scope*: what the credential must hold; without it the call ends with PERMISSION_DENIED `SCOPE_MISSING`. "any" lets in
  every caller whose credential was accepted.
- *caller*: where it says users or services, the other kind gets PERMISSION_DENIED `PRINCIPAL_NOT_ALLOWED`.
- *audited*: every call, allowed or not, is an entry of the [audit log](guides/audit.md) and a line `audit` in the
  server's log: the method, the caller with the id of his credential and his address, the user he spoke for, the request
  id, the decision, and how it ended. Never what was sent. A call that cannot be recorded is not served. Of the other
  rpcs the calls that were refused to their caller are recorded.

What a caller may do at all says this page; whose data he sees is another matter: every call is bound to one user, and
somebody else's objects are NOT_FOUND whatever the scopes. `grpc.health.v1.Health` answers everybody, and reflection,
where it is on, every authenticated caller. `ToolHostService` is not here: [tool hosts](guides/tool-hosts.md) serve it
to the server.
"""


# The server calls it.
NOT_SERVED = "ToolHostService"


def main(arguments: Sequence[str]) -> int:
    """Write or check; return the exit code."""
    text = document()
    if arguments == ["--check"]:
        if DOCUMENT.read_text(encoding="utf-8") == text:
            return 0
        print(f"{DOCUMENT.name} is not what the protos give; run python scripts/document_access.py")
        return 1
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


def document() -> str:
    """Return the whole document. Raises MethodWithoutRuleError for an rpc that nobody may call."""
    rules = {method: _rule(method) for method in methods()}
    return "\n".join([HEAD, *_table(rules), "", *_scopes(rules), ""])


def methods() -> Iterator[MethodDescriptor]:
    """Yield every rpc that the server has, by the names of the services and in the order of their files."""
    for module in sorted(module.name for module in pkgutil.iter_modules(parley.v1.__path__)):
        if module.endswith("_service_pb2"):
            file = importlib.import_module(f"parley.v1.{module}").DESCRIPTOR
            for service in file.services_by_name.values():
                if service.name != NOT_SERVED:
                    yield from service.methods


def _rule(method: MethodDescriptor) -> Rule:
    rule = rule_of(method)
    if rule is None:
        raise MethodWithoutRuleError(f"{method.full_name} has no access rule")
    return rule


def _table(rules: dict[MethodDescriptor, Rule]) -> Iterator[str]:
    yield "## Rpcs\n"
    yield "| rpc | scope | caller | audited |"
    yield "| --- | --- | --- | --- |"
    for method, rule in rules.items():
        scope = f"`{rule.scope}`" if rule.scope else "any"
        caller = "either" if rule.principal_kind is None else f"{rule.principal_kind}s"
        yield f"| {_name(method)} | {scope} | {caller} | {'yes' if rule.audit else ''} |"


def _scopes(rules: dict[MethodDescriptor, Rule]) -> Iterator[str]:
    yield "## Scopes\n"
    users_alone = " nor ".join(f"`{scope}`" for scope in sorted(USER_SCOPES - SERVICE_SCOPES))
    yield "A key that is made without scopes gets every one of these but `admin`; that of a service gets"
    yield f"neither {users_alone}. A tool may ask for its own, `tool:` and a word (`tool:refunds`):"
    yield "keys have it that were given it by name; the local user has them all.\n"
    yield "| scope | opens |"
    yield "| --- | --- |"
    for scope in sorted(ALL_SCOPES):
        opened = ", ".join(_name(method) for method, rule in rules.items() if rule.scope == scope)
        yield f"| `{scope}` | {opened} |"


def _name(method: MethodDescriptor) -> str:
    return f"`{method.containing_service.name}.{method.name}`"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
