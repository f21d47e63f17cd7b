"""A server without keys on a loopback address: what a web page in this machine's browser may not do."""

import httpx
import pytest

from tests.integration.api.conftest import StartApi

PNG = {"Content-Type": "image/png"}
FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"},
]


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.7", "[::2]", "["]
)
async def test_a_name_that_is_not_of_this_machine_is_refused(start_api: StartApi, host: str) -> None:
    api = await start_api()
    for _ in range(2):
        assert code_of(await api.get("/v1/jobs", headers={"Host": host})) == (421, "wrong_host")
    assert (await api.get("/livez", headers={"Host": host})).status_code == 200, "says nothing of jobs"


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "app.localhost", "127.0.0.1:80", "127.9.9.9", "[::1]:8000", "", "darkroom.lan"],
)
async def test_names_of_this_machine_and_of_the_setting_are_let_in(start_api: StartApi, host: str) -> None:
    api = await start_api(allowed_hosts=["Darkroom.lan"])
    assert (await api.get("/v1/jobs", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_a_page_of_another_site_changes_nothing(
    start_api: StartApi, shirt: bytes, headers: dict[str, str]
) -> None:
    api = await start_api()
    path = (await api.post("/v1/jobs", content=shirt, headers=PNG)).headers["Location"]
    assert code_of(await api.post("/v1/jobs", content=shirt, headers=PNG | headers)) == (403, "cross_site_request")
    assert code_of(await api.delete(path, headers=headers)) == (403, "cross_site_request")
    assert (await api.get(path, headers=headers)).json()["status"] == "queued"
    assert len((await api.get("/v1/jobs", headers=headers)).json()["jobs"]) == 1


async def test_a_page_of_the_server_itself_and_programs_may(start_api: StartApi, shirt: bytes) -> None:
    api = await start_api()
    own = {"Origin": str(api.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    for headers in ({}, own, {"Sec-Fetch-Site": "none"}):
        assert (await api.post("/v1/jobs", content=shirt, headers=PNG | headers)).status_code == 202


@pytest.mark.parametrize(
    "settings",
    [{"api_keys": {"alice": "a-secret-of-alice"}}, {"bind": "0.0.0.0", "open_to_everybody": True}],
    ids=["keys", "open"],
)
async def test_a_server_for_others_has_any_name(start_api: StartApi, shirt: bytes, settings: dict[str, object]) -> None:
    """A page has no key; and who may open a server to everybody has said so."""
    api = await start_api(**settings)
    headers = PNG | {
        "Host": "darkroom.example",
        "Origin": "https://page.example",
        "Authorization": "Bearer a-secret-of-alice",
    }
    assert (await api.post("/v1/jobs", content=shirt, headers=headers)).status_code == 202
