from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.integration.web.browser import CHROMIUM, Visitor, chromium
from tests.support.processes import Api
from tests.support.stack import Stack

Visit = Callable[..., Visitor]
NewStack = Callable[..., Stack]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip("Debian's package chromium is not installed")
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        stack.worker(children=1, MODELS="fmnist-mlp,fmnist-cnn")
        yield stack


@pytest.fixture(scope="module")
def api(server: Stack) -> Api:
    return server.api()


@pytest.fixture
def new_stack(tmp_path: Path) -> Iterator[NewStack]:
    """Starts a stack for this test alone. It runs until the browsers have been checked."""
    with ExitStack() as opened:
        yield lambda **settings: opened.enter_context(Stack(tmp_path, **settings))


@pytest.fixture
def visit(browser: Browser, new_stack: NewStack) -> Iterator[Visit]:
    """Opens a browser of a person's own. At the end of the test, none may have complained.

    It needs `new_stack` so that pytest ends the servers of the test after this check: a page whose server is gone
    says so on the console.
    """
    visitors = list[Visitor]()
    with ExitStack() as opened:

        def visit(url: str, *, allowed: tuple[str, ...] = (), **options: Any) -> Visitor:
            context = browser.new_context(**options)
            opened.callback(context.close)
            visitor = Visitor(context, url)
            visitor.allowed += allowed
            visitors.append(visitor)
            return visitor

        yield visit
        for visitor in visitors:
            visitor.check()


@pytest.fixture
def person(visit: Visit, api: Api) -> Visitor:
    return visit(api.url)
