"""The command `darkroom`."""

import argparse
import sys

from darkroom.client import Darkroom, DarkroomError, Item


def main() -> None:
    parser = argparse.ArgumentParser(prog="darkroom", description="Classify images on a Darkroom server.")
    parser.add_argument("--url", help="the server; default: DARKROOM_URL, or http://127.0.0.1:8000")
    parser.add_argument("--api-key", help="default: DARKROOM_API_KEY")
    commands = parser.add_subparsers(dest="command", required=True)
    classify = commands.add_parser("classify", help="submit files, wait, and show a table of their classes")
    classify.add_argument("files", nargs="+")
    classify.add_argument("--model")
    arguments = parser.parse_args()
    try:
        with Darkroom(arguments.url, arguments.api_key) as darkroom:
            items = darkroom.classify(*arguments.files, model=arguments.model)
    except (DarkroomError, OSError, TimeoutError) as error:
        sys.exit(f"darkroom: {error}")
    _print_table(arguments.files, items)
    if any(item.error for item in items):
        sys.exit(1)


def _print_table(files: list[str], items: list[Item]) -> None:
    rows = [("file", "class", "confidence")]
    for file, item in zip(files, items, strict=True):
        confidence = "" if item.confidence is None else f"{item.confidence:.4f}"
        rows.append((file, item.class_name or f"({item.error or item.status})", confidence))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for file, class_name, confidence in rows:
        print(f"{file:<{widths[0]}}  {class_name:<{widths[1]}}  {confidence:>{widths[2]}}")
