"""Which calls the user is asked about: the tool's own word, then the most personal rule, then the effect."""

import re
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parley_server.domain.tool import ApprovalRule, ToolEffect, ToolSpec
from parley_server.settings import load_settings
from parley_server.settings_sources import ConfigError
from parley_server.tools.approval_policy import DEFAULT_POLICY, ApprovalPolicy, ApprovalRuleSettings, ApprovalSettings

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guides" / "approvals.md"
BOOK = ToolSpec("book", "Books.", '{"type":"object"}', ToolEffect.WRITE)
ALL_ALWAYS = ApprovalSettings(read="always", idempotent="always", write="always")

asks = st.sampled_from(["never", "always"])
some = st.sampled_from([(), ("*",)])
rules = st.builds(
    ApprovalRuleSettings,
    ask=asks,
    users=some,
    agents=some,
    tools=some,
    sources=some,
    effects=st.sampled_from([(), tuple(ToolEffect)]),
)


def asked(policy: ApprovalPolicy, spec: ToolSpec = BOOK, user_id: str = "ann") -> bool:
    return policy.asks(spec, "assistant", user_id)


@pytest.mark.parametrize("effect", ToolEffect)
def test_by_default_nothing_is_asked(effect: ToolEffect) -> None:
    assert not asked(DEFAULT_POLICY, replace(BOOK, effect=effect))


@pytest.mark.parametrize("effect", ToolEffect)
def test_each_effect_has_a_default_of_its_own(effect: ToolEffect) -> None:
    policy = ApprovalPolicy(ApprovalSettings.model_validate({effect.value: "always"}))
    assert [each for each in ToolEffect if asked(policy, replace(BOOK, effect=each))] == [effect]


@settings(max_examples=20)
@given(st.lists(rules, max_size=3), st.sampled_from([ApprovalSettings(), ALL_ALWAYS]))
def test_what_a_tool_says_itself_is_final(rules: list[ApprovalRuleSettings], defaults: ApprovalSettings) -> None:
    policy = ApprovalPolicy(defaults, rules)
    assert asked(policy, replace(BOOK, approval=ApprovalRule.ALWAYS))
    assert not asked(policy, replace(BOOK, approval=ApprovalRule.NEVER))


@pytest.mark.parametrize(
    ("rule", "is_for_it"),
    [
        ({}, True),
        ({"tools": ["book"]}, True),
        ({"tools": ["bo*", "x"]}, True),
        ({"tools": ["boo"]}, False),
        ({"users": ["ann"]}, True),
        ({"users": ["bob", "a*"]}, True),
        ({"users": ["bob"]}, False),
        ({"agents": ["assistant"], "sources": ["server"], "effects": ["write"]}, True),
        ({"agents": ["assistant"], "sources": ["mcp:*"]}, False),
        ({"effects": ["read", "idempotent"]}, False),
    ],
)
def test_a_rule_is_for_what_fits_all_its_lists(rule: dict[str, object], is_for_it: bool) -> None:
    policy = ApprovalPolicy(rules=[ApprovalRuleSettings.model_validate({"ask": "always", **rule})])
    assert asked(policy) is is_for_it


@settings(max_examples=40)
@given(st.lists(rules, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_most_personal_rule_decides_in_whatever_order_they_stand(
    given_rules: list[ApprovalRuleSettings], chance: Random
) -> None:
    ranks = [tuple(map(bool, (r.users, r.agents, r.tools, r.sources, r.effects))) for r in given_rules]
    nearest = [rule.ask for rule, rank in zip(given_rules, ranks, strict=True) if rank == max(ranks)]
    shuffled = chance.sample(given_rules, len(given_rules))
    for defaults in (ApprovalSettings(), ALL_ALWAYS):
        assert asked(ApprovalPolicy(defaults, shuffled)) is ("always" in nearest)


def test_the_guides_settings_are_read(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "parley.toml"
    file.write_text("\n".join(blocks), encoding="utf-8")
    loaded = load_settings(config=file, data_dir=tmp_path, environment={})
    policy = ApprovalPolicy(loaded.approvals, tuple(loaded.approval_rules.values()))
    assert len(loaded.approval_rules) == 3
    assert asked(policy)
    assert not asked(policy, replace(BOOK, effect=ToolEffect.IDEMPOTENT))
    assert asked(policy, replace(BOOK, effect=ToolEffect.READ), "guest:7")
    assert not asked(policy, replace(BOOK, name="forget_note", effect=ToolEffect.WRITE))


def test_the_environment_writes_lists_with_commas(tmp_path: Path) -> None:
    environment = {
        "PARLEY_APPROVAL_RULES__MAIL__ASK": "always",
        "PARLEY_APPROVAL_RULES__MAIL__TOOLS": "send_*, pay",
        "PARLEY_APPROVAL_RULES__MAIL__EFFECTS": "write",
    }
    rule = load_settings(config=None, data_dir=tmp_path, environment=environment).approval_rules["mail"]
    assert (rule.tools, rule.effects) == (("send_*", "pay"), (ToolEffect.WRITE,))


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"PARLEY_APPROVALS__WRITE": "sometimes"}, r"\[approvals\] write"),
        ({"PARLEY_APPROVALS__EXPIRY_S": "0"}, r"\[approvals\] expiry_s"),
        ({"PARLEY_APPROVAL_RULES__X__TOOLS": "a*b", "PARLEY_APPROVAL_RULES__X__ASK": "always"}, "tools"),
        ({"PARLEY_APPROVAL_RULES__X__TOOLS": "pay"}, r"\[approval_rules\.x\] ask: is missing"),
    ],
)
def test_what_is_wrong_is_said(environment: dict[str, str], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_settings(config=None, data_dir=tmp_path, environment=environment)
