import logging

import pytest

from jobs.logs.outage_log import OutageLog


def test_an_outage_is_one_line_when_it_starts_and_one_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    outage = OutageLog("reader: waiting for Redis")
    with caplog.at_level(logging.WARNING):
        outage.recovered()
        for _ in range(100):
            outage.failed(TimeoutError())
        outage.recovered()
        outage.recovered()

    started, ended = (record.getMessage() for record in caplog.records)
    assert started == "reader: waiting for Redis: TimeoutError"
    assert ended == "reader: waiting for Redis: over after 0 s"
