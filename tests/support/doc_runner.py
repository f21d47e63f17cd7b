"""Runs the blocks of a page in docs/ as its reader would, in a folder that looks like the repository's root.

`make run` starts a stack of the test's own processes with the same settings; port 8000 of the page, or 5000 of compose,
is that stack's. Commands of the shell run block after block. The Python blocks of a page are one program, and so are
its JavaScript blocks.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from sybil import Document, Example, Region
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from jobs.store import keys
from tests.support.doc_blocks import Block, block_of, compare
from tests.support.processes import MAXMEMORY_BYTES, ROOT, Process, free_port
from tests.support.s3 import MotoS3
from tests.support.stack import Stack
from tests.support.waiting import wait_until

BLOCK_SECONDS_MAX = 120
_WHOLE_LINE = re.compile(r"(?P<info>[^\n]*)\n")
_HTTP_ERROR = 22  # of curl with fail-with-body
_END = "end of block"
_PROGRAMS = {
    "python": (Path(sys.executable), "py", f"print({_END!r}, flush=True)\n"),
    "javascript": (Path(sys.executable).with_name("node"), "mjs", f"console.log({_END!r});\n"),
}
_OWN_PORT = re.compile(r"(?<=127\.0\.0\.1:)(8000|5000)\b")
_OTHER_PORT = re.compile(r"\b90\d\d\b")


class PageRunner:
    """`url` is that of a stack which serves `fmnist-cnn`; a page with settings of its own gets a stack of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        self._exits = ExitStack()
        self._ports = dict[str, str]()
        self._blocks: Sequence[Block] = ()
        self._programs = dict[str, tuple[int, str, str]]()
        self._stacks = 0
        self._seen: str | None = None
        self._refused = False
        self.marked = list[str]()
        """The markers of the blocks that were left out."""

    def run(self, page: Path, then: Callable[[], None] = lambda: None) -> None:
        """All blocks of the page; `then` is called while its servers run."""
        document = Document.parse(str(page), self._parse)
        examples = list(document)
        self._blocks = [example.parsed for example in examples]
        with self._exits:
            lay_out(self._folder)
            for example in examples:
                example.evaluate()
            self._expect_no_refusal()
            then()

    def port(self, shown: str) -> str:
        """What stands for the port of a reader's own server."""
        return self._ports[shown]

    def _parse(self, document: Document) -> list[Region]:
        regions = list(RawFencedCodeBlockLexer(_WHOLE_LINE)(document))
        for region in regions:
            region.parsed = block_of(region.lexemes["info"], region.lexemes["source"])
            region.evaluator = self._evaluate
        return regions

    def _evaluate(self, example: Example) -> str | None:
        """Sybil adds the page and the line to what is returned."""
        try:
            self._run_block(example.parsed)
        except AssertionError as error:
            return str(error)
        return None

    def _run_block(self, block: Block) -> None:
        if block.kind == "output":
            assert self._seen is not None, "an output without a command before it"
            compare(block, self._seen)
            self._seen, self._refused = None, False
            return
        self._expect_no_refusal()
        self._seen = None
        if block.kind == "marked":
            self.marked.append(block.title)
        elif block.kind == "file":
            (self._folder / block.title).write_text(self._with_ports(block.source))
        elif block.language != "sh":
            self._seen = self._output_of_program(block)
        elif re.search(r"^\S.*\bmake run\b|^make run\b", block.source.strip().splitlines()[-1]):
            self._start(block.source)
        else:
            self._seen = self._output_of_shell(block.source)

    def _expect_no_refusal(self) -> None:
        assert not self._refused, f"the server refused the command before: {self._seen}"

    # -- servers

    def _start(self, source: str) -> None:
        *before, line = source.strip().replace("\\\n", " ").splitlines()
        for command in filter(None, map(str.strip, before)):
            self._output_of_shell(command)
        words = [word for word in shlex.split(self._with_ports(line), comments=True) if "=" in word]
        settings = dict(word.split("=", 1) for word in words)
        if not settings:
            return
        if "S3_BUCKETS" in settings:
            settings |= self._s3()
        model = settings.pop("MODEL", "fmnist-cnn")
        common = {"MODEL": model, "DEFAULT_MODEL": model, "MODELS_DIR": str(self._folder / "weights"), **settings}
        self._stacks += 1
        folder = self._folder / f"stack-{self._stacks}"
        folder.mkdir()
        stack = self._exits.enter_context(Stack(folder, **common))
        self._url = stack.api().url
        outbound = any(name.startswith(("FETCH_", "S3_", "WEBHOOK_")) for name in settings)
        is_up = self._start_outbound(stack, folder, common) if outbound else None
        stack.worker(children=1)  # both start at the same time
        if is_up is not None:
            wait_until(is_up, what="the outbound worker")
        socket = self._folder / "data/port-8000/valkey.sock"
        socket.parent.mkdir(parents=True, exist_ok=True)
        socket.unlink(missing_ok=True)
        socket.symlink_to(stack.valkey.socket)

    def _start_outbound(self, stack: Stack, folder: Path, settings: dict[str, str]) -> Callable[[], bool]:
        """Returns what says whether it is up."""
        own = {"OUTBOUND_CHILDREN": "1", "REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES)}
        environment = {"REDIS_URL": stack.valkey.url, **own, **settings}
        outbound = Process([sys.executable, "-m", "worker.outbound"], folder / "outbound.log", environment)
        self._exits.enter_context(outbound)

        def is_up() -> bool:
            assert outbound.running(), outbound.output()
            return stack.redis.zcard(keys.HEARTBEATS + keys.FETCH) >= 1

        return is_up

    def _s3(self) -> dict[str, str]:
        """The bucket `photos`, on a server that stands in for AWS."""
        s3 = MotoS3()
        self._exits.callback(s3.stop)
        s3.bucket("photos")
        s3.put("photos", {f"2026/{path.name}": path.read_bytes() for path in (ROOT / "tests/data").glob("*.png")})
        return {name.upper(): str(value) for name, value in s3.settings.items() if name != "s3_buckets"}

    def _with_ports(self, source: str) -> str:
        """8000 and 5000 are Darkroom's; 90xx are the reader's own servers, which get free ports."""
        port = self._url.rpartition(":")[2]
        return _OTHER_PORT.sub(
            lambda found: self._ports.setdefault(found[0], str(free_port())), _OWN_PORT.sub(port, source)
        )

    # -- programs

    def _output_of_shell(self, source: str) -> str:
        state = self._folder / ".variables"
        save = f"export -p | grep -v ' DARKROOM_URL=' > {state}"  # another block may have another server
        script = f"set -aeuo pipefail\nsource {state}\n{self._with_ports(source)}\n{save}\n"
        code, output, errors = self._execute(["bash", "-c", script])
        self._refused = code == _HTTP_ERROR
        assert code in (0, _HTTP_ERROR), f"exit status {code}\n{output}{errors}"
        return output

    def _output_of_program(self, block: Block) -> str:
        """Of this block; the program runs when its first block comes."""
        own = [other for other in self._blocks if (other.language, other.title) == (block.language, "")]
        if block.language not in self._programs:
            program, suffix, end = _PROGRAMS[block.language]
            file = self._folder / f"blocks.{suffix}"
            file.write_text("".join(self._with_ports(it.source) + end for it in own))
            self._programs[block.language] = self._execute([str(program), str(file)])
        code, output, errors = self._programs[block.language]
        *outputs, _ = output.split(_END + "\n")
        number = next(i for i, other in enumerate(own) if other is block)
        assert number < len(outputs), errors or "the program ended before this block did"
        assert code == 0 or number + 1 < len(own), errors
        return outputs[number]

    def _execute(self, command: list[str]) -> tuple[int, str, str]:
        """In a session of its own: what it leaves running ends with the page."""
        out, errors = self._folder / ".out", self._folder / ".errors"
        with out.open("wb") as to, errors.open("wb") as to_errors:
            started = subprocess.Popen(
                command, cwd=self._folder, env=self._environment(), stdin=subprocess.DEVNULL, stdout=to,
                stderr=to_errors, start_new_session=True,
            )  # fmt: skip
        self._exits.callback(_end_group, started.pid)
        code = started.wait(BLOCK_SECONDS_MAX)
        return code, out.read_text(), errors.read_text()

    def _environment(self) -> dict[str, str]:
        folder = str(self._folder)
        return os.environ | {
            "CURL_HOME": folder,
            "COLUMNS": "100",
            "DARKROOM_URL": self._url,
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "client"))),
            "XDG_CONFIG_HOME": folder,
            "XDG_STATE_HOME": folder,
        }


def lay_out(folder: Path) -> None:
    """The repository's root, whose own files stay as they are; `weights` takes more packages."""
    for path in ROOT.iterdir():
        if path.name not in ("weights", ".git", "data", "site"):
            (folder / path.name).symlink_to(path)
    (folder / "weights").mkdir()
    for package in (ROOT / "weights").iterdir():
        (folder / "weights" / package.name).symlink_to(package)
    (folder / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n")
    (folder / ".variables").touch()


def _end_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
