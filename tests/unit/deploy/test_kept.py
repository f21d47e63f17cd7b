import json

import pytest

from deploy.ec2.errors import DeployError
from deploy.ec2.kept import PARAMETER_BYTES_MAX, Environment
from deploy.ec2.options import UpOptions

OPTIONS = UpOptions(cidr="203.0.113.7/32")


def test_secrets_are_drawn_once() -> None:
    first = Environment().for_options(OPTIONS)
    assert first.for_options(OPTIONS).lines == first.lines
    assert Environment().for_options(OPTIONS).api_key != first.api_key
    assert [line.partition("=")[0] for line in first.lines] == [
        "API_KEYS",
        "REDIS_PASSWORD",
        "REDIS_WORKER_PASSWORD",
        "BIND",
    ]


def test_a_domain_takes_the_api_off_the_network_and_back() -> None:
    first = Environment(("OWNER_PENDING_ITEMS_MAX=5",)).for_options(OPTIONS)
    tls = first.for_options(UpOptions(cidr="0.0.0.0/0", domain="images.example.com"))
    assert tls.value("DOMAIN") == "images.example.com"
    assert tls.value("COMPOSE_PROFILES") == "tls"
    assert tls.value("BIND") == ""
    assert tls.for_options(OPTIONS).lines == first.lines


def test_uploads_wait_in_the_folder_and_with_workers_in_redis() -> None:
    alone = Environment().for_options(OPTIONS)
    assert alone.uploads_url == "file:///var/lib/darkroom/uploads"
    with_workers = alone.for_options(UpOptions(cidr="203.0.113.7/32", workers=2))
    assert (with_workers.uploads_url, with_workers.value("REDIS_TLS_PORT")) == ("redis:", "6380")
    assert with_workers.for_options(OPTIONS).lines == alone.lines
    in_s3 = Environment((*with_workers.lines, "UPLOADS_URL='s3://ours/x'"))
    assert in_s3.uploads_url == "s3://ours/x"


def test_the_host_has_a_line_for_each() -> None:
    """The AWS command line ends the value with a newline."""
    environment = Environment(("A=1", "B=2"))
    assert environment.file() == "A=1\nB=2\n"
    assert environment.file() == f"{environment.text()}\n"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ('{"admin":"k"}', "k"),
        ('\'{"other": "first", "admin": "k"}\'', "k"),
        ('{"other": "first", "third": "x"}', "first"),
        ("[]", ""),
        ("{", ""),
        ("", ""),
    ],
)
def test_the_key_with_which_up_asks(value: str, key: str) -> None:
    assert Environment((f"API_KEYS={value}",)).api_key == key


def test_what_ssm_does_not_take_is_refused() -> None:
    fits = Environment((f"A={'x' * (PARAMETER_BYTES_MAX - 2)}",))
    fits.check("/darkroom/environment")
    for line in (f"{fits.lines[0]}x", f"A={'ü' * (PARAMETER_BYTES_MAX // 2)}"):
        with pytest.raises(DeployError, match=r"/darkroom/environment would have 409\d bytes"):
            Environment((line,)).check("/darkroom/environment")


def test_a_key_is_in_a_form_that_the_api_reads() -> None:
    """As `API_KEYS` in docs/reference/settings.md: owner to key, of 16 characters or more."""
    keys = json.loads(Environment().for_options(OPTIONS).value("API_KEYS"))
    assert list(keys) == ["admin"]
    assert not set(keys["admin"]) & set("$#'\" \\"), "compose takes it as it stands"
