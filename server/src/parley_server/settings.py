"""The settings: defaults, then the configuration file, then the environment, then the command line.

    parley.toml:  [model]                environment:  PARLEY_MODEL__NAME=llama3.2
                  name = "llama3.2"

    [providers.groq]              PARLEY_PROVIDERS__GROQ__BASE_URL=https://...

A secret may stand in a file of its own, which `api_key_file` or PARLEY_MODEL__API_KEY_FILE names, and so on. A key or
a variable that is not known is an error, so that no misspelled setting is silently ignored.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, field_serializer, field_validator

from parley_server.auth.auth_settings import Admission, AuthSettings
from parley_server.auth.jwt_settings import IssuerSettings
from parley_server.auth.mtls_settings import MtlsServiceSettings
from parley_server.llm.model_catalog import MAX_MODELS
from parley_server.llm.model_settings import ModelSettings, ProviderSettings
from parley_server.llm.prices import Price
from parley_server.llm.router import MAIN_PROVIDER
from parley_server.metrics.endpoint import MetricsSettings
from parley_server.quotas.quota_settings import QuotaRuleSettings, QuotaSettings
from parley_server.rpc.listener import Listener, ListenError, ServerSettings
from parley_server.rpc.tls_settings import TlsSettings
from parley_server.settings_sources import DATA_DIR_VARIABLE, ConfigError, Sources
from parley_server.settings_tables import Place, Tables, header, sub_tables
from parley_server.settings_validation import Given, GivenSettings, validated, validated_below
from parley_server.storage.audit_log import AuditSettings
from parley_server.storage.retention import RetentionSettings
from parley_server.tools.approval_policy import ApprovalRuleSettings, ApprovalSettings
from parley_server.tools.credentials.settings import CredentialSettings
from parley_server.tools.mcp.mcp_settings import McpServerSettings
from parley_server.tools.remote.host_settings import ToolHostSettings
from parley_server.tools.tool_settings import ToolSettings

FILE_NAME = "parley.toml"
FALL_BACKS = {"base_url": "OPENAI_BASE_URL", "api_key": "OPENAI_API_KEY"}
# What a key without a base URL asks; any other server has models of its own names.
OFFICIAL_MODEL = "gpt-5-mini"

_STORAGE_URL = re.compile(r"(sqlite:///|postgres(ql)?://).+", re.DOTALL)
_MAX_NAME_CHARS = 64
# Any that a variable can name, too.
_TABLE_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
# Beside them callers may name the default, the fall-backs and what is allowed.
_MAX_LISTED = MAX_MODELS - 300
# Rather too much than too little: a password may hold what should have been escaped.
_PASSWORD = re.compile(r"(//[^:/@]*:).*(@)|(password=)[^&]*")


class StorageSettings(BaseModel):
    """`[storage]`: where conversations and runs are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = ""
    """The database: `sqlite:///PATH`, relative to the data directory; empty: `parley.db` in it. Or
    `postgresql://USER@HOST/DATABASE`, with what else libpq understands: `?host=/socket/directory`, `?sslmode=require`,
    `?passfile=PATH`."""

    @field_validator("url")
    @classmethod
    def _is_known(cls, url: str) -> str:
        if url and not _STORAGE_URL.fullmatch(url):
            raise ValueError("write sqlite:///PATH or postgresql://USER@HOST/DATABASE")
        return url

    @field_serializer("url")
    def _without_password(self, url: str) -> str:
        return _PASSWORD.sub(r"\1\3***\2", url)

    @property
    def is_postgres(self) -> bool:
        """Tell which engine it is."""
        return self.url.startswith("postgres")

    def sqlite_path(self, data_dir: Path) -> Path:
        """Return the database's file."""
        return data_dir / (self.url.removeprefix("sqlite:///") or "parley.db")


class LogSettings(BaseModel):
    """`[log]`: what the server says while it runs, on standard error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["auto", "json", "console"] = "auto"
    """How lines look: `auto` writes for people on a terminal and JSON lines elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least grave that is written; lines of the audit are written at any level."""

    requests: bool = True
    """Whether every call gets a line when it ends: method, status, duration, caller; never what was said in it."""

    hash_users: bool = False
    """Whether those lines tell users apart by a keyed hash and do not name them."""


SECTIONS: Mapping[str, type[BaseModel]] = {
    "server": ServerSettings,
    "tls": TlsSettings,
    "model": ModelSettings,
    "storage": StorageSettings,
    "auth": AuthSettings,
    "retention": RetentionSettings,
    "audit": AuditSettings,
    "log": LogSettings,
    "metrics": MetricsSettings,
    "tools": ToolSettings,
    "approvals": ApprovalSettings,
    "credentials": CredentialSettings,
    "quotas": QuotaSettings,
}
# Those of which there is one for every name that the operator gives.
NAMED_TABLES: Mapping[str, type[BaseModel]] = {
    "providers": ProviderSettings,
    "prices": Price,
    "issuers": IssuerSettings,
    "mtls": MtlsServiceSettings,
    "approval_rules": ApprovalRuleSettings,
    "quota_rules": QuotaRuleSettings,
    "tool_hosts": ToolHostSettings,
    "mcp": McpServerSettings,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, checked. `config_file` is the file that was read, None where there is none."""

    data_dir: Path
    config_file: Path | None
    server: ServerSettings
    tls: TlsSettings
    storage: StorageSettings
    auth: AuthSettings
    retention: RetentionSettings
    audit: AuditSettings
    log: LogSettings
    metrics: MetricsSettings
    tools: ToolSettings
    approvals: ApprovalSettings
    credentials: CredentialSettings
    quotas: QuotaSettings
    model: ModelSettings
    has_model: bool
    providers: Mapping[str, ProviderSettings]
    prices: Mapping[str, Price]
    issuers: Mapping[str, IssuerSettings]
    mtls: Mapping[str, MtlsServiceSettings]
    approval_rules: Mapping[str, ApprovalRuleSettings]
    quota_rules: Mapping[str, QuotaRuleSettings]
    tool_hosts: Mapping[str, ToolHostSettings]
    mcp: Mapping[str, McpServerSettings]

    def tables(self) -> dict[Place, BaseModel]:
        """Return all tables by where they stand, one of a table after it."""
        tables: dict[Place, BaseModel] = {(name,): getattr(self, name) for name in SECTIONS}
        for kind in NAMED_TABLES:
            tables |= {(kind, name): table for name, table in getattr(self, kind).items()}
        return dict(each for place, table in tables.items() for each in _with_inner(place, table))

    @property
    def admission(self) -> Admission:
        """All that is said of who is let in. Raises ListenError when the address to listen on is none."""
        return Admission(
            self.auth,
            self.issuers,
            self.mtls,
            listens_locally=Listener.parse(self.server.listen).is_local,
            asks_for_certificates=self.tls.client_ca_file is not None,
        )

    def model_settings(self) -> ModelSettings | None:
        """Return where the model is; None where neither a key nor a base URL is set, and the offline model serves."""
        return self.model if self.has_model else None


def load_settings(
    *,
    config: Path | None = None,
    data_dir: Path | None = None,
    flags: Mapping[tuple[str, str], str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Read all settings. `flags` are those of the command line, by section and key.

    Raises:
        ConfigError: files, variables or values are wrong; it tells all of them.
    """
    data_dir = data_dir or default_data_dir(environment)
    file = _find_file(config, data_dir)
    sources = Sources(Tables(SECTIONS, NAMED_TABLES))
    given = {} if file is None else sources.from_file(file)
    given |= sources.from_environment(environment)
    for (section, key), value in (flags or {}).items():
        given[section, key] = Given(value, f"--{key.replace('_', '-')}")
    has_model = _complete_model(given, environment)
    problems = sources.problems
    settings = Settings(
        data_dir=data_dir,
        config_file=file,
        server=validated(given, ("server",), ServerSettings, problems),
        tls=validated(given, ("tls",), TlsSettings, problems),
        storage=validated(given, ("storage",), StorageSettings, problems),
        auth=validated(given, ("auth",), AuthSettings, problems),
        retention=validated(given, ("retention",), RetentionSettings, problems),
        audit=validated(given, ("audit",), AuditSettings, problems),
        log=validated(given, ("log",), LogSettings, problems),
        metrics=validated(given, ("metrics",), MetricsSettings, problems),
        tools=validated(given, ("tools",), ToolSettings, problems),
        credentials=validated(given, ("credentials",), CredentialSettings, problems),
        quotas=validated(given, ("quotas",), QuotaSettings, problems),
        approvals=validated(given, ("approvals",), ApprovalSettings, problems),
        model=validated(given, ("model",), ModelSettings, problems),
        has_model=has_model,
        providers=validated_below(given, "providers", ProviderSettings, problems),
        prices=validated_below(given, "prices", Price, problems),
        issuers=validated_below(given, "issuers", IssuerSettings, problems),
        mtls=validated_below(given, "mtls", MtlsServiceSettings, problems),
        approval_rules=validated_below(given, "approval_rules", ApprovalRuleSettings, problems),
        quota_rules=validated_below(given, "quota_rules", QuotaRuleSettings, problems),
        tool_hosts=validated_below(given, "tool_hosts", ToolHostSettings, problems),
        mcp=validated_below(given, "mcp", McpServerSettings, problems),
    )
    for kind in ("providers", "tool_hosts", "mcp", "issuers", "mtls"):
        problems += _bad_names(kind, getattr(settings, kind))
    for check in (_bad_providers, _differing_currencies, _bad_tools, _bad_admission):
        if not problems:
            problems += check(settings)
    if problems:
        raise ConfigError("\n".join(problems))
    return settings


def default_data_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the data directory where no flag names one: PARLEY_HOME, else the platform's."""
    named = environment.get(DATA_DIR_VARIABLE)
    return Path(named).expanduser().absolute() if named else platformdirs.user_data_path("parley", appauthor=False)


def _find_file(config: Path | None, data_dir: Path) -> Path | None:
    if config is not None:
        if not config.is_file():
            raise ConfigError(f"{config}: there is no such file; correct --config")
        return config
    return next((file for file in (Path(FILE_NAME), data_dir / FILE_NAME) if file.is_file()), None)


def _complete_model(given: GivenSettings, environment: Mapping[str, str]) -> bool:
    """Fill in what the model has from elsewhere; tell whether there is a model at all."""
    for key, variable in FALL_BACKS.items():
        if environment.get(variable):
            given.setdefault(("model", key), Given(environment[variable], f"environment variable {variable}"))
    if not _text(given, "base_url"):
        given.setdefault(("model", "name"), Given(OFFICIAL_MODEL, "default"))
    return bool(_text(given, "api_key") or _text(given, "base_url"))


def _text(given: GivenSettings, key: str) -> str:
    found = given.get(("model", key))
    return "" if found is None else str(found.value).strip()


def _with_inner(place: Place, table: BaseModel) -> Iterator[tuple[Place, BaseModel]]:
    yield place, table
    for key in sub_tables(type(table)):
        yield from _with_inner((*place, key), getattr(table, key))


def _differing_currencies(settings: Settings) -> Iterator[str]:
    """Costs of a run's models are summed, so that they have to be of one currency."""
    first = next(iter(settings.prices.values()), None)
    for name, price in settings.prices.items():
        if first is not None and price.currency != first.currency:
            yield f"{header(('prices', name))} currency: is not that of the other prices; give all prices in one"


def _bad_names(kind: str, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if len(name) > _MAX_NAME_CHARS or _TABLE_NAME.fullmatch(name) is None:
            place = header((kind, name))
            yield f"{place} is no name; write small letters and digits, with single _ between them, at most 64"


def _bad_tools(settings: Settings) -> Iterator[str]:
    yield from _equal_prefixes(settings.tool_hosts)
    for name, server in settings.mcp.items():
        yield from (f"{header(('mcp', name))} {problem}" for problem in server.problems())


def _equal_prefixes(hosts: Mapping[str, ToolHostSettings]) -> Iterator[str]:
    """Tools of two hosts would take each other's names, and which of them has it would be chance."""
    first: dict[str, str] = {}
    for name, host in hosts.items():
        other = first.setdefault(host.prefix_of(name), name)
        if other != name:
            yield f"{header(('tool_hosts', name))} prefix: is that of {header(('tool_hosts', other))}; choose another"


def _bad_admission(settings: Settings) -> Iterator[str]:
    try:
        admission = settings.admission
    except ListenError:
        # Told by whoever is about to listen, or asks whether one could.
        return
    yield from admission.problems()


def _bad_providers(settings: Settings) -> Iterator[str]:
    if settings.providers and not settings.has_model:
        yield "[model] base_url: is missing; [providers] are further servers, and what none of them lists is asked here"
    if MAIN_PROVIDER in settings.providers:
        yield f"{header(('providers', MAIN_PROVIDER))} is no name; the server of [model] is called so"
    listed: dict[str, str] = {}
    for name, provider in settings.providers.items():
        for model in provider.models:
            if model in listed:
                both = " and ".join(dict.fromkeys((listed[model], name)))
                yield f"{header(('providers', name))} models: {model} is listed twice, for {both}; keep one"
            listed[model] = name
    if len(listed) > _MAX_LISTED:
        yield f"[providers] have {len(listed)} models; at most {_MAX_LISTED} may be listed"
