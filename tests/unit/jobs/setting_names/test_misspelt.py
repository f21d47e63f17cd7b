import pytest

from api.settings import ApiSettings
from jobs.errors import SettingsError
from jobs.setting_names.misspelt import SETTING_NAMES, refuse_misspelt_settings
from jobs.setting_names.removed import REMOVED_SETTINGS
from worker.outbound.settings import OutboundSettings
from worker.settings import WorkerSettings

COMPOSE = [
    f"{service}_{limit}"
    for service in ("REDIS", "API", "WORKER", "OUTBOUND", "EDGE")
    for limit in ("CPUS", "MEMORY_LIMIT", "PIDS_LIMIT")
]
OTHERS = """REDIS_WORKER_PASSWORD COMPOSE_FILE COMPOSE_PROFILES DATA_DIR DARKROOM_URL DARKROOM_API_KEY EDGE_BIND
    EDGE_HTTP_PORT EDGE_HTTPS_PORT REGISTRY TAG MODEL SECONDS"""
FOREIGN = """PATH HOME HOSTNAME HOSTNAMES USER LOGNAME SHELL PWD OLDPWD LANG LC_ALL TERM TZ TMPDIR EDITOR PORTS DISPLAY
    AWS_REGION AWS_DEFAULT_REGION AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN KUBERNETES_SERVICE_HOST
    KUBERNETES_PORT API_PORT API_SERVICE_HOST REDIS_PORT REDIS_SERVICE_PORT REDIS_HOST WORKER_PORT MAKEFLAGS MAKELEVEL
    PYTHONPATH PYTHONUNBUFFERED VIRTUAL_ENV OMP_NUM_THREADS CUDA_VISIBLE_DEVICES NVIDIA_VISIBLE_DEVICES SSL_CERT_FILE
    HTTP_PROXY HTTPS_PROXY NO_PROXY MALLOC_TRIM_THRESHOLD_ INVOCATION_ID JOURNAL_STREAM GITHUB_TOKEN CI"""


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("API_KEY", "API_KEYS"),
        ("api_key", "API_KEYS"),
        ("APIKEYS", "API_KEYS"),
        ("API_KYES", "API_KEYS"),
        ("OPEN_TO_EVERYBODDY", "OPEN_TO_EVERYBODY"),
        ("REDIS_URI", "REDIS_URL"),
        ("ITEM_BYTE_MAX", "ITEM_BYTES_MAX"),
        ("WORKER_CHILDS", "WORKER_CHILDREN"),
        ("ITEM_PIXEL_MAX", "ITEM_PIXELS_MAX"),
        ("S3_SECRET_ACCES_KEY", "S3_SECRET_ACCESS_KEY"),
    ],
)
def test_a_misspelt_setting_is_refused_with_its_name(name: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is not a setting; {meant} is: "):
        refuse_misspelt_settings(["PATH", name])
    refuse_misspelt_settings(["PATH", name, meant])


def test_no_foreign_variable_is_refused() -> None:
    refuse_misspelt_settings([*REMOVED_SETTINGS, *COMPOSE, *OTHERS.split(), *FOREIGN.split()])


def test_the_settings_of_all_services_are_known() -> None:
    services = (ApiSettings, OutboundSettings, WorkerSettings)
    assert {name.upper() for service in services for name in service.model_fields} == SETTING_NAMES
    for name in SETTING_NAMES:
        refuse_misspelt_settings([name])
