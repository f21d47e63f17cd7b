"""Names of files in a form: labels that arrive whole, and nothing else."""

import codecs

import httpx
import pytest

from tests.integration.api.uploads.test_bad_input import END, MULTIPART, segment
from tests.support.archives import unicode_path, zip_with_name


@pytest.mark.parametrize(
    ("filename", "label"),
    [
        (b"../../etc/passwd", "passwd"),
        (b"C:\\\\Windows\\\\shirt.png", "shirt.png"),
        (b"/", None),
        (b"", None),
        (b"caf\xe9.png", "café.png"),
        (b"\x84caf\xe9\x93 \x80.png", "„café“ €.png"),  # Windows' western code page
        (b"\x81\xfc.png", "�ü.png"),
        ("größe.png".encode(), "größe.png"),
        (b"a\x00b\x1b[31m.png", "a�b�[31m.png"),
        (b"x" * 300, "x" * 255),
        (b"a%22b%0D%0a.png", 'a"b\ufffd\ufffd.png'),  # as browsers escape what would end the header
        (b"100%25.png", "100%25.png"),
    ],
)
async def test_a_file_name_is_a_label_and_nothing_else(
    api: httpx.AsyncClient, shirt: bytes, filename: bytes, label: str | None
) -> None:
    answer = await api.post("/v1/jobs", content=segment("files", filename, shirt) + END, headers=MULTIPART)
    assert answer.status_code == 202
    assert answer.json()["result"]["name"] == label


@pytest.mark.parametrize(
    ("parameter", "label"),
    [
        (b"filename*=utf-8''gr%C3%BC%C3%9Fe.png", "grüße.png"),
        (b"filename*=UTF-8'de'gr%C3%BC.png; filename=\"gr?.png\"", "grü.png"),
        (b"filename=\"gr?.png\"; filename*=UTF-8''gr%C3%BC.png", "grü.png"),
        (b"filename*=iso-8859-1''gr%FC.png", "grü.png"),
        (b"filename*=nonsense''gr%C3%BC.png", "grü.png"),
        (b"filename*=utf-8''..%2F..%2Fetc%2Fpasswd", "passwd"),
        (b"filename*=utf-8''", None),
    ],
)
@pytest.mark.parametrize("field", [b"files", b"images"])
async def test_a_file_named_by_the_extended_parameter_alone_is_taken(
    api: httpx.AsyncClient, shirt: bytes, parameter: bytes, label: str | None, field: bytes
) -> None:
    head = b'--frontier\r\nContent-Disposition: form-data; name="' + field + b'"; ' + parameter + b"\r\n\r\n"
    answer = await api.post("/v1/jobs", content=head + shirt + b"\r\n" + END, headers=MULTIPART)
    assert answer.status_code == 202
    assert answer.json()["result"]["name"] == label


IMAGE = b'--frontier\r\nContent-Disposition: form-data; name="photo"\r\nContent-Type: image/png\r\n\r\n'


async def test_no_part_of_a_form_is_passed_over_in_silence(api: httpx.AsyncClient, shirt: bytes) -> None:
    """A part with the type of a file is one, without a name, too; other fields are counted."""
    fields = segment("comment", None, b"hello") + segment("csrf", None, b"1")
    body = segment("files", b"a.png", shirt) + fields + IMAGE + shirt + b"\r\n" + END
    answer = await api.post("/v1/jobs", content=body, headers=MULTIPART)
    assert answer.status_code == 202
    job = answer.json()
    assert (job["counts"]["total"], job["skipped"], job["lane"]) == (2, 2, "interactive")
    page = (await api.get(f"/v1/jobs/{job['id']}/results")).json()
    assert [item["name"] for item in page["items"]] == ["a.png", None]


async def test_a_file_in_another_field_than_that_of_the_book_is_refused(api: httpx.AsyncClient, shirt: bytes) -> None:
    body = segment("file", b"a.png", shirt) + segment("image", b"b.png", shirt) + END
    answer = await api.post("/predict", content=body, headers=MULTIPART)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "'file'" in answer.json()["detail"]


async def pending_names(api: httpx.AsyncClient, answer: httpx.Response) -> list[str]:
    page = (await api.get(f"{answer.headers['Location']}/results")).json()
    return [item["name"] for item in page["items"]]


@pytest.mark.parametrize("behind", [b"", b"\r\n--boundary--\r\n", bytes(5000)])
async def test_a_zip_of_another_code_page_arrives_with_its_names(api: httpx.AsyncClient, behind: bytes) -> None:
    """As WinRAR and 7-Zip write it; bytes behind its end are ignored."""
    name = "写真.png".encode("cp932")
    body = zip_with_name(name, unicode_path(name, "写真.png")) + behind
    answer = await api.post("/v1/jobs", content=body, headers={"Content-Type": "application/zip"})
    assert answer.status_code == 202, answer.text
    assert await pending_names(api, answer) == ["写真.png"]


async def test_json_may_begin_with_a_byte_order_mark(api: httpx.AsyncClient) -> None:
    body = codecs.BOM_UTF8 + b'{"urls": ["https://example.com/a.png"]}'
    answer = await api.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 202, answer.text
    assert await pending_names(api, answer) == ["https://example.com/a.png"]
