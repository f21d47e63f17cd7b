"""The OpenAPI document: what generators of clients and their users need of it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from api import errors as api_errors
from api import schemas
from api.app import create_app
from api.server_schema import ServerResource
from api.settings import ApiSettings
from jobs.errors import DarkroomError, InvalidRequest
from jobs.item_codes import ItemCode

DOCUMENT: dict[str, Any] = create_app(ApiSettings()).openapi()
OPERATIONS = [operation for path in DOCUMENT["paths"].values() for operation in path.values()]
SPECIFIC = {InvalidRequest, api_errors.UnsupportedMediaType}  # which are never raised without a text of their own


def kinds(kind: type[DarkroomError] = DarkroomError) -> Iterator[type[DarkroomError]]:
    if hasattr(kind, "code"):
        yield kind
    for narrower in kind.__subclasses__():
        yield from kinds(narrower)


def test_operation_ids_are_short_and_unique() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS]
    assert len(set(ids)) == len(ids)
    assert {"submit_job", "get_job", "list_jobs", "add_items", "seal_job", "cancel_job", "retry_job"} <= set(ids)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)?", it) for it in ids), ids


def test_every_code_is_described_with_an_example() -> None:
    described = str(OPERATIONS) + DOCUMENT["info"]["description"]
    for kind in kinds():
        assert f"`{kind.code}`" in described, kind
        example = DOCUMENT["components"]["examples"][kind.code]["value"]
        assert (example["status"], example["title"]) == (kind.status, kind.title)


def test_every_code_of_an_item_is_named() -> None:
    properties = DOCUMENT["components"]["schemas"]["ItemProblem"]["properties"]
    assert properties["code"] == {"$ref": "#/components/schemas/ItemCode"}
    assert DOCUMENT["components"]["schemas"]["ItemCode"]["enum"] == list(ItemCode)


def test_an_example_stands_at_its_own_status() -> None:
    for operation in OPERATIONS:
        for status, response in operation["responses"].items():
            for content in response.get("content", {}).values():
                for code in content.get("examples", ()):
                    assert DOCUMENT["components"]["examples"][code]["value"]["status"] == int(status)


@pytest.mark.parametrize("kind", sorted(set(kinds()), key=lambda kind: kind.__name__))
def test_the_detail_of_an_error_says_what_to_do(kind: type[DarkroomError]) -> None:
    assert kind in SPECIFIC or re.fullmatch(r"[A-Z].+\.", kind.advice), kind


def test_every_response_with_a_body_has_an_example() -> None:
    for operation in OPERATIONS:
        for response in operation["responses"].values():
            for content in response.get("content", {}).values():
                name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
                schema = DOCUMENT["components"]["schemas"].get(name, {})
                assert {"example", "examples"} & (content.keys() | schema.keys()), operation["operationId"]


@pytest.mark.parametrize(
    "model", [schemas.JobResource, schemas.JobPage, schemas.ItemPage, schemas.ModelList, ServerResource]
)
def test_the_examples_are_valid(model: type[schemas.StrictModel]) -> None:
    model.model_validate(DOCUMENT["components"]["schemas"][model.__name__]["example"])
