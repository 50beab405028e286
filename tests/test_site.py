"""The website: every page whole and readable by everybody, and a first page that reads, and learns, as Python does."""
import json
import re
import subprocess
import sys
from base64 import b64encode
from html import unescape

import numpy as np
import playground
import pytest
import torch
import website
from conftest import LESSONS, NOTEBOOKS, ROOT
from PIL import Image

from mnist_scratch.data import load_mnist
from mnist_scratch.digits import as_mnist, asked
from mnist_scratch.pictures import STROKES, drawn, photographed

SCRIPTS = ("engine.js", "playground_data.js", "site.js", "digits.js", "pad.js", "playground.js")
NAMES = {"means": "pixel means", "linear": "linear", "twoLayer": "two-layer net", "convNet": "convolutional net"}


@pytest.fixture(scope="session")
def site(tmp_path_factory, sample_folder):
    "The website, and the nets of its first page, which have learned from the sample."
    nets, _ = playground.models(load_mnist(sample_folder, device="cpu"))
    folder = tmp_path_factory.mktemp("site")
    (folder / "nets.js").write_text(playground.page_data(nets, "3,000 images"), encoding="utf-8")
    program = "import sys, website; from pathlib import Path; website.website(*map(Path, sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", program, folder / "nets.js", folder / "website", folder / "pages"],
                   check=True, cwd=ROOT / "scripts")
    return folder / "website", nets


def pages(folder, pattern="**/*.html"):
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted(folder.glob(pattern)) if "_modules" not in path.parts}


def test_every_page_is_there_with_alt_text_and_no_link_is_broken_or_loads_from_elsewhere(site):
    folder, _ = site
    found = pages(folder)
    texts = [path for pattern in website.TEXTS for path in ROOT.glob(pattern) if path != ROOT / "README.md"]
    wanted = {path.relative_to(ROOT).with_suffix(".html").as_posix() for path in [*NOTEBOOKS, *texts]}
    assert wanted | {"index.html", "search.html", "clinic.html", "nbs/deeper/index.html"} <= set(found)
    assert {f"reference/{path.stem}.html" for path in (ROOT / "mnist_scratch").glob("[a-z]*.py")} <= set(found)
    for name, html in found.items():
        for tag, target in re.findall(r'<(\w+)\b[^>]*?\b(?:href|src)="([^"]+)"', html):
            if re.match("https://|data:", target):
                assert tag == "a" or target.startswith("data:"), (name, target)
                continue
            file, _, place = unescape(target).partition("?")[0].partition("#")
            file, place = file.partition("#")[0], place or unescape(target).partition("#")[2]
            path = (folder / name).parent / file if file else folder / name
            assert path.is_file(), (name, target)
            if place and path.suffix == ".html":
                assert re.search(f'id="{re.escape(place)}"', path.read_text(encoding="utf-8")), (name, target)
        for picture in re.findall(r"<img\b[^>]*>", html):
            alt = re.search(r'alt="([^"]*)"', picture)[1]
            assert len(alt) > 10 and "_images/" not in alt, (name, picture)


def test_lessons_show_no_directive_and_have_their_widgets_and_their_whole_notebook_to_download(site):
    folder, _ = site
    for path in LESSONS:
        html = (folder / f"nbs/{path.stem}.html").read_text(encoding="utf-8")
        assert "#|" not in html and "<merror" not in html and 'class="math' not in html, path.stem
        assert (folder / f"_sources/nbs/{path.name}").read_bytes() == path.read_bytes()
    for name, said in (("03_linear_model", "learning rate"), ("04_loss_functions", "true digit"),
                       ("05_two_layer_net", "unit 2"), ("06_resnet", "Nine pixels"), ("09_autograd", "Start again"),
                       ("bug_clinic", "Which instrument")):
        html = (folder / f"nbs/{name}.html").read_text(encoding="utf-8")
        assert said in re.findall('<iframe sandbox="allow-scripts".*?</iframe>', html, re.S)[0], name
    reference = (folder / "reference/linear.html").read_text(encoding="utf-8")
    signature = re.search(r'<dt [^>]*id="mnist_scratch.linear.linear">.*?</dt>', reference, re.S)[0]
    assert "Float[Tensor, 'n p']" in unescape(re.sub("<[^>]+>", "", signature)) and "standard deviation" in reference


def heard(page) -> list[str]:
    "What a page complains of, or asks others for, from now on."
    complaints = []
    page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:", "blob:", "about:")) or
            complaints.append(request.url))
    return complaints


def test_every_page_is_silent_fits_a_telephone_and_serves_those_who_cannot_see_it(page, site):
    folder, _ = site
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    complaints, found = heard(page), []
    for name in pages(folder):
        page.set_viewport_size({"width": 390, "height": 800})
        page.goto((folder / name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        assert complaints == [], name
        page.set_viewport_size({"width": 1280, "height": 900})
        page.add_style_tag(content="* { transition: none !important; }")  # colours fade, and axe does not wait
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_function("scheme => document.documentElement.dataset.theme === scheme", arg=scheme)
            for frame in page.frames if scheme == "light" else [page]:
                report = axe.run(frame, options={"resultTypes": ["violations"], "preload": False}).response
                found += [(name, scheme, one["id"], one["nodes"][0]["html"]) for one in report["violations"]
                          if one["impact"] in ("serious", "critical")]
        complaints.clear()  # those of axe itself
    assert found == []


def test_search_finds_a_word_and_light_turns_dark_at_a_press(page, site):
    page.goto(f"{(site[0] / 'search.html').as_uri()}?q=broadcasting")
    page.wait_for_selector("#search-results li")
    assert "02_pixel_baseline" in page.inner_html("#search-results")
    page.click("button.theme-switch-button")
    page.click("button.theme-change-button[data-mode=dark]")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", colour)[:3])) < 60, colour


def open_playground(page, folder):
    page.goto((folder / "index.html").as_uri())
    page.evaluate("playground.ready")


def said(page) -> list[str]:
    return page.locator("#playground td.says").all_inner_texts()


def test_a_digit_drawn_or_photographed_is_answered_by_all_models(page, site, tmp_path):
    complaints = heard(page)
    open_playground(page, site[0])
    assert page.locator("#playground th").all_inner_texts() == [*NAMES.values(), "learning below"]
    page.click("#playground button.clear")
    assert said(page) == [""]*5
    page.click("#playground button.undo")
    assert said(page)[3:] == ["3", ""], "one that has not begun is not asked"
    page.click("#playground button.clear")
    paper = page.locator("#playground canvas.paper")
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    for stroke in STROKES[3]:
        (x, y), *places = [(box["x"] + right*box["width"], box["y"] + down*box["height"]) for right, down in stroke]
        page.mouse.move(x, y)
        page.mouse.down()
        for place in places:
            page.mouse.move(*place, steps=4)
        page.mouse.up()
    assert said(page)[:4] == ["3"]*4 and "say 3 and not" in page.inner_text("#playground .votes")
    page.locator("#playground select").first.select_option("7")
    assert said(page)[3] == "7"
    photographed(4, 1200, 900).convert("RGB").save(photo := tmp_path / "photo.jpg")
    page.locator("#playground input[type=file]").set_input_files(photo)
    page.wait_for_function("document.querySelectorAll('#playground td.says')[3].textContent === '4'")
    (tmp_path / "no.png").write_text("no picture")
    page.locator("#playground input[type=file]").set_input_files(tmp_path / "no.png")
    page.wait_for_selector("text=That file is no picture")
    assert complaints == []


def test_the_page_learns_to_read_920_of_1000_within_fifteen_epochs(page, site):
    open_playground(page, site[0])
    words = page.locator("#playground .words")
    assert words.inner_text().startswith("Epoch 0: ")
    before = page.locator("#playground .units canvas").first.evaluate("canvas => canvas.toDataURL()")
    page.click("#playground button.learn")
    page.wait_for_function("""() => {
      const words = document.querySelector("#playground .words").textContent;
      const [, epoch, read] = words.match(/Epoch (\\d+): it reads (\\d+)/);
      return read >= 920 || epoch > 15;
    }""", timeout=120_000, polling=20)
    epoch, read = map(int, re.match(r"Epoch (\d+): it reads (\d+) of 1,000", words.inner_text()).groups())
    assert epoch <= 15 and read >= 920
    page.click("#playground button.learn")
    assert page.locator("#playground .units canvas").first.evaluate("canvas => canvas.toDataURL()") != before
    page.locator("[name=rate]").select_option("64")
    page.locator("[name=start]").select_option("far too large")
    page.locator("[name=loss]").select_option("softmax + MSE")
    assert words.inner_text().startswith("Epoch 0: "), "another loss begins anew"
    page.click("#playground button.learn")
    page.locator("[name=images]").select_option("30")
    page.wait_for_function("document.querySelector('#playground .words').textContent.match(/Epoch (\\d+)/)[1] > 100")
    page.click("#playground button.again")
    page.locator("[name=images]").select_option("3000")
    page.wait_for_function("""() =>
      [1, 2, 3].includes(Number(document.querySelector("#playground .words").textContent.match(/\\d+/)[0]))""")


def drawings() -> list[np.ndarray]:
    "A hundred drawings of ten digits, turned, of many sizes and pens, and a hundred of MNIST's, large and pale."
    chance, made = np.random.default_rng(0), []
    for number in range(100):
        side = int(chance.integers(120, 280))
        digit = drawn(number % 10, 280, chance.uniform(0.03, 0.09)).rotate(chance.uniform(-20, 20), fillcolor=255)
        sheet = Image.new("L", (280, 280), 255)
        sheet.paste(digit.resize((side, side)), tuple(map(int, chance.integers(0, 281 - side, 2))))
        made.append(np.asarray(sheet))
    for image in load_mnist("sample", device="cpu").test.images[::10]:
        ink = Image.fromarray((255*image.numpy()).astype(np.uint8)).resize((280, 280), Image.Resampling.BICUBIC)
        made.append((255 - chance.uniform(0.5, 1)*np.asarray(ink)).astype(np.uint8))
    return made


def test_200_images_are_prepared_and_read_as_in_python(page, site):
    folder, nets = site
    open_playground(page, folder)
    pictures = drawings()
    got = page.evaluate("""pictures => pictures.map(text => {
      const pixels = Uint8Array.from(atob(text), sign => sign.charCodeAt(0));
      return playground.answers(playground.prepared(pixels, {prepared: true, right: 0, down: 0, turn: 0, thicker: 0}))
        .slice(0, 4);
    })""", [b64encode(picture.tobytes()).decode() for picture in pictures])
    got = torch.tensor(got)
    images = torch.stack([as_mnist(picture) for picture in pictures])
    wanted = torch.stack([asked(net, images) for net in nets.values()], dim=1)
    assert len(pictures) == 200 and list(nets) == list(NAMES)
    assert got.argmax(2).equal(wanted.argmax(2)) and (got - wanted).abs().max() < 0.02


def test_the_playground_weighs_at_most_a_megabyte_and_a_half_and_names_the_licence_of_its_images(page, site):
    folder, _ = site
    assert sum((folder / "_static" / name).stat().st_size for name in SCRIPTS) < 1.5e6
    open_playground(page, folder)
    assert "CC BY-SA 3.0" in page.inner_text("#playground") and "3,000 images" in page.inner_text("#playground")
    labels = json.loads((folder / "_static/playground_data.js").read_text().partition("=")[2].rstrip("; \n"))["labels"]
    assert len(labels) == 4000 and min(labels[:100].count(digit) for digit in "0123456789") > 3


@pytest.mark.parametrize("fault, instrument, reading", [
    ("the pixels go from 0 to 255", "pixels", "from 0 to 255"),
    ("it has too few images to learn from", "piles", "30 to learn from"),
    ("it is judged by images that it learns from", "piles", "500 in both"),
    ("all its weights begin at zero", "steps", "0 % of the weights in the first step")])
def test_the_live_clinic_plants_a_fault_shows_it_and_knows_its_name(page, site, fault, instrument, reading):
    complaints = heard(page)
    page.goto((site[0] / "clinic.html").as_uri())
    page.evaluate("clinic.ready")
    page.evaluate("fault => clinic.next(fault)", fault)
    page.get_by_role("button", name=instrument).click()
    _, patient, healthy = page.locator("#clinic tbody tr").first.locator("th, td").all_inner_texts()
    assert reading in patient and reading not in healthy
    page.get_by_label("the fault", exact=True).select_option("it goes uphill")
    page.get_by_role("button", name="Name it").click()
    assert page.inner_text("#clinic .verdict").startswith("Not that. There one would see a first step like")
    page.get_by_label("the fault", exact=True).select_option(fault)
    page.get_by_role("button", name="Name it").click()
    assert page.inner_text("#clinic .verdict").startswith(f"Yes: {fault}. You needed 1 reading and 2 guesses.")
    assert complaints == []
