"""A real Prometheus that scrapes a real stack: the dashboard has data, and alerts look at metrics that exist."""

from collections.abc import Iterator

import pytest

from tests.support.monitored import monitored, work
from tests.support.processes import Api
from tests.support.prometheus import Prometheus, alert_rules, metrics_of, panel_expressions
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, Api]]:
    with monitored(tmp_path_factory.mktemp("monitored")) as (prometheus, api):
        wait_until(
            lambda: len(prometheus.query('up{job="darkroom"} == 1')) == 3, seconds=60, what="a scrape of each service"
        )
        yield prometheus, api


@pytest.fixture
def prometheus(scraped: tuple[Prometheus, Api]) -> Prometheus:
    return scraped[0]


def test_every_panel_of_the_dashboard_has_data(scraped: tuple[Prometheus, Api]) -> None:
    """A rate is of two scrapes with work between them: work that ended before the first of them has none."""
    prometheus, api = scraped
    expressions = set(panel_expressions())
    assert len(expressions) > 20

    def without_data() -> list[str]:
        work(api)
        return [it for it in expressions if not any(row["value"][1] != "NaN" for row in prometheus.query(it))]

    wait_until(lambda: not without_data(), seconds=60, what="data of every panel", poll_seconds=0.5)


def test_every_alert_looks_at_metrics_that_exist_and_none_fires(prometheus: Prometheus) -> None:
    names = {name for rule in alert_rules() for name in metrics_of(rule["expr"])}
    assert len(names) > 10
    assert {name for name in names if not prometheus.query(f"count({name})")} == set()
    states = wait_until(prometheus.alerts, what="the alerts")
    assert states == {rule["alert"]: "inactive" for rule in alert_rules()}


def test_a_name_that_does_not_exist_would_be_noticed(prometheus: Prometheus) -> None:
    assert metrics_of("max(darkroom_nothing) / sum by (darkroom_label) (up)") == {"darkroom_nothing", "up"}
    assert prometheus.query("count(darkroom_nothing)") == []
