"""The machine's zone and language, as the contract wants them."""

from pathlib import Path

import pytest
from parley_client.local_context import local_locale, local_time_zone


@pytest.mark.parametrize(
    ("tz", "zone"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        (":Europe/Berlin", "Europe/Berlin"),
        (":/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        ("posix/Europe/Berlin", "Europe/Berlin"),
        ("UTC", "UTC"),
        ("CET-1CEST", ""),
        ("localtime", ""),
        ("../../etc/passwd", ""),
        ("/etc/passwd", ""),
        ("Middle/Earth", ""),
        ("", ""),
    ],
)
def test_tz_names_the_zone(tz: str, zone: str) -> None:
    assert local_time_zone({"TZ": tz}) == zone


@pytest.mark.parametrize(("name", "zone"), [("Europe/Paris", "Europe/Paris"), ("Etc/UTC", ""), ("UTC", "")])
def test_without_tz_the_link_names_the_zone_unless_nobody_has_chosen_it(name: str, zone: str, tmp_path: Path) -> None:
    zone_file = tmp_path / "share/zoneinfo" / name
    zone_file.parent.mkdir(parents=True)
    zone_file.touch()
    link = tmp_path / "localtime"
    link.symlink_to(zone_file)
    assert local_time_zone({}, link) == zone
    assert local_time_zone({}, tmp_path / "absent") == ""
    assert local_time_zone({}, zone_file.parent) == ""


@pytest.mark.parametrize(
    ("environment", "locale"),
    [
        ({"LANG": "de_CH.UTF-8"}, "de-CH"),
        ({"LANG": "de_CH.UTF-8", "LC_ALL": "fr_FR"}, "fr-FR"),
        ({"LANG": "de_CH.UTF-8", "LC_ALL": "", "LC_MESSAGES": "en_GB"}, "en-GB"),
        ({"LANG": "sr_RS@latin"}, "sr-RS"),
        ({"LANG": "C.UTF-8"}, ""),
        ({"LANG": "POSIX"}, ""),
        ({"LANG": "not a locale"}, ""),
        ({}, ""),
    ],
)
def test_the_locale_is_a_language_tag(environment: dict[str, str], locale: str) -> None:
    assert local_locale(environment) == locale
