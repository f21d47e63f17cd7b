import importlib

from darkroom import ApiError
from darkroom.errors import BY_CODE, api_error

from jobs.errors import DarkroomError

importlib.import_module("api.errors")


def classes_below(base: type[DarkroomError]) -> set[type[DarkroomError]]:
    return {base}.union(*(classes_below(below) for below in base.__subclasses__()))


def test_each_code_of_the_server_has_a_class() -> None:
    codes = {it.code for it in classes_below(DarkroomError) if hasattr(it, "code")}
    assert set(BY_CODE) == codes


def test_an_error_has_what_the_server_said() -> None:
    problem = {"code": "queue_full", "detail": "Full.", "title": "The queue is full"}
    error = api_error(503, problem, "r-1", "7")
    assert isinstance(error, BY_CODE["queue_full"])
    assert (error.status, error.code, error.detail, error.request_id) == (503, "queue_full", "Full.", "r-1")
    assert (error.retryable, error.retry_after_seconds, str(error)) == (True, 7.0, "queue_full: Full.")


def test_a_code_that_is_not_known_yet_is_an_error_all_the_same() -> None:
    error = api_error(418, {"code": "teapot", "title": "A teapot"}, None, "Mon, 30 Nov 2026 00:00:00 GMT")
    assert type(error) is ApiError
    assert (error.code, error.detail, error.retryable, error.retry_after_seconds) == ("teapot", "A teapot", False, None)
