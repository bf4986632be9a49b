"""A report in headless Chromium: it is seen, sorted, printed and read on a phone, and takes nothing from anywhere."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from made_search import record, run_search, study_at

from raysd.results.store import Results
from raysd.study.design import load_study, trials_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
Run = Callable[..., tuple[int, str, str]]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
DESK, PHONE = {"width": 1200, "height": 900}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A Chromium of this machine; nothing is downloaded."""
    found = os.environ.get("RAYSD_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium here: none of {', '.join(NAMES)} on the path; or name one with RAYSD_CHROMIUM")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright drives the browser; it is in extra 'dev'"
    )
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found)
        yield started
        started.close()


@pytest.fixture
def opened(browser: "Browser") -> "Iterator[Callable[[Path, dict[str, int]], Page]]":
    """Opens a file; afterwards, nothing may have been said in the console or asked from elsewhere."""
    trouble, pages = list[str](), list[Any]()

    def show(file: Path, size: dict[str, int]) -> "Page":
        page = browser.new_page(viewport=size)  # pyright: ignore[reportArgumentType]
        page.on("console", lambda said: trouble.append(said.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda asked: None if asked.url == file.as_uri() else trouble.append(asked.url))
        page.goto(file.as_uri())
        pages.append(page)
        return page

    yield show
    for page in pages:
        page.close()
    assert trouble == []


@pytest.fixture
def compared(raysd: Run, tmp_path: Path) -> Path:
    """The report of four variants and a reference on two machines, with three seeds of which one is missing."""
    study_at(tmp_path)
    factors = {
        "cutoff_hz": {"setting": "augment.high_frequency.cutoff_hz", "levels": [250, 1000, 2000, 6000]},
        "mixup": {"setting": "augment.log_mixup_exp", "off": None},
    }
    study = {"question": "which?", "baseline": "recipes/base.yaml", "profile": "cpu", "factors": factors}
    study |= {"design": "one_at_a_time", "seeds": [0, 1, 2], "references": ["recipes/floor.yaml"]}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    results = Results(tmp_path / "results")
    levels = {"cutoff_hz=250": 0.095, "cutoff_hz=1000": 0.52, "cutoff_hz=6000": 0.8, "without mixup": 0.6}
    for trial in trials_of(load_study(tmp_path / "s.yaml"), "d0"):
        if (trial.variant, trial.seed) != ("without mixup", 2):
            results.write(record(trial, {}, levels.get(trial.variant, 0.7) + 0.01 * trial.seed))
    file = tmp_path / "s.html"
    assert raysd("report", tmp_path / "s.yaml", "--results", results.root, "--to", file)[0] == 0
    return file


@pytest.fixture
def searched(raysd: Run, tmp_path: Path) -> Path:
    results = Results(tmp_path / "results")
    run_search(study_at(tmp_path), results)
    file = tmp_path / "found.html"
    assert raysd("report", tmp_path / "find.yaml", "--results", results.root, "--to", file)[0] == 0
    return file


def column(page: "Page", number: int, body: int = 1) -> list[str]:
    """The texts of one column of the first table, in the rows below one heading."""
    cells = page.locator(f"table >> nth=0 >> tbody:nth-of-type({body}) tr:not(.break) td:nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_tables_are_sorted_by_value_and_from_the_keyboard(
    opened: "Callable[[Path, dict[str, int]], Page]", compared: Path
) -> None:
    page = opened(compared, DESK)
    table = page.locator("table").first
    names = ["baseline", "cutoff_hz=250", "cutoff_hz=1000", "cutoff_hz=6000", "without mixup"]
    assert column(page, 1) == names

    fan, sort = table.get_by_role("columnheader", name="fan", exact=True), table.get_by_role("button", name="fan")
    sort.click()
    assert fan.get_attribute("aria-sort") == "descending"
    numbers = [float(text.split()[0]) for text in column(page, 3)]
    assert numbers == sorted(numbers, reverse=True)  # 9.50 after 10: as a number, not as a word
    assert min(numbers) < 11 < max(numbers)
    assert column(page, 1)[0] == "cutoff_hz=6000"
    assert column(page, 1, body=2) == ["floor (reference)"]  # stays below its own heading
    assert table.locator("tr").last.inner_text().startswith("floor")

    sort.press("Enter")
    assert fan.get_attribute("aria-sort") == "ascending"
    assert [float(text.split()[0]) for text in column(page, 3)] == sorted(numbers)
    table.get_by_role("button", name="variant").click()
    assert fan.get_attribute("aria-sort") is None
    assert column(page, 1) == names  # words by the numbers in them: 250 before 1000
    sort.click()
    sort.click()
    sort.click()
    assert (column(page, 1), table.locator("[aria-sort]").count()) == (names, 0)  # as it was


def test_all_is_seen_and_printed(opened: "Callable[[Path, dict[str, int]], Page]", compared: Path) -> None:
    page = opened(compared, DESK)
    assert page.locator("h2").first.inner_text() == "Answer"
    assert page.locator(".lead").bounding_box()["y"] < DESK["height"]  # pyright: ignore[reportOptionalSubscript]
    figures = page.locator("figure svg")
    assert figures.count() >= 2
    for figure in figures.all():
        box = figure.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 100
        assert 0 <= box["x"] < box["x"] + box["width"] <= DESK["width"]
    content = page.pdf(prefer_css_page_size=True)
    assert content.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type */Page\b", content)) > 1
    page.emulate_media(media="print")
    assert page.locator("details li").first.is_visible()  # what is folded is printed


@pytest.mark.parametrize("kind", ["compared", "searched"])
def test_it_can_be_read_on_a_phone(
    opened: "Callable[[Path, dict[str, int]], Page]", request: pytest.FixtureRequest, kind: str
) -> None:
    page = opened(request.getfixturevalue(kind), PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    table = page.locator(".scroll").first
    assert table.evaluate("box => box.scrollWidth > box.clientWidth")  # wide tables are moved within their box
    small = """() => [...document.querySelectorAll("p, td, th, li, pre")].filter(
        (one) => one.checkVisibility() && parseFloat(getComputedStyle(one).fontSize) < 12).length"""
    assert page.evaluate(small) == 0
    letters = """() => [...document.querySelectorAll("svg text")].map(
        (one) => one.getBoundingClientRect().height).filter((height) => height > 0)"""
    assert min(page.evaluate(letters)) > 8
