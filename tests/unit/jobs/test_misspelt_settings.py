import pytest
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from jobs.errors import SettingsError
from jobs.misspelt_settings import refuse_misspelt_settings
from jobs.removed_settings import REMOVED_SETTINGS
from worker.outbound.settings import OutboundSettings
from worker.settings import WorkerSettings

SERVICES = (ApiSettings, OutboundSettings, WorkerSettings)
COMPOSE = [
    f"{service}_{limit}"
    for service in ("REDIS", "API", "WORKER", "OUTBOUND", "EDGE")
    for limit in ("CPUS", "MEMORY_LIMIT")
]
OTHERS = "DATA_DIR DARKROOM_URL DARKROOM_API_KEY EDGE_BIND EDGE_HTTP_PORT EDGE_HTTPS_PORT REGISTRY TAG MODEL SECONDS"
FOREIGN = """PATH HOME HOSTNAME HOSTNAMES USER LOGNAME SHELL PWD OLDPWD LANG LC_ALL TERM TZ TMPDIR EDITOR PORTS DISPLAY
    AWS_REGION AWS_DEFAULT_REGION AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN KUBERNETES_SERVICE_HOST
    KUBERNETES_PORT API_PORT API_SERVICE_HOST REDIS_PORT REDIS_SERVICE_PORT REDIS_HOST WORKER_PORT MAKEFLAGS MAKELEVEL
    PYTHONPATH PYTHONUNBUFFERED VIRTUAL_ENV OMP_NUM_THREADS CUDA_VISIBLE_DEVICES NVIDIA_VISIBLE_DEVICES SSL_CERT_FILE
    HTTP_PROXY HTTPS_PROXY NO_PROXY MALLOC_TRIM_THRESHOLD_ INVOCATION_ID JOURNAL_STREAM GITHUB_TOKEN CI"""


@pytest.mark.parametrize(
    ("settings", "name", "meant"),
    [
        (ApiSettings, "API_KEY", "API_KEYS"),
        (ApiSettings, "api_key", "API_KEYS"),
        (ApiSettings, "APIKEYS", "API_KEYS"),
        (ApiSettings, "API_KYES", "API_KEYS"),
        (ApiSettings, "OPEN_TO_EVERYBODDY", "OPEN_TO_EVERYBODY"),
        (ApiSettings, "REDIS_URI", "REDIS_URL"),
        (ApiSettings, "ITEM_BYTE_MAX", "ITEM_BYTES_MAX"),
        (WorkerSettings, "WORKER_CHILDS", "WORKER_CHILDREN"),
        (WorkerSettings, "ITEM_PIXEL_MAX", "ITEM_PIXELS_MAX"),
        (OutboundSettings, "S3_SECRET_ACCES_KEY", "S3_SECRET_ACCESS_KEY"),
    ],
)
def test_a_misspelt_setting_is_refused_with_its_name(settings: type[BaseSettings], name: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is not a setting; {meant} is: "):
        refuse_misspelt_settings(settings, ["PATH", name])
    refuse_misspelt_settings(settings, ["PATH", name, meant])


@pytest.mark.parametrize("settings", SERVICES)
def test_no_setting_of_another_service_and_no_foreign_variable_is_refused(settings: type[BaseSettings]) -> None:
    of_all = {name.upper() for service in SERVICES for name in service.model_fields}
    refuse_misspelt_settings(settings, [*REMOVED_SETTINGS, *COMPOSE, *OTHERS.split(), *FOREIGN.split()])
    for name in of_all:
        refuse_misspelt_settings(settings, [name])
