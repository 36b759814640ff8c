"""Limits of the settings are told over the wire as they are, the largest ones too."""

from parley_server.domain.budget import Budget
from parley_server.domain.quota import Subject, SubjectKind
from parley_server.quotas.quota_settings import LimitSettings
from parley_server.rpc.mapping.budget import read_budget, write_budget


def test_the_largest_limits_that_can_be_set_are_told_as_they_are() -> None:
    keys = LimitSettings.model_json_schema()["properties"]
    most = {key: next(each["maximum"] for each in told["anyOf"] if "maximum" in each) for key, told in keys.items()}
    budget = Budget(Subject(SubjectKind.USER, "ann"), LimitSettings.model_validate(most).limits())
    assert read_budget(write_budget(budget)) == budget
