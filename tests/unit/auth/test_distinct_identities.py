"""Settings that are accepted let no two issuers and no two services be taken for one another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.auth.jwt_settings import IssuerSettings, prefix_problems
from parley_server.auth.mtls_settings import SPIFFE_ID, MtlsServiceSettings, is_covered, overlap_problems
from parley_server.domain.principal import is_user_id

PREFIXES = st.text("ab:", max_size=4)
SUBJECTS = st.text("ab:", min_size=1, max_size=5).filter(is_user_id)
PARTS = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=3)
IDS = st.builds(lambda parts: "spiffe://d/" + "/".join(parts), PARTS)
PATTERNS = st.builds(lambda spiffe_id, ending: spiffe_id + ending, IDS, st.sampled_from(["", "/*"]))


def issuer(name: str, prefix: str) -> IssuerSettings:
    return IssuerSettings.model_construct(issuer=name, prefix=prefix)


@given(PREFIXES, PREFIXES, SUBJECTS, SUBJECTS)
def test_no_subject_of_one_issuer_is_anothers(first: str, second: str, one: str, other: str) -> None:
    refused = list(prefix_problems({"a": issuer("a", first), "b": issuer("b", second)}))
    assert refused or first + one != second + other


@pytest.mark.parametrize("prefix", ["service:", "service:staff:"])
def test_no_issuers_subjects_begin_as_what_is_a_services_own(prefix: str) -> None:
    ((name, problem),) = prefix_problems({"a": issuer("a", prefix)})
    assert (name, problem) == ("a", "prefix: service: is before the names of services alone; write another")
    assert list(prefix_problems({"service": IssuerSettings.model_construct(issuer="x", prefix=None)}))


@given(st.lists(PATTERNS, min_size=1, max_size=3), st.lists(PATTERNS, min_size=1, max_size=3), IDS)
def test_no_certificate_is_two_services(first: list[str], second: list[str], spiffe_id: str) -> None:
    services = {
        "a": MtlsServiceSettings(spiffe_ids=tuple(first)),
        "b": MtlsServiceSettings(spiffe_ids=tuple(second)),
    }
    means = [any(is_covered(spiffe_id, pattern) for pattern in patterns) for patterns in (first, second)]
    assert list(overlap_problems(services)) or not all(means)


@given(IDS, PATTERNS)
def test_a_pattern_means_itself_or_what_is_below_it_by_whole_parts(spiffe_id: str, pattern: str) -> None:
    assert SPIFFE_ID.fullmatch(spiffe_id)
    parts, wanted = spiffe_id.split("/"), pattern.split("/")
    below = wanted[-1] == "*" and len(parts) >= len(wanted) and parts[: len(wanted) - 1] == wanted[:-1]
    assert is_covered(spiffe_id, pattern) is (spiffe_id == pattern or below)
