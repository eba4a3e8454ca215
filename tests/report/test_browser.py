"""The page in a real Chromium: nothing is fetched, everything is drawn, read, and reached by keyboard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from builder.report import read_facts, render

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install --no-install-recommends chromium")

QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
VIEWS = [(width, scheme) for width in (400, 1400) for scheme in ("light", "dark")]
TUNED = ("load", "merged", "settings", "speed-accuracy", "deviations", "precision")
LEAST_TEXT_PX = 11
PHONE = 400

TEXTS = """() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement, text = node.textContent.trim();
    if (!text || element.closest("script, style, title, .skip") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element), svg = element.closest("svg");
    if (element.closest("thead") && element.closest("thead").getBoundingClientRect().width < 2) continue;
    const scale = svg ? svg.getScreenCTM().a : 1;
    let back = null;
    for (let above = element; above && !back; above = above.parentElement) {
      const colour = getComputedStyle(above).backgroundColor;
      if (!/rgba\\(0, 0, 0, 0\\)|transparent/.test(colour)) back = colour;
    }
    found.push([text.slice(0, 60), parseFloat(style.fontSize) * scale, svg ? style.fill : style.color, back]);
  }
  return found;
}"""
PIXEL = """(colours) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  return Object.fromEntries(colours.map((colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [colour, [...canvas.getImageData(0, 0, 1, 1).data]];
  }));
}"""
PLOTS = """() => [...document.querySelectorAll("svg[data-plot]")].map((svg) => {
  const marks = [...svg.querySelectorAll(".marks :is(path, line, rect, text)")];
  const seen = marks.filter((mark) => { const box = mark.getBoundingClientRect(); return box.width + box.height > 1; });
  const box = svg.getBoundingClientRect();
  return [svg.closest("article").querySelector("h2").textContent, svg.dataset.plot, seen.length, box.width, box.height,
    svg.getAttribute("aria-label"), svg.querySelectorAll(".marks title").length];
})"""
OUTSIDE = """() => {
  const wide = innerWidth, found = [];
  for (const svg of document.querySelectorAll("svg[data-plot]"))
    for (const item of svg.querySelectorAll("text, path, line")) {
      const box = item.getBoundingClientRect(), card = svg.closest("figure").getBoundingClientRect();
      if (box.left < card.left - 1 || box.right > card.right + 1) found.push(item.outerHTML.slice(0, 90));
    }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=BROWSER, args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def file(tuned_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(read_facts(tuned_repository), ".html"), encoding="utf-8")
    return path


@pytest.fixture(params=VIEWS, ids=lambda view: f"{view[0]}-{view[1]}")
def page(request: pytest.FixtureRequest, browser: Any, file: Path) -> Iterator[Any]:
    width, scheme = request.param
    with opened(browser, file, width, scheme) as found:
        yield found


@contextmanager
def opened(browser: Any, file: Path, width: int, scheme: str) -> Iterator[Any]:
    """The page; whatever it logs, or fetches besides itself, fails the test."""
    said, fetched = [], set()
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    try:
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: fetched.add(request.url))
        page.goto(file.as_uri())
        yield page
    finally:
        context.close()
    assert said == []
    assert {url for url in fetched if not url.startswith("data:")} == {file.as_uri()}


def unfold(page: Any) -> None:
    page.evaluate("() => document.querySelectorAll('details').forEach((item) => { item.open = true; })")


def luminance(pixel: list[int]) -> float:
    parts = [value / 255 for value in pixel[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: list[int], other: list[int]) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_plot_is_there_and_drawn(page: Any) -> None:
    plots = page.evaluate(PLOTS)
    assert [key for name, key, *_ in plots if name == "classifier"] == list(TUNED)
    assert [key for name, key, *_ in plots if name == "lossy"] == [
        "speed-accuracy",
        "batches",
        "deviations",
        "precision",
    ]
    for name, key, marks, width, height, label, tips in plots:
        assert marks >= (4 if name == "classifier" else 2), (name, key, marks)
        assert width > 280 and height > 100, (name, key)
        assert len(label) > 20
        assert tips > 0, f"{name} {key}: no tooltips"
    tried = page.evaluate("() => document.querySelectorAll('svg[data-plot=settings] .marks path').length")
    assert tried >= 8 + 1, "a point for each setting, and the ring"


def test_all_text_can_be_read(page: Any) -> None:
    unfold(page)
    texts = page.evaluate(TEXTS)
    assert len(texts) > 300
    small = {(text, round(pixels, 1)) for text, pixels, *_ in texts if pixels < LEAST_TEXT_PX}
    assert not small
    colours = sorted({colour for *_, ink, back in texts for colour in (ink, back)})
    pixels = page.evaluate(PIXEL, colours)
    weak = {
        (text, ink, back, round(contrast(pixels[ink], pixels[back]), 2))
        for text, _, ink, back in texts
        if pixels[back][3] == 255 and contrast(pixels[ink], pixels[back]) < 4.5
    }
    assert not weak


def test_nothing_sticks_out(page: Any) -> None:
    unfold(page)
    size = page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
    assert size[0] <= size[1]
    assert page.evaluate(OUTSIDE) == []


def test_the_theme_follows_the_system_until_it_is_told(browser: Any, file: Path) -> None:
    back = "() => getComputedStyle(document.body).backgroundColor"
    seen = {}
    for scheme in ("light", "dark"):
        with opened(browser, file, 1400, scheme) as page:
            seen[scheme] = page.evaluate(back)
            toggle = page.locator("#theme")
            assert toggle.inner_text().endswith({"light": "Dark theme", "dark": "Light theme"}[scheme]), "what it does"
            toggle.focus()
            page.keyboard.press("Enter")
            other = page.evaluate(back)
            assert other != seen[scheme]
            assert toggle.inner_text().endswith({"light": "Light theme", "dark": "Dark theme"}[scheme])
            page.keyboard.press("Space")
            assert page.evaluate(back) == seen[scheme]
            page.keyboard.press("Space")
            page.reload()
            assert page.evaluate(back) == other, "it is kept"
    assert len(set(seen.values())) == 2


def test_it_can_be_used_without_a_mouse(browser: Any, file: Path) -> None:
    with opened(browser, file, 1400, "light") as page:
        page.keyboard.press("Tab")
        skip = page.evaluate(
            "() => [document.activeElement.className, document.activeElement.getBoundingClientRect().left]"
        )
        assert skip[0] == "skip" and skip[1] >= 0, "the first stop is the way past the top, and it is seen"
        page.keyboard.press("Enter")
        assert page.evaluate("() => document.activeElement.id") == "main"
        stops = []
        for _ in range(200):
            page.keyboard.press("Tab")
            stop = page.evaluate(
                "() => { const at = document.activeElement, style = getComputedStyle(at);"
                " return [at.tagName, style.outlineStyle, parseFloat(style.outlineWidth)]; }"
            )
            if stop[0] == "BODY":
                break
            stops.append(stop)
        assert all(style == "solid" and width >= 2 for *_, style, width in stops), "focus is seen everywhere"
        summaries = [tag for tag, *_ in stops if tag == "SUMMARY"]
        assert len(summaries) == page.locator("summary").count()
        page.locator("summary", has_text="Settings tried").first.focus()
        details = "() => document.querySelector('details[id$=-tuning]').open"
        assert page.evaluate(details) is False
        page.keyboard.press("Enter")
        assert page.evaluate(details) is True
        page.keyboard.press("Space")
        assert page.evaluate(details) is False


def test_landmarks_and_headings_are_in_order(browser: Any, file: Path) -> None:
    with opened(browser, file, 1400, "light") as page:
        for name in ("header.top", "nav[aria-label]", "main", "footer"):
            assert page.locator(name).count() == 1, name
        levels = page.evaluate("() => [...document.querySelectorAll('h1, h2, h3')].map((item) => +item.tagName[1])")
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map((item) => item.id)")
        assert len(ids) == len(set(ids))
        broken = page.evaluate(
            "() => [...document.querySelectorAll('a[href^=\"#\"]')].map((item) => item.getAttribute('href'))"
            ".filter((target) => !document.querySelector(target))"
        )
        assert broken == []


def test_it_prints(browser: Any, file: Path, tmp_path: Path) -> None:
    with opened(browser, file, 1400, "dark") as page:
        pdf = page.pdf(format="A4", print_background=True)
        assert pdf.startswith(b"%PDF") and len(pdf) > 50_000
        page.emulate_media(media="print")
        assert page.evaluate("() => getComputedStyle(document.querySelector('#theme')).display") == "none"
        ink = page.evaluate("() => getComputedStyle(document.body).color")
        (pixel,) = page.evaluate(PIXEL, [ink]).values()
        assert luminance(pixel) < 0.1, "dark on white, whatever the theme"
        page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate("() => document.querySelectorAll('details:not([open]):not(.numbers)').length") == 0
        page.evaluate("() => dispatchEvent(new Event('afterprint'))")
        assert page.evaluate("() => document.querySelectorAll('details[open]').length") == 1, "the ensemble's steps"


def test_it_says_everything_without_a_script(browser: Any, file: Path) -> None:
    context = browser.new_context(viewport={"width": PHONE, "height": 900}, java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator("svg[data-plot]").count() > 8
    assert page.locator("#theme").is_hidden()
    assert "1,320\u00a0rows/s" in page.locator("article", has_text="openvino:int8").first.inner_text()
    context.close()
