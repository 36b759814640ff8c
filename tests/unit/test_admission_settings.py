"""What an operator may say of who is let in, and what each mistake is told as."""

from pathlib import Path

import pytest
from parley_server.settings import Settings, load_settings
from parley_server.settings_sources import ConfigError

STAFF = """
[issuers.staff]
issuer = "https://login.example.org"
audience = "parley"
jwks_uri = "https://login.example.org/jwks"
"""
GUESTS = STAFF.replace("staff", "guests").replace("login", "guests")
BOT = """
[mtls.bot]
spiffe_ids = ["spiffe://prod.example/ns/bots/sa/telegram"]
"""
TLS = '[tls]\ncertificate_file = "/c"\nprivate_key_file = "/k"\nclient_ca_file = "/ca"\n'


def load(tmp_path: Path, toml: str) -> Settings:
    file = tmp_path / "given.toml"
    file.write_text(toml, encoding="utf-8")
    return load_settings(config=file, data_dir=tmp_path / "data", environment={})


def problems(tmp_path: Path, toml: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, toml)
    return str(error.value).splitlines()


@pytest.mark.parametrize(
    ("toml", "types"),
    [
        ("", ("api_key", "delegation", "local")),
        ('[server]\nlisten = "0.0.0.0:1"', ("api_key", "delegation")),
        ("[auth]\nlocal = false", ("api_key", "delegation")),
        (STAFF, ("api_key", "delegation", "jwt", "local")),
        (f"{TLS}{STAFF}{BOT}", ("mtls", "api_key", "delegation", "jwt", "local")),
        (f'[auth]\nproviders = ["jwt"]{STAFF}', ("jwt",)),
        (f'[auth]\nproviders = ["api_key", "mtls", "local"]\n{TLS}{BOT}', ("api_key", "mtls", "local")),
    ],
)
def test_the_providers_are_those_that_have_somebody_to_let_in(
    tmp_path: Path, toml: str, types: tuple[str, ...]
) -> None:
    assert load(tmp_path, toml).admission.provider_types == types


@pytest.mark.parametrize(
    ("providers", "rest", "words"),
    [
        ('"jwt"', "", "[auth] providers: jwt has nobody to let in; add an [issuers.NAME]"),
        ('"mtls"', "", "[auth] providers: mtls has nobody to let in; add an [mtls.NAME]"),
        ('"api_key"', STAFF, "[auth] providers: jwt is not among them"),
        ('"api_key"', TLS + BOT, "[auth] providers: mtls is not among them"),
        ('"api_key", "api_key"', "", "[auth] providers: one is named twice"),
        ('"local", "api_key"', "", "[auth] providers: local takes whoever brings nothing"),
        ('"api_key", "local"', '[server]\nlisten = "0.0.0.0:1"', "local is for loopback and unix sockets alone"),
        ('"api_key", "telegram"', "", "there is no telegram, neither here nor in an installed package; there are mtls"),
    ],
)
def test_an_order_that_would_not_do_what_it_says_is_refused(
    tmp_path: Path, providers: str, rest: str, words: str
) -> None:
    (problem,) = problems(tmp_path, f"[auth]\nproviders = [{providers}]\n{rest}")
    assert words in problem


def test_local_is_on_in_one_place_and_off_in_another(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, '[auth]\nlocal = false\nproviders = ["api_key", "local"]')
    assert problem == "[auth] providers: local is among them and [auth] local is off; keep one"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ('jwks_file = "/x"', "jwks_uri: set either jwks_uri or jwks_file"),
        ('act_as = ["a*"]', "act_as: is for services"),
        ('kind = "service"\nact_as = ["a*b"]', "act_as: write a user id"),
        ('scopes = ["runs:raed"]', "scopes: there is no runs:raed"),
        ('scopes = ["tool:*"]', "scopes: there is no tool:*"),
        ('algorithms = ["HS256"]', "algorithms: Input should be 'RS256'"),
        ('algorithms = ["none"]', "algorithms: Input should be 'RS256'"),
        ("algorithms = []", "algorithms: Value should have at least 1 item"),
        ('prefix = "a b"', "prefix: String should match pattern"),
        ('audience = ""', "audience: String should have at least 1 character"),
        ("max_lifetime_s = 0", "max_lifetime_s: Input should be greater than or equal to 1"),
        ("leeway_s = 301", "leeway_s: Input should be less than or equal to 300"),
        ('issuers = "x"', "issuers: there is no such key; did you mean issuer?"),
    ],
)
def test_what_is_wrong_with_an_issuer_is_told_with_its_place(tmp_path: Path, key: str, words: str) -> None:
    name = key.partition(" ")[0]
    kept = "\n".join(line for line in STAFF.splitlines() if not line.startswith(f"{name} ="))
    (problem,) = problems(tmp_path, f"{kept}\n{key}")
    assert f"[issuers.staff] {words}" in problem


URIS = (
    "http://login.example.org/jwks",
    "ftp://login.example.org/jwks",
    "https://",
    "https://u:p@login.example.org/jwks",
    "https://login.example.org/jwks#x",
    "https://login.example.org:99999/jwks",
    "https://login.example.org/j wks",
    "file:///etc/passwd",
    "//login.example.org",
)


@pytest.mark.parametrize("uri", URIS)
def test_keys_are_fetched_over_https_or_from_this_machine(tmp_path: Path, uri: str) -> None:
    (problem,) = problems(tmp_path, STAFF.replace("https://login.example.org/jwks", uri))
    assert problem.startswith("[issuers.staff] jwks_uri: write https://HOST/...")
    assert "u:p" not in problem


def test_keys_are_fetched_by_what_nobody_can_listen_to(tmp_path: Path) -> None:
    for good in ("http://127.0.0.1:8080/jwks", "http://[::1]/jwks", "http://localhost/jwks", "https://a.example/k?v=1"):
        load(tmp_path, STAFF.replace("https://login.example.org/jwks", good))


@pytest.mark.parametrize(
    ("first", "second", "is_told_apart"),
    [
        (None, None, True),
        ("a:", "b:", True),
        ("a:", "a:", False),
        ("a:", "a:b:", False),
        ("", None, False),
        ("staff:x", None, True),
        ("guests", None, False),
    ],
)
def test_the_subjects_of_two_issuers_never_meet(
    tmp_path: Path, first: str | None, second: str | None, is_told_apart: bool
) -> None:
    def table(toml: str, prefix: str | None) -> str:
        return toml if prefix is None else f'{toml}prefix = "{prefix}"\n'

    toml = table(STAFF, first) + table(GUESTS, second)
    if is_told_apart:
        assert len(load(tmp_path, toml).issuers) == 2
    else:
        (problem,) = problems(tmp_path, toml)
        assert problem.startswith("[issuers.guests] prefix: subjects could be those of [issuers.staff]")


def test_one_issuer_has_one_table(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, STAFF + STAFF.replace("staff", "other"))
    assert problem == "[issuers.other] issuer: is that of [issuers.staff]; keep one"


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ("https://prod.example/x", "spiffe_ids: write spiffe://TRUST-DOMAIN/PATH"),
        ("spiffe://*/x", "spiffe_ids: write spiffe://TRUST-DOMAIN/PATH"),
        ("spiffe://prod.example/a/*/b", "spiffe_ids: write spiffe://TRUST-DOMAIN/PATH"),
        ("spiffe://prod.example/a*", "spiffe_ids: write spiffe://TRUST-DOMAIN/PATH"),
        ("spiffe://prod.example", "spiffe_ids: write spiffe://TRUST-DOMAIN/PATH"),
        ("spiffe://Prod.example/a", "spiffe_ids: write spiffe://TRUST-DOMAIN/PATH"),
        ("spiffe://prod.example/../a", "spiffe_ids: write spiffe://TRUST-DOMAIN/PATH"),
    ],
)
def test_a_pattern_that_no_certificate_could_mean_is_refused(tmp_path: Path, ids: str, words: str) -> None:
    (problem,) = problems(tmp_path, f'{TLS}[mtls.bot]\nspiffe_ids = ["{ids}"]')
    assert f"[mtls.bot] {words}" in problem


def test_patterns_end_in_a_whole_part(tmp_path: Path) -> None:
    for good in ("spiffe://prod.example/*", "spiffe://prod.example/a/*", "spiffe://prod.example/..a"):
        load(tmp_path, f'{TLS}[mtls.bot]\nspiffe_ids = ["{good}"]')


def test_a_certificate_is_of_one_service(tmp_path: Path) -> None:
    both = f'{TLS}{BOT}[mtls.all]\nspiffe_ids = ["spiffe://prod.example/ns/*"]'
    (problem,) = problems(tmp_path, both)
    assert problem.startswith("[mtls.all] spiffe_ids: spiffe://prod.example/ns/* means certificates of [mtls.bot] too")


def test_certificates_need_somebody_who_asks_for_them(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, BOT)
    assert problem.startswith("[mtls] needs certificates of clients; set [tls] client_ca_file")


def test_all_of_it_can_come_from_the_environment(tmp_path: Path) -> None:
    variables = {
        "PARLEY_ISSUERS__STAFF__ISSUER": "https://login.example.org",
        "PARLEY_ISSUERS__STAFF__AUDIENCE": "parley",
        "PARLEY_ISSUERS__STAFF__JWKS_URI": "https://login.example.org/jwks",
        "PARLEY_ISSUERS__STAFF__ALGORITHMS": "ES256, EdDSA",
        "PARLEY_ISSUERS__STAFF__SCOPES": "runs:read,tool:refunds",
    }
    (issuer,) = load_settings(data_dir=tmp_path, environment=variables).issuers.values()
    assert (issuer.algorithms, issuer.scopes) == (("ES256", "EdDSA"), ("runs:read", "tool:refunds"))
