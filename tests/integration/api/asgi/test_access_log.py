"""Who did what: lines for requests that change something and for those that are refused."""

import logging
import re

import pytest

from tests.integration.api.conftest import StartApi
from tests.support.store import Store

PNG = {"Content-Type": "image/png"}


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "darkroom.access"]


@pytest.fixture(autouse=True)
def _access_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "darkroom.access")


async def test_a_submit_and_a_refused_key_have_a_line_and_a_poll_has_none(
    start_api: StartApi, shirt: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    api = await start_api(api_keys={"alice": "a-secret-of-alice"})
    key = {"Authorization": "Bearer a-secret-of-alice", "X-Request-Id": "mine-1"}
    submitted = await api.post("/v1/jobs?top_k=3", content=shirt, headers=PNG | key)
    path = submitted.headers["Location"]
    assert (await api.get(path, headers=key)).status_code == 200
    refused = await api.get(path, headers={"Authorization": "Bearer guessed"})
    missing = await api.get("/nowhere", headers=key)

    submit, unauthorized, unknown = lines(caplog)
    what = rf"method=POST path=/v1/jobs status=202 code=- bytes={len(shirt)}"
    assert re.fullmatch(rf"request_id=mine-1 owner=alice {what} ms=\d+\.\d", submit)
    request_id = refused.headers["X-Request-Id"]
    assert unauthorized.startswith(
        f"request_id={request_id} owner=- method=GET path={path} status=401 code=unauthorized "
    )
    assert "status=404" in unknown
    assert missing.status_code == 404
    assert not re.search("a-secret-of-alice|guessed|top_k", "".join(lines(caplog)))


async def test_a_line_is_a_line_whatever_the_client_sends(
    start_api: StartApi, caplog: pytest.LogCaptureFixture
) -> None:
    api = await start_api()
    await api.get("/a%0Ab%20owner=root" + "x" * 1000)
    (line,) = lines(caplog)
    assert "path=/a%0Ab%20owner%3Drootxxx" in line
    assert len(line) < 400


async def test_lines_are_bounded_in_rate_and_those_left_out_are_counted(
    start_api: StartApi, caplog: pytest.LogCaptureFixture
) -> None:
    api = await start_api(access_log_lines_per_second_max=1)
    missed = 0
    while "left_out" not in (lines(caplog) or [""])[-1]:
        missed += (await api.get("/nowhere")).status_code == 404
    assert int(lines(caplog)[-1].rpartition("left_out=")[2]) + len(lines(caplog)) == missed


async def test_no_lines_at_all(start_api: StartApi, caplog: pytest.LogCaptureFixture) -> None:
    api = await start_api(access_log_lines_per_second_max=0)
    assert (await api.get("/nowhere")).status_code == 404
    assert lines(caplog) == []


async def test_readiness_is_asked_of_redis_once_a_second(start_api: StartApi, store: Store) -> None:
    api = await start_api()
    before = store.redis.info("commandstats")["cmdstat_set"]["calls"]
    answers = [await api.get("/readyz") for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    seconds = sum(answer.elapsed.total_seconds() for answer in answers)
    assert store.redis.info("commandstats")["cmdstat_set"]["calls"] - before <= 1 + seconds
