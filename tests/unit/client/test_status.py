"""`darkroom status` against a server whose state is known."""

from pathlib import Path

from tests.support.web import serving_site
from tests.unit.client.answers import SERVER, answer, run_command


async def test_the_state_of_a_server_is_a_few_lines(tmp_path: Path) -> None:
    async with serving_site() as site:
        site.at("/v1/server", answer(SERVER))
        code, shown, _ = await run_command(site, tmp_path, "status")
    assert code == 0
    assert shown.splitlines()[0].endswith(": version 0.2.0, model fmnist-cnn")
    assert shown.splitlines()[1:] == [
        "workers 2, 950.5 images/s",
        "interactive: 0 images wait",
        "bulk: 1200 images wait, the oldest for 7 s",
        "uploads: 25 % of 0 MB in use",
        "records: 0 % of 0 MB in use",
    ]
