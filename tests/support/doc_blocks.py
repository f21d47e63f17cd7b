"""The code blocks of a page in docs/, and whether the output that the page shows is the one that was seen.

The first word behind a fence is the language. A title in the same line is the name of a file that the reader saves, or
one of `MARKERS`: what the block needs and a test has not.
"""

import json
import re
from typing import Any, NamedTuple

PROGRAMS = ("sh", "python", "javascript")
OUTPUTS = ("text", "json", "csv", "http")
MARKERS = {
    "needs an AWS account": "tests/e2e/test_ec2.py runs these commands against moto and a real registry",
    "needs Docker": "tests/e2e/test_compose.py and test_compose_hosts.py run it, and take minutes for the images",
    "needs an earlier release": "tests/e2e/test_rolling_upgrade.py reads these commands and runs them",
    "needs another host": "tests/e2e/test_compose_hosts.py has a second compose project in its place",
    "needs the AWS command line": "nothing runs it: no server here makes snapshots, as docs/BACKUP.md says",
    "needs a cluster": "tests/unit/deploy/test_kubernetes.py checks what kubectl makes of deploy/kubernetes",
    "needs PyPI": "tests/integration/pretrained/test_imagenet.py runs it",
    "takes minutes": "tests/e2e/test_chaos.py runs the suite's brief form",
    "needs the npm registry": "tests/integration/client/test_generated.py makes and compiles such a client",
    "needs a clone": "tests/e2e/test_ec2.py runs the dry run in one, as its tag is the commit",
}
"""Each with the reason why a test of the pages does not run such a block."""
_INFO = re.compile(r'(?P<language>\w*)(?: title="(?P<title>[^"]+)")?')
_FILE = re.compile(r"[\w-]+\.\w+")
_MORE = "…"
_CONFIDENCE_DIFFERENCE = 0.01  # between processors


class Block(NamedTuple):
    language: str
    title: str
    source: str

    @property
    def kind(self) -> str:
        """Raises if nothing says what becomes of the block."""
        if self.title in MARKERS:
            return "marked"
        if self.title:
            assert _FILE.fullmatch(self.title), f"{self.title} is neither a file nor one of {list(MARKERS)}"
            return "file"
        if self.language in PROGRAMS:
            return "program"
        assert self.language in OUTPUTS, f"a block of {self.language or 'no language'} has no runner and no marker"
        return "output"


def block_of(info: str, source: str) -> Block:
    found = _INFO.fullmatch(info.strip())
    assert found, f"cannot read {info}"
    return Block(found["language"], found["title"] or "", source)


def compare(block: Block, seen: str) -> None:
    """Raises if the page shows another output. … stands for anything."""
    if block.language == "json":
        _compare_json(json.loads(block.source), json.loads(seen), "")
    else:
        pattern = ".*".join(re.escape(part) for part in _plain(block.source).split(_MORE))
        assert re.fullmatch(pattern, _plain(seen), re.DOTALL), (
            f"the page shows\n{block.source}\nand the output is\n{seen}"
        )


def _plain(text: str) -> str:
    """With one space where there are more: a page's columns may be narrower."""
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


def _compare_json(shown: Any, seen: Any, at: str) -> None:
    if isinstance(shown, dict) and isinstance(seen, dict):
        left_out = _MORE in shown
        assert left_out or shown.keys() == seen.keys(), f"{at}: {shown.keys() ^ seen.keys()}"
        for name in shown.keys() - {_MORE}:
            assert name in seen, f"{at}: no {name} in {seen}"
            _compare_json(shown[name], seen[name], f"{at}.{name}")
    elif isinstance(shown, list) and isinstance(seen, list):
        compared = shown[:-1] if shown[-1:] == [_MORE] else shown
        assert len(compared) == len(seen) or (compared is not shown and len(compared) <= len(seen)), f"{at}: {seen}"
        for number, (one, other) in enumerate(zip(compared, seen, strict=False)):
            _compare_json(one, other, f"{at}[{number}]")
    elif isinstance(shown, str) and _MORE in shown:
        pattern = ".*".join(map(re.escape, shown.split(_MORE)))
        assert re.fullmatch(pattern, str(seen), re.DOTALL), f"{at}: {seen}"
    elif isinstance(shown, float) and isinstance(seen, float):
        assert abs(shown - seen) <= _CONFIDENCE_DIFFERENCE, f"{at}: {seen}"
    else:
        assert shown == seen, f"{at}: {seen}"
