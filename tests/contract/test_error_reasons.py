"""The reasons the server can raise are the reasons the contract names."""

from collections.abc import Iterator

from parley.v1 import error_reason_pb2
from parley_server.domain.errors import ErrorKind, ParleyError, Reason
from parley_server.rpc.mapping.errors import to_status


def subclasses(kind: type[ParleyError]) -> Iterator[type[ParleyError]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


def test_the_domain_and_the_contract_have_the_same_reasons() -> None:
    prefix = "ERROR_REASON_"
    named = {name.removeprefix(prefix) for name, _ in error_reason_pb2.ErrorReason.items()} - {"UNSPECIFIED"}
    assert {str(reason) for reason in Reason} == named


def test_every_reason_has_one_kind() -> None:
    kinds: dict[Reason, ErrorKind] = {}
    for error in subclasses(ParleyError):
        if "reason" in vars(error) and "kind" in vars(error):
            assert kinds.setdefault(error.reason, error.kind) is error.kind, error


def test_details_and_message_are_capped() -> None:
    status = to_status(ParleyError("x" * 10_000, metadata={f"k{n}": "v" * 500 for n in range(100)}), "req")
    assert len(status.message) <= 512
    assert len(status.SerializeToString()) <= 4096
