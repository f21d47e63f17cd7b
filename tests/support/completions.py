"""Observes the waiters of APIs that run in the test process."""

from typing import Any

import pytest

from api.results.completion import JobCompletions


class ObservedCompletions:
    """The waiters of every API that is started after this object was created."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        created = self._created = list[JobCompletions]()
        self.rereads = 0
        observed = self

        class ObservedJobCompletions(JobCompletions):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                created.append(self)

            async def reread(self) -> None:
                await super().reread()
                observed.rereads += 1

        monkeypatch.setattr("api.services.JobCompletions", ObservedJobCompletions)

    @property
    def waiting(self) -> int:
        return sum(completions.waiting for completions in self._created)


def raw_id(path: str) -> bytes:
    """The id in a job's path, as bytes."""
    return bytes.fromhex(path.rpartition("/")[2].replace("-", ""))
