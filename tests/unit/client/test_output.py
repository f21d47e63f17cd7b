"""What the command writes is what the API writes."""

import csv
import json
from pathlib import Path

import pytest
from click import UsageError
from darkroom.cli.output import Output
from darkroom.records import Item

from api.results.line_formats import Csv
from jobs.item_codes import ItemCode
from jobs.records import Failure
from tests.support.spreadsheets import DISARMED, HARMLESS

NAMES = [*DISARMED, *HARMLESS]
CLASSES = ["Bag", "=HYPERLINK(1)"]


def item(index: int, name: str) -> Item:
    if index == 1:
        error = {"code": "not_an_image", "detail": FAILURE.detail}
        return Item.of({"index": index, "name": name, "status": "failed", "error": error})
    found = {"class": CLASSES[index % 2], "confidence": 0.75, "model": "m@1", "top_k": []}
    return Item.of({"index": index, "name": name, "status": "succeeded", **found, "a new field": 1})


FAILURE = Failure(ItemCode.NOT_AN_IMAGE)


def test_csv_is_that_of_the_api(tmp_path: Path) -> None:
    with Output(tmp_path / "rows.csv", None) as output:
        for index, name in enumerate(NAMES):
            output.write(item(index, name))
    written = (tmp_path / "rows.csv").read_bytes()
    results = [FAILURE if index == 1 else (index % 2, 0.75) for index in range(len(NAMES))]
    api = Csv()
    assert written == api.head + api.results(0, NAMES, results, "m@1", api.encode_class_names(CLASSES))
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [*DISARMED.values(), *HARMLESS]


def test_json_has_what_the_client_does_not_know(tmp_path: Path) -> None:
    with Output(tmp_path / "rows.json", None) as output:
        output.write(item(0, "a"))
    assert json.loads((tmp_path / "rows.json").read_text())[0]["a new field"] == 1


def test_a_disk_that_is_full_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "rows.csv.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"), Output(tmp_path / "rows.csv", None) as output:
        output.write(item(0, "a"))
    assert list(tmp_path.iterdir()) == []


def test_a_name_without_a_known_ending_is_refused() -> None:
    with pytest.raises(UsageError, match="must end with"):
        Output(Path("rows.xls"), None)
