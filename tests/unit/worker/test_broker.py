import logging

import pytest
from kombu.exceptions import OperationalError

from worker.broker import DoorbellConnection


def test_a_worker_tries_each_second_to_reach_redis_and_logs_it_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Celery's own waits would be 2, 4, 6, … 30 s: doorbells would be taken long after Redis is back."""
    waits = list[float]()
    monkeypatch.setattr("kombu.utils.functional.sleep", waits.append)
    with caplog.at_level(logging.WARNING), pytest.raises(OperationalError):
        DoorbellConnection("redis://127.0.0.1:1/0").ensure_connection(max_retries=20)
    assert [seconds for seconds in waits if seconds] == [1.0] * 20
    assert len(caplog.records) == 1
