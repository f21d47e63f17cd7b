"""Requests that are refused, each with its code, and leave nothing in Redis.

An error in an image itself is an error of its item: `tests/integration/worker/test_bad_images.py`.
"""

import asyncio
import gzip
import socket
from collections.abc import Callable

import httpx
import pytest

from tests.integration.api.conftest import StartApi
from tests.support.store import Store
from tests.support.waiting import eventually

PNG = {"Content-Type": "image/png"}
BOUNDARY = "frontier"
MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture
async def keys_before(api: httpx.AsyncClient, store: Store) -> Callable[[], set[bytes]]:
    """Returns the keys that were added since."""
    await api.get("/v1/models")
    before = store.keys()
    return lambda: store.keys() - before


def segment(name: str, filename: bytes | None, body: bytes) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"'.encode()
    if filename is not None:
        disposition += b'; filename="' + filename + b'"'
    return b"--" + BOUNDARY.encode() + b"\r\n" + disposition + b"\r\n\r\n" + body + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        pytest.param(b"", PNG, 422, "invalid_request", id="an empty body"),
        pytest.param(b"", {}, 422, "invalid_request", id="no body at all"),
        pytest.param(b"plain text", {}, 415, "unsupported_media_type", id="no image and no Content-Type"),
        pytest.param(b"plain text", {"Content-Type": "text/plain"}, 415, "unsupported_media_type", id="text"),
        pytest.param(b"{}", {"Content-Type": "application/json"}, 422, "invalid_request", id="JSON without urls"),
        pytest.param(b"<a/>", {"Content-Type": "application/xml"}, 415, "unsupported_media_type", id="XML"),
        pytest.param(b"PK\x03\x04", {}, 422, "invalid_request", id="a damaged archive recognized by its bytes"),
        pytest.param(b"x", {"Content-Type": "multipart/form-data"}, 422, "invalid_request", id="no boundary"),
        pytest.param(
            b"x", {"Content-Type": "multipart/form-data; boundary="}, 422, "invalid_request", id="no boundary"
        ),
        pytest.param(b"no boundary in here", MULTIPART, 422, "invalid_request", id="no part"),
        pytest.param(END, MULTIPART, 422, "invalid_request", id="only the end"),
        pytest.param(
            segment("comment", None, b"x") + END, MULTIPART, 422, "invalid_request", id="no file among the parts"
        ),
        pytest.param(segment("files", b"a", b"x"), MULTIPART, 422, "invalid_request", id="no end"),
        pytest.param(segment("files", b"a", b"x")[:-9], MULTIPART, 422, "invalid_request", id="cut off in a part"),
        pytest.param(
            b"".join(segment("comment", None, b"x") for _ in range(200)) + END,
            MULTIPART,
            422,
            "invalid_request",
            id="200 parts and no file",
        ),
        pytest.param(
            segment("files", b"a", b"x") + segment("model", None, b"resnet") + END,
            MULTIPART,
            422,
            "invalid_request",
            id="a parameter as a part",
        ),
        pytest.param(bytes(20 << 20), PNG, 413, "upload_too_large", id="20 MiB of one image"),
        pytest.param(
            segment("files", b"a", bytes(11 << 20)) + END, MULTIPART, 413, "upload_too_large", id="one file too large"
        ),
        pytest.param(
            segment("files", b"a", bytes(9 << 20)) * 2 + END, MULTIPART, 413, "upload_too_large", id="too large in all"
        ),
    ],
)
async def test_a_bad_body_is_refused_and_leaves_nothing(
    api: httpx.AsyncClient,
    keys_before: Callable[[], set[bytes]],
    content: bytes,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    answer = await api.post("/v1/jobs", content=content, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert keys_before() == set()


async def test_a_body_that_grows_too_large_unannounced_is_refused(
    api: httpx.AsyncClient, keys_before: Callable[[], set[bytes]]
) -> None:
    async def endless() -> object:
        for _ in range(20):
            yield bytes(1 << 20)

    for headers in (PNG, MULTIPART):
        answer = await api.post("/v1/jobs", content=endless(), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
    assert keys_before() == set()


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("model=resnet", "unknown_model"),
        ("model=../etc/passwd", "invalid_request"),
        ("top_k=0", "invalid_request"),
        ("top_k=101", "invalid_request"),
        ("top_k=many", "invalid_request"),
        ("lane=fast", "invalid_request"),
        ("modle=fmnist-mlp", "invalid_request"),
    ],
)
async def test_a_bad_parameter_is_refused_and_leaves_nothing(
    api: httpx.AsyncClient, shirt: bytes, keys_before: Callable[[], set[bytes]], query: str, code: str
) -> None:
    answer = await api.post(f"/v1/jobs?{query}", content=shirt, headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert keys_before() == set()


async def test_more_files_than_a_job_may_have_are_refused(start_api: StartApi, store: Store, shirt: bytes) -> None:
    api = await start_api(job_items_max=2)
    answer = await api.post("/v1/jobs", files=[("files", (f"{n}.png", shirt)) for n in range(3)])
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert (await api.get("/v1/jobs")).json()["jobs"] == []


async def test_one_file_too_large_among_many_is_an_error_of_its_item(
    start_api: StartApi, store: Store, shirt: bytes
) -> None:
    api = await start_api(item_bytes_max=1000)
    answer = await api.post("/v1/jobs", files=[("files", ("big.png", bytes(1001))), ("files", ("ok.png", shirt))])
    assert answer.status_code == 202
    assert answer.json()["counts"]["total"] == 2


async def send(api: httpx.AsyncClient, data: bytes, *, then_close: bool = True) -> bytes:
    """Write raw bytes to the API, then disconnect or read its response."""
    url = api.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(data)
    await writer.drain()
    if then_close:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        writer.transport.abort()
        return b""
    answer = await reader.read(1000)
    writer.close()
    return answer


def request(headers: dict[str, str], length: int, body: bytes) -> bytes:
    lines = [
        "POST /v1/jobs HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {length}",
        *(f"{k}: {v}" for k, v in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def test_a_client_that_hangs_up_in_the_middle_of_its_body_leaves_nothing(
    api: httpx.AsyncClient, shirt: bytes, keys_before: Callable[[], set[bytes]]
) -> None:
    large = segment("files", b"a", bytes(5 << 20)) + segment("files", b"b", bytes(5 << 20))
    for headers, body in ((PNG, shirt[:100]), (MULTIPART, segment("files", b"a", shirt)), (MULTIPART, large)):
        await send(api, request(headers, len(body) + 1000, body))
    # This request is answered only after the API has read the others.
    assert (await api.post("/v1/jobs", content=b"", headers=PNG)).status_code == 422
    await eventually(lambda: not keys_before(), what="the removal of the staged bytes")


async def test_a_body_that_stops_arriving_times_out(start_api: StartApi, store: Store, shirt: bytes) -> None:
    api = await start_api(upload_seconds_max=0.2, upload_idle_seconds_max=0.2)
    await api.get("/v1/models")
    before = store.keys()
    large = segment("files", b"a", bytes(5 << 20)) + segment("files", b"b", shirt)
    for headers, body in ((PNG, shirt[:100]), (MULTIPART, large)):
        answer = await send(api, request(headers, len(body) + 1000, body), then_close=False)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"upload_timeout" in answer
    assert store.keys() == before


async def test_clients_that_disconnect_in_the_middle_of_a_group_do_not_delay_the_others(
    api: httpx.AsyncClient, store: Store, shirt: bytes
) -> None:
    """Complete requests whose clients disconnect before the response, among others that wait."""
    disconnecting = [send(api, request(PNG, len(shirt), shirt)) for _ in range(30)]
    waiting = [api.post("/v1/jobs", content=shirt, headers=PNG) for _ in range(30)]
    calls = [call for pair in zip(disconnecting, waiting, strict=True) for call in pair]
    answers: list[bytes | httpx.Response] = await asyncio.gather(*calls)

    assert [answer.status_code for answer in answers if isinstance(answer, httpx.Response)] == [202] * 30
    listed = (await api.get("/v1/jobs?limit=1000")).json()["jobs"]
    claimed = store.claim().chunks
    assert 30 <= len(listed) <= 60
    assert len(claimed) == len(listed), "every listed job is ready, and no other"


async def test_an_id_in_capitals_is_the_same_id(api: httpx.AsyncClient, shirt: bytes) -> None:
    job_id = (await api.post("/v1/jobs", content=shirt, headers=PNG)).json()["id"]
    assert (await api.get(f"/v1/jobs/{job_id.upper()}")).json()["id"] == job_id


@pytest.mark.parametrize("content_type", ["binary/octet-stream", "application/octet-stream"])
async def test_types_that_say_nothing_are_told_by_the_first_bytes(
    api: httpx.AsyncClient, shirt: bytes, content_type: str
) -> None:
    assert (await api.post("/v1/jobs", content=shirt, headers={"Content-Type": content_type})).status_code == 202


@pytest.mark.parametrize("path", ["", "/results"])
@pytest.mark.parametrize(
    "job_id", ["019254a0-7b11-7cc0-8000-3f1d5a2b9c4e", "1", "not-an-id", "019254A0-7B11-7CC0-8000-3F1D5A2B9C4E", "%00"]
)
async def test_an_unknown_or_malformed_id_is_404(api: httpx.AsyncClient, job_id: str, path: str) -> None:
    answer = await api.get(f"/v1/jobs/{job_id}{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


@pytest.mark.parametrize("wait", ["soon", "-1", "nan", "inf", "31", ""])
async def test_a_bad_wait_is_refused(api: httpx.AsyncClient, shirt: bytes, wait: str) -> None:
    job = (await api.post("/v1/jobs", content=shirt, headers=PNG)).json()
    answer = await api.get(f"/v1/jobs/{job['id']}?wait={wait}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "wait" in answer.json()["detail"]


@pytest.mark.parametrize("cursor", ["x", "1", "-1", "1-2", "1-2-3-4", "9999999999-0-0", "%00"])
async def test_a_bad_cursor_is_refused(api: httpx.AsyncClient, shirt: bytes, cursor: str) -> None:
    job = (await api.post("/v1/jobs", content=shirt, headers=PNG)).json()
    assert (await api.get(f"/v1/jobs/{job['id']}/results?cursor={cursor}")).json()["code"] == "invalid_request"


async def test_a_cursor_past_the_end_gives_nothing(api: httpx.AsyncClient, shirt: bytes) -> None:
    job = (await api.post("/v1/jobs", content=shirt, headers=PNG)).json()
    for cursor in ("0-50-50", "7-0-7", "0-0-999"):
        page = (await api.get(f"/v1/jobs/{job['id']}/results?cursor={cursor}")).json()
        assert page["next_cursor"] is None
        assert len(page["items"]) <= 1


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "cursor=-1", "cursor=x", "status=lost"])
async def test_a_bad_listing_is_refused(api: httpx.AsyncClient, query: str) -> None:
    assert (await api.get(f"/v1/jobs?{query}")).json()["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/predict", 405, "method_not_allowed"),
        ("GET", "/v1/models/resnet", 404, "model_not_found"),
        ("GET", "/v1/models/Big%20Model", 422, "invalid_request"),
        ("GET", "/v1/jobs/", 404, "not_found"),
    ],
)
async def test_other_errors_are_problems_too(
    api: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await api.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-Id"]


async def test_a_length_of_thousands_of_digits_is_too_large(api: httpx.AsyncClient) -> None:
    head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: "
    body = f"{'0' * 4300}3\r\n\r\nabc"
    assert (await send(api, (head + body).encode(), then_close=False)).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, identity", "x" * 500])
async def test_an_encoded_body_is_refused(api: httpx.AsyncClient, shirt: bytes, encoding: str) -> None:
    for content_type in ("image/png", "application/octet-stream", "application/x-tar"):
        headers = {"Content-Type": content_type, "Content-Encoding": encoding}
        answer = await api.post("/v1/jobs", content=gzip.compress(shirt), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
        assert "Content-Encoding" in answer.json()["detail"]


async def test_a_body_that_says_it_is_not_encoded_is_taken(api: httpx.AsyncClient, shirt: bytes) -> None:
    headers = {"Content-Type": "image/png", "Content-Encoding": "identity"}
    assert (await api.post("/v1/jobs", content=shirt, headers=headers)).status_code == 202
