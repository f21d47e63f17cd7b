"""The shipped alerts: each fires in its test and not beside it, and has a section of the runbook."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.processes import ROOT
from tests.support.prometheus import FOLDER, alert_rules

ALERTS = [rule["alert"] for rule in alert_rules()]
ALERTS_MAX = 10


def promtool(*arguments: str, folder: Path = FOLDER) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_each_alert_fires_in_its_test_and_not_beside_it() -> None:
    done = promtool("test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    found = {alert: set[bool]() for alert in ALERTS}
    for test in tests:
        for check in test["alert_rule_test"]:
            found[check["alertname"]].add(bool(check["exp_alerts"]))
    assert found == {alert: {True, False} for alert in ALERTS}
    assert len(ALERTS) <= ALERTS_MAX


@pytest.mark.parametrize("changed", ["({}) and on () vector(0) > 0", "({}) or on () vector(1)"])
def test_the_tests_fail_of_alerts_that_never_fire_or_always_do(changed: str, tmp_path: Path) -> None:
    shutil.copy(FOLDER / "alerts_test.yml", tmp_path)
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        rule["expr"] = changed.format(rule["expr"])
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    done = promtool("test", "rules", "alerts_test.yml", folder=tmp_path)
    assert done.returncode == 1
    assert {alert for alert in ALERTS if f"alertname: {alert}," not in done.stdout + done.stderr} == set()


@pytest.mark.parametrize("rule", alert_rules(), ids=ALERTS)
def test_each_alert_has_a_section_of_the_runbook(rule: dict[str, dict[str, str]]) -> None:
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    text = (ROOT / page).read_text()
    (section,) = re.findall(rf"^## {rule['alert']}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert anchor == str(rule["alert"]).lower()
    assert all(f"**{part}:**" in section for part in ("It means", "Look", "Do"))


def test_the_configuration_is_valid() -> None:
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
