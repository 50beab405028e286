"""What is moved with the mouse, in JupyterLab as `make lab` starts it, with Chromium or Chrome where there is one."""
import os
import shutil
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

import nbformat
import pytest
from conftest import ROOT

from mnist_scratch.pictures import STROKES

CELL = """\
from dataclasses import replace
from mnist_scratch.baseline import NearestMean
from mnist_scratch.convnet import RECIPES, train
from mnist_scratch.data import load_mnist
from mnist_scratch.pad import drawing_pad
mnist = load_mnist()
net = train(mnist, replace(RECIPES["balanced"], epochs=20))
drawing_pad({"means": NearestMean.from_digits(mnist.train), "net": net})"""


@pytest.fixture
def lab(tmp_path):
    "The address of a JupyterLab that shows one notebook with a pad."
    tree = shutil.copytree(ROOT, tmp_path / "tree", ignore=shutil.ignore_patterns(".*", "_*build", "lab", "tests"))
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)]), tree / "nbs/pad.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    flags = ["--no-browser", "--ServerApp.token=", "--ServerApp.password=", "--LabApp.expose_app_in_browser=True",
             f"--port={address.rpartition(':')[2]}"]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen([sys.executable, "scripts/lab.py", "--", *flags], cwd=tree, stdout=log, stderr=log,
                                  env={**os.environ, "MNIST_SCRATCH_DATA": "sample", "HOME": str(tmp_path)})
        for _ in range(120):
            try:
                urlopen(f"{address}/api", timeout=5)
                break
            except OSError:
                time.sleep(0.5)
        yield f"{address}/lab/tree/nbs/pad.ipynb?reset"
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:  # it still waits for a kernel that was just starting
            server.kill()


def said(page) -> list[str]:
    return page.locator("td.says").all_inner_texts()


def until(condition, what: str, seconds: float = 20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def test_what_is_drawn_on_the_pad_is_read_and_the_bars_follow(page, lab):  # no server without a browser
    page.goto(lab)
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', state="attached", timeout=90_000)
    page.wait_for_function("""() => {  // what is not quite there does not run, and says nothing
        const {context, sessionContext} = window.jupyterapp.shell.currentWidget;
        return context.isReady && sessionContext.session?.kernel?.connectionStatus === "connected";
    }""", timeout=90_000)
    # Once, for a second run would clear the pad; the promise may hang.
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    paper = page.locator("canvas.paper")
    paper.wait_for(timeout=90_000)
    paper.scroll_into_view_if_needed()
    until(lambda: page.locator(".message").inner_text() == "Draw a digit.", "an empty sheet asks for a digit")
    box, bars = paper.bounding_box(), page.locator("tr").nth(1)
    for digit, strokes in STROKES.items():
        seen = []
        for stroke in strokes:
            places = [(box["x"] + right*box["width"], box["y"] + down*box["height"]) for right, down in stroke]
            page.mouse.move(*places[0])
            page.mouse.down()
            for place in places[1:]:
                page.mouse.move(*place, steps=4)
            page.mouse.up()
            until(lambda seen=seen: said(page)[1] and bars.inner_html() not in seen, "each stroke moves the bars")
            seen.append(bars.inner_html())
        until(lambda digit=digit: said(page)[1] == str(digit), f"the net reads the {digit}")
        page.click("button.clear")
        until(lambda: said(page) == ["", ""], "an empty sheet has no answer")
    paper.focus()
    for key in [" ", *["ArrowDown"]*20, " "]:
        page.keyboard.press(key)
    until(lambda: said(page)[1] == "1", "the keys draw a 1")
    page.get_by_label("an example").select_option("4")
    until(lambda: said(page)[1] == "4", "an example is drawn")
    page.get_by_text("as MNIST's makers did").click()
    page.locator("input[name=right]").fill("8")
    until(lambda: said(page)[0] != "4", "far to the right, the means are lost")
