import logging

import pytest
from hiredis import ReplyError

from jobs.errors import QueueFull, StoreUnavailable
from jobs.settings import StoreSettings
from jobs.store.for_api.client import StoreClient


async def test_refusals_of_an_outage_are_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    client = StoreClient(StoreSettings(), timeout_seconds=1, group_submits_max=1, group_bytes_max=1)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            assert type(client.refusal(ReplyError("LOADING the dataset in memory"))) is StoreUnavailable
            assert type(client.refusal(ReplyError("OOM command not allowed"))) is QueueFull
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        f"Redis refuses commands: ReplyError: {why}"
        for why in ("LOADING the dataset in memory", "OOM command not allowed")
    ]
