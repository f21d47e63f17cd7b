"""Writes docs/PICTURES.md from the pictures of the tests: `python -m docs.pictures_page`."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from jobs.records import Failure, Outcome
from tests.support.odd_pictures import odd_pictures
from tests.support.pictures import LIMITS, bad_pictures, good_pictures, samples
from worker.inference.classifier import Classifier
from worker.inference.packages.load import load_package

PAGE = Path(__file__).parent / "PICTURES.md"
MODEL = Path(__file__).parents[1] / "weights/fmnist-cnn"
HEAD = """# Pictures by format and oddity

What becomes of a picture, by the format of its file and by what stands beside the pixels. The files are made by
`tests/support/pictures.py` and `tests/support/odd_pictures.py`, and classified by `fmnist-cnn` as this page is written
(`python -m docs.pictures_page`); `tests/unit/worker/inference/images/` has the tests.
"""
EXIF = "EXIF, "


def page() -> str:
    classifier = load_package(MODEL, LIMITS)
    return HEAD + _whole(classifier) + _odd(classifier) + _bad(classifier)


def _whole(classifier: Classifier) -> str:
    """A shirt in each format and kind of pixels."""
    pictures = good_pictures(samples()["0007-shirt.png"])
    rows = [[name, found] for name, found in zip(pictures, _outcomes(classifier, pictures.values()), strict=True)]
    return "\n## A shirt in each format\n\nOne bit a pixel leaves too little of it.\n" + _table(
        ["file", "result"], rows
    )


def _odd(classifier: Classifier) -> str:
    """A trouser beside odd metadata: a row for each format."""
    pictures = odd_pictures(samples()["0002-trouser.png"])
    names, results = defaultdict[str, list[str]](list), defaultdict[str, Counter[str]](Counter)
    outcomes = _outcomes(classifier, [odd for odd, _ in pictures.values()])
    for name, outcome in zip(pictures, outcomes, strict=True):
        kind, _, oddity = name.partition(": ")
        names[kind].append(oddity)
        results[kind][outcome] += 1
    kinds_of_exif = [name.removeprefix(EXIF) for name in names["jpeg"] if name.startswith(EXIF)]
    rows = [
        [kind.upper(), ", ".join(f"{count} × {outcome}" for outcome, count in results[kind].items()), _list(found)]
        for kind, found in names.items()
    ]
    return (
        f"\n## A trouser in {len(pictures)} odd files\n"
        + _table(["format", "result", "beside the pixels"], rows)
        + f"\nThe {len(kinds_of_exif)} kinds of EXIF data: {'; '.join(kinds_of_exif)}.\n"
    )


def _list(oddities: list[str]) -> str:
    """With all kinds of EXIF data, which many formats can have, as one."""
    kinds_of_exif = sum(name.startswith(EXIF) for name in oddities)
    others = [name for name in oddities if not name.startswith(EXIF)]
    return "; ".join(([f"{kinds_of_exif} kinds of EXIF data"] if kinds_of_exif else []) + others)


def _bad(classifier: Classifier) -> str:
    pictures = bad_pictures(samples()["0007-shirt.png"])
    outcomes = _outcomes(classifier, [upload for upload, _ in pictures.values()])
    rows = [[name, found] for name, found in zip(pictures, outcomes, strict=True)]
    return "\n## What is not classified\n" + _table(["file", "error"], rows)


def _outcomes(classifier: Classifier, uploads: Iterable[bytes]) -> list[str]:
    images = list(uploads)
    return [_text(classifier, outcome) for outcome in classifier.classify(images, [1] * len(images))]


def _text(classifier: Classifier, outcome: Outcome) -> str:
    if isinstance(outcome, Failure):
        return f"`{outcome.code}`: {outcome.detail}"
    return classifier.card.classes[outcome[0].class_index]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
