import pytest

from jobs.settings import StoreSettings
from jobs.store.server_check import check_server
from tests.support.processes import Valkey


@pytest.mark.parametrize(("limit", "lines"), [(64, 1), (65_536, 0)])
def test_a_server_that_stores_jobs_as_hash_tables_is_named_in_one_line(
    valkey: Valkey, store_settings: StoreSettings, caplog: pytest.LogCaptureFixture, limit: int, lines: int
) -> None:
    with valkey.client as client:
        client.config_set("hash-max-listpack-value", limit)
        check_server(store_settings)
        client.config_set("hash-max-listpack-value", 65_536)
    assert [record.getMessage().split(" is below")[0] for record in caplog.records] == [
        "REDIS_URL: hash-max-listpack-value"
    ] * lines


def test_a_server_that_hides_its_configuration_is_accepted(
    valkey: Valkey, store_settings: StoreSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with valkey.client as client:
        client.execute_command("ACL", "SETUSER", "default", "-config")
        try:
            check_server(store_settings)
        finally:
            client.execute_command("ACL", "SETUSER", "default", "+config")
    assert caplog.records == []
