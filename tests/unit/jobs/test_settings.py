import pytest

from api.settings import ApiSettings
from jobs.errors import SettingsError
from jobs.setting_names.removed import REMOVED_SETTINGS
from jobs.settings import SHIPPED_MODEL, BucketSettings, StoreSettings, is_advanced, load
from jobs.store.redis_url import address_of
from worker.outbound.settings import OutboundSettings
from worker.settings import WorkerSettings

SERVICES = (ApiSettings, WorkerSettings, OutboundSettings)


def refusal(settings: type[StoreSettings], monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        load(settings)
    line = str(raised.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("settings", SERVICES)
def test_the_defaults_are_consistent(settings: type[StoreSettings]) -> None:
    load(settings)


def test_no_setting_that_was_removed_is_still_read() -> None:
    names = {name.upper() for settings in SERVICES for name in settings.model_fields}
    assert not names & REMOVED_SETTINGS.keys()


def test_the_common_settings_are_few() -> None:
    common = {name for settings in SERVICES for name, field in settings.model_fields.items() if not is_advanced(field)}
    assert 25 <= len(common) <= 40, sorted(common)


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"RENEW_SECONDS": "2"}, "renew_seconds × 3 < lease_seconds < task_time_limit_seconds"),
        ({"LEASE_SECONDS": "61"}, "renew_seconds × 3 < lease_seconds < task_time_limit_seconds"),
        ({"TASK_TIME_LIMIT_SECONDS": "3"}, "renew_seconds × 3 < lease_seconds < task_time_limit_seconds"),
        ({"SLICE_SECONDS": "60"}, "slice_seconds"),
        ({"LINGER_SECONDS": "0.5", "STORE_TIMEOUT_SECONDS": "0.5"}, "linger_seconds"),
        ({"BATCH_ITEMS": "0"}, "BATCH_ITEMS: "),
        ({"MODEL": "../etc"}, "MODEL: "),
        ({"MODEL": "a", "MODELS": "b"}, "model is a, which is not among models"),
    ],
)
def test_inconsistent_worker_settings_are_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], line: str
) -> None:
    assert line in refusal(WorkerSettings, monkeypatch, **environment)


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"UPLOADS_BUDGET_FRACTION": "0.7"}, "must not exceed 0.9 of redis_maxmemory_bytes"),
        ({"UPLOADS_URL": "file://data"}, "UPLOADS_URL: must be redis:, file:///path with three slashes"),
        ({"UPLOADS_URL": "file:///"}, "UPLOADS_URL: must be redis:, file:///path with three slashes"),
        ({"UPLOADS_URL": "/data"}, "UPLOADS_URL: must be redis:, file:///path with three slashes"),
        ({"UPLOADS_URL": "ftp://host/x"}, "UPLOADS_URL: must be redis:, file:///path with three slashes"),
        ({"UPLOADS_URL": "s3://"}, "or s3://bucket/prefix"),
        ({"UPLOADS_URL": "s3://UPPER/a"}, "or s3://bucket/prefix"),
        ({"UPLOADS_URL": "s3://uploads//a"}, "or s3://bucket/prefix"),
        ({"UPLOADS_URL": "s3://uploads/a", "S3_ANONYMOUS": "1"}, "s3_anonymous must not be set if uploads_url is"),
        ({"UPLOADS_URL": "s3://uploads/a", "S3_BUCKETS": '["uploads"]'}, "s3_buckets must not name the bucket of"),
        ({"UPLOADS_URL": "file:///data", "UPLOADS_SPOOL_BYTES_MAX": "9000000"}, "item_bytes_max must fit into"),
        ({"MIN_RESULT_TTL_SECONDS": "90000"}, "min_result_ttl_seconds must not exceed result_ttl_seconds"),
        ({"REDIS_URL": "http://nowhere"}, "REDIS_URL: "),
        ({"ITEM_BYTES_MAX": "100000000000"}, "item_bytes_max must not exceed upload_bytes_max"),
        ({"REDIS_MAXMEMORY_BYTES": "1000000"}, "item_bytes_max × api_processes must fit into"),
        ({"UPLOAD_SECONDS_MAX": "360"}, "must be less than upload_ttl_seconds"),
        ({"PREDICT_WAIT_SECONDS": "31"}, "predict_wait_seconds must not exceed wait_seconds_max"),
        ({"API_KEYS": '{"al ice": "0123456789abcdef"}'}, "owner 'al ice'"),
        ({"API_KEYS": '{"alice": "short"}'}, "at least 16 characters"),
        ({"API_KEYS": '{"alice": "ключ-ключ-ключ-ключ"}'}, "printable ASCII characters"),
        ({"API_KEYS": '{"alice": "a-long-random-key\\n"}'}, "printable ASCII characters"),
        ({"API_KEYS": '{"alice": " a-long-random-key"}'}, "without spaces around it"),
        ({"API_KEYS": "alice:0123456789abcdef"}, "API_KEYS: must be valid JSON"),
        ({"API_KEYS": '{"a": "0123456789abcdef", "b": "0123456789abcdef"}'}, "two owners share a key"),
        ({"PORT": "70000"}, "PORT: "),
    ],
)
def test_inconsistent_api_settings_are_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], line: str
) -> None:
    assert line in refusal(ApiSettings, monkeypatch, **environment)


@pytest.mark.parametrize("api_keys", ['{"alice": "tooshort-secret"}', "alice:tooshort-secret"])
def test_a_key_is_not_shown_if_settings_are_refused(monkeypatch: pytest.MonkeyPatch, api_keys: str) -> None:
    assert "tooshort-secret" not in refusal(ApiSettings, monkeypatch, API_KEYS=api_keys)


@pytest.mark.parametrize(
    ("url", "username"),
    [
        ("redis://redis:6379/3", "default"),
        ("rediss://worker@redis:6379/3", "worker"),
        ("redis://worker:@redis:6379/3", "worker"),
        ("unix:///run/redis.sock?db=3", "default"),
    ],
)
def test_a_password_of_any_characters_becomes_part_of_the_url(url: str, username: str) -> None:
    password = "p@ss/w#rd:1 %20\"x'y$z+=?ü"
    address = address_of(StoreSettings(redis_url=url, redis_password=password).redis_url)
    assert (address.username, address.password, address.database) == (username, password, 3)
    if address.unix_socket is None:
        assert (address.host, address.port) == ("redis", 6379)
    else:
        assert address.unix_socket == "/run/redis.sock"


def test_a_password_in_the_url_comes_first_and_neither_is_shown() -> None:
    settings = StoreSettings(redis_url="redis://:its-own@redis:6379/0", redis_password="another")
    assert address_of(settings.redis_url).password == "its-own"
    assert "its-own" not in repr(settings)
    assert "another" not in repr(settings)
    assert StoreSettings(redis_url="redis://redis:6379/0", redis_password="").redis_url == "redis://redis:6379/0"


@pytest.mark.parametrize(
    ("environment", "model"),
    [
        ({}, SHIPPED_MODEL),
        ({"MODEL": "mine@2"}, "mine@2"),
        ({"MODELS": "first, second"}, "first"),
        ({"MODELS": "first,second", "MODEL": "second"}, "second"),
        ({"MODELS": ""}, SHIPPED_MODEL),
        ({"MODELS": "", "MODEL": "mine"}, "mine"),
        ({"MODELS": "first,second", "DEFAULT_MODEL": "second"}, "second"),
    ],
)
def test_the_default_model_is_the_first_that_the_worker_serves(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], model: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert load(ApiSettings).default_model == model
    assert model in load(WorkerSettings).served


def test_no_reference_may_name_the_bucket_of_uploads() -> None:
    settings = BucketSettings(uploads_url="s3://uploads/a", s3_buckets=["*"])
    assert not settings.bucket_allowed("uploads")
    assert settings.bucket_allowed("photos")


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("rediss://a.example:6380/0?ssl_ca_certs=/ca", "rediss://worker:p%2Fw@a.example:6380/0?ssl_ca_certs=/ca"),
        ("redis://api@a.example/0", "redis://api:p%2Fw@a.example/0"),
        ("redis://api:its-own@a.example/0", "redis://api:its-own@a.example/0"),
        ("unix:///run/redis.sock?db=0", "unix://worker:p%2Fw@/run/redis.sock?db=0"),
    ],
)
def test_a_user_is_added_to_a_url_without_one(url: str, used: str) -> None:
    assert StoreSettings(redis_url=url, redis_username="worker", redis_password="p/w").redis_url == used
