"""Names of files in a form: labels that arrive whole, and nothing else."""

import httpx
import pytest

from tests.integration.api.uploads.test_bad_input import END, MULTIPART, segment


@pytest.mark.parametrize(
    ("filename", "label"),
    [
        (b"../../etc/passwd", "passwd"),
        (b"C:\\\\Windows\\\\shirt.png", "shirt.png"),
        (b"/", None),
        (b"", None),
        (b"caf\xe9.png", "caf�.png"),
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
