"""The report in a real browser: nothing fetched, nothing complained about, nothing cut off; on a phone, a desk, on paper.

Needs the Python package `playwright` (extra `dev`) and a Chromium: `$CLAS_BROWSER`, one on the path (Debian: apt-get install
chromium), or playwright's own (playwright install chromium).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic_study import write_study

from lm_eval_clas.study.report.rendering import write_report

pytestmark = pytest.mark.slow
NAMES = ("chromium", "chromium-browser", "chrome-headless-shell", "google-chrome", "google-chrome-stable")
PAPER = 688  # pixels of CSS: A4's 210 mm less two margins of 14 mm
EVIL = "<script>alert(1)</script>" + "long" * 30


def executable(playwright: Any) -> str | None:
    found = [os.environ.get("CLAS_BROWSER"), *map(shutil.which, NAMES), playwright.chromium.executable_path]
    return next((path for path in found if path and Path(path).exists()), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'lm-eval-clas[dev]'")
    with api.sync_playwright() as playwright:
        path = executable(playwright)
        if path is None:
            pytest.skip("There is no Chromium: apt-get install chromium, or playwright install chromium, or set CLAS_BROWSER.")
        # Chromium's own sandbox cannot start as root, as in containers of CI; the page is our own, and has no scripts.
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module", params=["2", "40", "3 with 80 layers", "2 with long names"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = tmp_path_factory.mktemp("study")
    languages, layers = int(request.param.split()[0]), 80 if "80" in request.param else 18
    # Forty languages in one part: a second one would have the same pictures again, which take most of the time.
    parts = 1 if languages == 40 else 2
    write_study(study, languages, layers=layers, name=EVIL if "names" in request.param else "", parts=parts)
    return write_report(study)[0]


def opened(browser: Any, path: Path, width: int) -> tuple[Any, list[str]]:
    """The page in a window of its own, and what went wrong or went out since it was opened, which grows."""
    page = browser.new_page(viewport={"width": width, "height": 800})
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))

    def sent(request: Any) -> None:
        if not request.url.startswith(("data:", path.as_uri())):
            wrong.append(f"request: {request.url[:90]}")

    page.on("request", sent)
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")
    return page, wrong


@pytest.fixture(scope="module")
def looked_at(browser: Any, path: Path) -> Iterator[tuple[Any, list[str]]]:
    """The page in one window for all tests that only look at it, as a window takes longer to open than to look at."""
    page, wrong = opened(browser, path, 1280)
    yield page, wrong
    page.close()


def shown(page: Any, width: int, scheme: str, media: str = "screen") -> None:
    """The window is so wide now, or the sheet, and these colours are wanted."""
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(media=media, color_scheme=scheme)


# Elements that reach over the right edge, unless a container of their own scrolls them.
OVERFLOWING = """() => [...document.querySelectorAll('body *')].filter(one => !one.closest('.scroll') || one.matches('.scroll'))
    .filter(one => !one.closest('svg') || one.matches('svg'))
    .filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
    .map(one => one.tagName + ' ' + one.textContent.trim().slice(0, 60))"""
# Words and axes that a picture's frame cuts off, in the picture's own units.
CUT = """() => [...document.querySelectorAll('.group svg[role=img]')].flatMap(svg => {
    const frame = svg.getBoundingClientRect();
    return [...svg.querySelectorAll('text')].filter(text => {
        const box = text.getBoundingClientRect();
        return box.left < frame.left - 2 || box.right > frame.right + 2 ||
            box.bottom > frame.bottom + 2 || box.top < frame.top - 2;
    }).map(text => text.textContent + ' in ' + svg.getAttribute('aria-label').slice(0, 60));
})"""
# Texts with less contrast than WCAG's 4.5 to 1 against the nearest background that is painted.
FAINT = """() => {
    const rgb = color => color.match(/[\\d.]+/g).map(Number);
    const light = color => { const [r, g, b] = rgb(color).slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const behind = one => { for (; one; one = one.parentElement) { const c = getComputedStyle(one).backgroundColor;
        if (!(rgb(c).length === 4 && rgb(c)[3] === 0)) return c; } return 'rgb(255, 255, 255)'; };
    const faint = new Set();
    for (const one of document.querySelectorAll('p, li, h1, h2, h3, th, td, small, dt, dd, figcaption, a, code, svg text')) {
        const style = getComputedStyle(one), ink = one.matches('svg text') ? style.fill : style.color;
        const [a, b] = [light(ink), light(behind(one))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) faint.add(one.tagName + ' ' + ink + ' on ' + behind(one));
    }
    return [...faint];
}"""

# Names of rows that take more than a line, where there is room for one.
BROKEN = """() => [...document.querySelectorAll('tbody th span:not(.long)')]
    .filter(one => one.offsetHeight > 1.9 * parseFloat(getComputedStyle(one).fontSize)).map(one => one.textContent)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_on_a_screen(looked_at: tuple[Any, list[str]], width: int, scheme: str) -> None:
    page, wrong = looked_at
    shown(page, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERFLOWING) == []
    assert page.evaluate(CUT) == []
    assert page.evaluate(FAINT) == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    if width > 1000:
        assert page.evaluate(BROKEN) == []
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[scheme]
    assert wrong == []


def test_pictures_have_text_alternatives(looked_at: tuple[Any, list[str]]) -> None:
    page, _ = looked_at
    shown(page, 1280, "light")
    # As the browser's accessibility tree names them, not as the source has it.
    names = page.get_by_role("img").evaluate_all("all => all.map(one => one.ariaLabel || one.alt || '')")
    assert len(names) == page.evaluate("document.querySelectorAll('.group img, .group svg[role=img]').length") > 5
    assert all(len(name) > 30 for name in names)
    assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")


def test_the_contents_lead_to_the_sections(browser: Any, path: Path) -> None:
    page, wrong = opened(browser, path, 360)
    links = page.locator("nav a")
    for position in range(links.count()):
        links.nth(position).click()
        assert page.evaluate("document.querySelector(':target').tagName") == "SECTION"
        assert page.evaluate("Math.abs(document.querySelector(':target').getBoundingClientRect().top)") < 800
    assert wrong == []
    page.close()


def test_the_first_column_stays_in_sight(looked_at: tuple[Any, list[str]]) -> None:
    page, _ = looked_at
    shown(page, 360, "light")
    scrolled = page.evaluate(
        """() => [...document.querySelectorAll('.data .scroll')].filter(one => one.scrollWidth > one.clientWidth).map(one => {
            one.scrollLeft = one.scrollWidth;
            const first = one.querySelector('tbody th').getBoundingClientRect();
            return [first.left - one.getBoundingClientRect().left, first.width / one.clientWidth];
        })"""
    )
    assert scrolled
    assert all(abs(left) <= 1 and share < 0.6 for left, share in scrolled), scrolled


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_paper(looked_at: tuple[Any, list[str]], tmp_path: Path, scheme: str) -> None:
    page, wrong = looked_at
    shown(page, PAPER, scheme, media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    # Nothing scrolls on paper: whatever is wider than the sheet would be lost.
    assert page.evaluate(OVERFLOWING.replace(".filter(one => !one.closest('.scroll') || one.matches('.scroll'))", "")) == []
    assert page.evaluate(CUT) == []
    assert page.evaluate(FAINT) == []
    page.pdf(path=tmp_path / "report.pdf", format="A4", prefer_css_page_size=True)
    assert (tmp_path / "report.pdf").stat().st_size > 10_000
    assert wrong == []


def test_it_is_small(path: Path) -> None:
    assert path.stat().st_size < 3_000_000
