"""A real Prometheus, Debian's, with the shipped configuration and alerts."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson
import yaml

from tests.support.processes import ROOT, Process, answers, free_port
from tests.support.waiting import wait_until

FOLDER = ROOT / "deploy" / "monitoring"
_METRIC = re.compile(r"\b(?:darkroom_\w+|up)\b")
_BY = re.compile(r"\b(?:by|on|without) \([^)]*\)")


class Prometheus(Process):
    """Scrapes services at these ports, once a second, in place of those that it would find by name."""

    def __init__(self, folder: Path, ports: Mapping[str, int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._port = port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
        (scrape,) = config["scrape_configs"]
        del scrape["dns_sd_configs"]
        del scrape["relabel_configs"]
        scrape["static_configs"] = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"service": service}} for service, port in ports.items()
        ]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        super().__init__([*command, f"--web.listen-address=127.0.0.1:{port}"], folder / "prometheus.log")

    def start(self) -> None:
        super().start()
        wait_until(self._answers, what="Prometheus")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression has now."""
        answer = self._get("/api/v1/query", query=expression)
        found: list[dict[str, Any]] = answer["result"]
        return found

    def alerts(self) -> dict[str, str]:
        """Each alert's state: inactive, pending or firing. Its expression can be evaluated."""
        (group,) = self._get("/api/v1/rules")["groups"]
        assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}, group
        return {rule["name"]: rule["state"] for rule in group["rules"]}

    def _get(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}{path}", params=parameters, timeout=10)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def _answers(self) -> bool:
        assert self.running(), self.output()
        return answers(self._port, "/-/ready")


def alert_rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def panel_expressions() -> Iterator[str]:
    for panel in orjson.loads((FOLDER / "dashboard.json").read_bytes())["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def metrics_of(expression: str) -> set[str]:
    """The names of the metrics in an expression."""
    return set(_METRIC.findall(_BY.sub("", expression)))
