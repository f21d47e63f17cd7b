import pytest

from deploy.local.ready import _base_url


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://127.0.0.1:8000"),  # of both families: tests/integration/api/asgi/test_wire_clients.py
        ("::1", "http://[::1]:8000"),
        ("localhost", "http://localhost:8000"),
    ],
)
def test_make_run_asks_where_the_api_listens(host: str, url: str) -> None:
    assert _base_url(host, "8000") == url
