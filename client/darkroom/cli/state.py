"""Where the command finds its settings, and what it remembers between two runs."""

import os
import sys
import tomllib
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import click

from darkroom._http import base_url
from darkroom._sync.client import Darkroom
from darkroom.cli.exits import KEY

_CONFIG_KEYS = {"url", "api_key", "api_key_file"}


class State:
    """Flags, then the environment, then `config.toml`."""

    def __init__(self) -> None:
        self.flags = dict[str, object]()
        self._client: Darkroom | None = None

    @property
    def quiet(self) -> bool:
        return bool(self.flags.get("quiet"))

    @property
    def json(self) -> bool:
        return bool(self.flags.get("json"))

    def client(self, *, retry_seconds: float = 10.0) -> Darkroom:
        """Raises UsageError if the address cannot be one, and exits with 4 if the key cannot."""
        config = _config()
        url = str(self.flags.get("url") or os.environ.get("DARKROOM_URL") or config.get("url") or "")
        try:
            self.url = base_url(url)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        try:
            return Darkroom(self.url, self._key(config), retry_seconds=retry_seconds)
        except ValueError as error:
            click.echo(f"darkroom: {error}", err=True)
            sys.exit(KEY)

    def _key(self, config: Mapping[str, str]) -> str | None:
        file = self.flags.get("api_key_file")
        if file is None and (key := os.environ.get("DARKROOM_API_KEY") or config.get("api_key")):
            return key
        file = file or config.get("api_key_file")
        return None if file is None else Path(str(file)).expanduser().read_text().strip()

    def journal(self, *call: object) -> Path:
        """The journal of a command with these arguments, in this folder, at this server."""
        return _folder() / f"{_digest(self.url, os.getcwd(), *call)}.journal"  # noqa: PTH109 - a text

    def remember(self, job_id: str) -> None:
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{_digest(self.url)}.last").write_text(job_id)

    def job_id(self, text: str) -> str:
        """Of `last`, the id of the last job that this command made at this server."""
        if text != "last":
            return text
        try:
            return (_folder() / f"{_digest(self.url)}.last").read_text()
        except FileNotFoundError:
            raise click.UsageError(f"This command has made no job at {self.url}.") from None


def _digest(*values: object) -> str:
    return blake2b(repr(values).encode(errors="surrogateescape"), digest_size=12).hexdigest()


def _folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "darkroom"


def _config() -> dict[str, str]:
    path = Path(click.get_app_dir("darkroom")) / "config.toml"
    try:
        found = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path}: {error}") from None
    if unknown := found.keys() - _CONFIG_KEYS:
        raise click.UsageError(
            f"{path}: unknown: {', '.join(sorted(unknown))}; known: {', '.join(sorted(_CONFIG_KEYS))}"
        )
    return found
