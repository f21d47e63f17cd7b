"""Who waits in an API of this process."""

from typing import Any

import pytest

from api.results.completion import JobCompletions


class ObservedCompletions:
    """Those of every API that is started after this was made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = self._made = list[JobCompletions]()
        self.rereads = 0
        seen = self

        class Seen(JobCompletions):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                made.append(self)

            async def _reread(self) -> None:
                await super()._reread()
                seen.rereads += 1

        monkeypatch.setattr("api.services.JobCompletions", Seen)

    def count(self) -> int:
        return sum(len(futures) for waiters in self._made for futures in waiters._waiting.values())


def raw_id(path: str) -> bytes:
    """The id in a job's path, as the store has it."""
    return bytes.fromhex(path.rpartition("/")[2].replace("-", ""))
