"""Takes the pictures of Prometheus in docs/pictures/: `python -m docs.monitoring_pictures`. Needs Debian's chromium.

Debian's Prometheus, whose pages are the classic ones, scrapes a stack that works meanwhile.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.integration.web.browser import chromium
from tests.support.monitored import monitored, work

FOLDER = Path(__file__).parent / "pictures"
SECONDS = 60  # of work, in the graph
VIEW = {"width": 1180, "height": 850}
GRAPH = "sum by (model, result) (rate(darkroom_items_total[10s]))"

WITHOUT_FOLDER = """() => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (walk.nextNode()) walk.currentNode.data = walk.currentNode.data.replace(/\\S+\\/alerts\\.yml/, "alerts.yml")
}"""  # where the file with the alerts lies on this machine


def main() -> None:
    with TemporaryDirectory() as folder, monitored(Path(folder)) as (prometheus, api), chromium() as browser:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            work(api)
        page = browser.new_page(viewport=VIEW)
        page.goto(f"{prometheus.url}/classic/alerts")
        page.wait_for_load_state("networkidle")
        page.evaluate(WITHOUT_FOLDER)
        page.screenshot(path=FOLDER / "prometheus-alerts.png")
        page.goto(f"{prometheus.url}/graph?g0.expr={GRAPH}&g0.tab=0&g0.range_input=2m")
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(1500)  # until the graph is drawn
        page.mouse.click(5, 300)  # out of the field of the expression
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=FOLDER / "prometheus-graph.png")


if __name__ == "__main__":
    main()
