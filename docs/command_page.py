"""Writes docs/reference/command.md from the help of the command `darkroom`: `python -m docs.command_page`."""

from pathlib import Path

import click
from darkroom.cli.commands import cli

PAGE = Path(__file__).parent / "reference/command.md"
WIDTH = 78  # click's own, of a terminal of 80 characters and more
HEAD = """# The command `darkroom`

`make run` installs it as `.venv/bin/darkroom`; elsewhere `pip install` the folder `client/`. This page is written from
the command's own help (`python -m docs.command_page`). [A folder](../how-to/folder.md) shows it at work.

- **ID** may be `last`: the job of the command before.
- **The server** is `--url`, `DARKROOM_URL`, or `url` in `~/.config/darkroom/config.toml`.
- **The key** is in the file that `--api-key-file` names, in `DARKROOM_API_KEY`, or `api_key` in that `config.toml`.
- **Interrupted** (Ctrl-C, a crash, a server that stays away), the same `classify` or `submit` goes on where it was;
  `--new` begins anew. A changed folder begins anew by itself.
- A folder is the pictures below it. What cannot be read is a row that failed as `unreadable`.

| exit status | meaning |
|---|---|
| 0 | all succeeded |
| 1 | some images failed |
| 2 | usage, or this machine's files |
| 3 | the server refused |
| 4 | the key is missing, wrong, or may only read |
| 5 | no server |
| 130 | Ctrl-C |

`doctor` exits by the last check that failed.
"""


def page() -> str:
    commands = [_section("darkroom", cli)]
    commands += [_section(f"darkroom {name}", command) for name, command in cli.commands.items()]
    return HEAD + "".join(commands)


def _section(name: str, command: click.Command) -> str:
    with click.Context(command, info_name=name, terminal_width=WIDTH, **cli.context_settings) as context:
        text = command.get_help(context)
    heading = "All commands" if command is cli else command.name
    return f"\n## {heading}\n\n```sh\n.venv/bin/{name} --help\n```\n\n```text\n{text}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page())
