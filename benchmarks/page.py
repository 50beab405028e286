"""What the website's pages weigh, when a browser first paints them, and how long the first page takes to learn.

Needs `make site` and Chromium or Chrome; a server on this machine, without compression, and a browser of its own for
each of N_RUNS visits; into results/page.md."""
import functools
import re
import shutil
import statistics
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from machine import machine
from playwright.sync_api import Page, sync_playwright

SITE = Path(__file__).parent.parent / "_build" / "website"
PAGES = ("index", "nbs/03_linear_model", "clinic")
N_RUNS = 5
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_): pass


def visit(page: Page, address: str) -> tuple[float, float]:
    "Megabytes that were sent, and seconds until something was painted."
    sent = []
    page.on("response", lambda response: sent.append(int(response.headers.get("content-length", 0))))
    page.goto(address, wait_until="networkidle")
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return sum(sent)/1e6, painted/1000


def learn(page: Page, address: str) -> tuple[float, float, int]:
    "Seconds until the net of the first page reads 920 of 1,000; seconds of fifteen epochs; how many it reads then."
    page.goto(address)
    page.evaluate("playground.ready")
    return page.evaluate("""() => new Promise(done => {
      const words = document.querySelector("#playground .words"), start = performance.now();
      let first = NaN;
      const look = () => {
        const [, epoch, read] = words.textContent.match(/Epoch (\\d+): it reads (\\d+)/).map(Number);
        const seconds = (performance.now() - start)/1000;
        if (read >= 920 && !(first > 0)) first = seconds;
        if (epoch >= 15) { observer.disconnect(); done([first, seconds, read]); }
      };
      const observer = new MutationObserver(look);
      observer.observe(words, {childList: true, characterData: true, subtree: true});
      document.querySelector("#playground .learn").click();
    })""")


def main() -> int:
    if BROWSER is None or not SITE.exists():
        print("This needs Chromium or Chrome, and the website that `make site` makes.")
        return 2
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    lines = ["| page | megabytes | seconds to the first paint |", "| --- | ---: | ---: |"]
    with sync_playwright() as driver:
        def visits(what, name):
            results = []
            for _ in range(N_RUNS):
                browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
                results.append(what(browser.new_page(), f"{address}/{name}.html"))
                version = browser.version
                browser.close()
            return list(zip(*results)), version
        for name in PAGES:
            (weights, paints), version = visits(visit, name)
            lines.append(f"| {name} | {statistics.median(weights):.2f} | {statistics.median(paints):.2f} |")
        (first, seconds, read), _ = visits(learn, "index")
    text = "\n".join([
        "Made by `python benchmarks/page.py`.\n", *lines,
        f"\nThe net of the first page, as it stands when one opens it, reads 920 of 1,000 validation images after "
        f"{statistics.median(first):.1f} s, and has learned for fifteen epochs after {statistics.median(seconds):.1f} "
        f"s; it reads {min(read)} to {max(read)} then.",
        f"\nMedians of {N_RUNS} visits, each by a browser of its own; a server on the same machine, nothing "
        f"compressed; Chromium {re.match('[0-9]+', version)[0]}, {machine()}.\n"])
    (Path(__file__).parent / "results" / "page.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
