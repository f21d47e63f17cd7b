import logging

import pytest
from hiredis import ReplyError

from jobs.errors import QueueFull, StoreUnavailable
from jobs.store.client import _said, refusal


def test_refusals_of_an_outage_are_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    _said.clear()
    with caplog.at_level(logging.ERROR):
        for _ in range(100):
            assert type(refusal(ReplyError("LOADING the dataset in memory"))) is StoreUnavailable
            assert type(refusal(ReplyError("OOM command not allowed"))) is QueueFull
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        f"Redis refuses commands: {why}" for why in ("LOADING the dataset in memory", "OOM command not allowed")
    ]
