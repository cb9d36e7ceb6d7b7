"""The report in a real browser: drawn, operable by mouse and keyboard, readable, and silent towards the network."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.helpers.commands import typed
from tests.helpers.paths import RATINGS
from tests.helpers.reports import HOSTILE, dialogue, score, write_rationales

pytest.importorskip("playwright", reason="playwright is not installed: make test-report")
pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed: make test-report")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium; on Debian: apt-get install chromium"),
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
CHARTS = ("radar", "sources", "characters", "diversity", "distributions", "levels", "agreement", "matrix",
          "reliability", "bland_altman")  # fmt: skip
MARKS = ".scatterlayer .js-line, .scatterlayer .point, .barlayer path, .boxlayer path, .heatmaplayer image"


@dataclass
class Tab:
    """An open page, and what it said and asked for."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def see_all(self) -> None:
        """Scroll through the page, so that every chart is drawn."""
        for chart in self.page.locator(".plot").all():
            chart.scroll_into_view_if_needed()
            chart.locator("svg.main-svg").first.wait_for(state="attached")

    def text(self, selector: str) -> list[str]:
        return [words.strip() for words in self.page.locator(selector).all_inner_texts()]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(scored: tuple[Path, CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    (run,) = (scored[0] / "results").iterdir()
    out = tmp_path_factory.mktemp("browser") / "report.html"
    result = typed("report", run, "--annotations", RATINGS, "--out", out, cwd=out.parent)
    assert result.returncode == 0, result.stderr
    return out


Open = Callable[..., Tab]


@pytest.fixture
def open_page(browser: Browser, report: Path) -> Iterator[Open]:
    contexts = []

    def opened(path: Path = report, width: int = 1440, scheme: Any = "light") -> Tab:
        context = browser.new_context(offline=True, color_scheme=scheme, viewport={"width": width, "height": 900})
        contexts.append(context)
        tab = Tab(context.new_page())
        tab.page.on("console", lambda message: tab.said.append(message.text))
        tab.page.on("pageerror", lambda error: tab.said.append(str(error)))
        tab.page.on("request", lambda request: tab.asked.append(request.url))
        tab.page.goto(path.as_uri())
        return tab

    yield opened
    for context in contexts:
        context.close()


def test_every_chart_is_drawn_in_silence_and_nothing_is_asked_of_the_network(open_page: Open, report: Path) -> None:
    tab = open_page()
    tab.see_all()
    for name in CHARTS:
        assert tab.page.locator(f"#figure-{name} .plot").locator(MARKS).count() > 0, name
    assert tab.said == []
    assert [url for url in tab.asked if not url.startswith("data:")] == [report.as_uri()]


@pytest.mark.parametrize("name", ["radar", "diversity", "distributions", "agreement", "reliability", "bland_altman"])
def test_every_choice_of_a_chart_can_be_drawn(open_page: Open, name: str) -> None:
    tab = open_page()
    choice = tab.page.locator(f"#figure-{name} select")
    for value in choice.locator("option").evaluate_all("all => all.map((one) => one.value)"):
        choice.select_option(value)
        assert tab.page.locator(f"#figure-{name} .plot").locator(MARKS).count() > 0, value
    assert tab.said == []


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("language", ["zh", "en"])
def test_nothing_is_wider_than_the_window(open_page: Open, width: int, language: str) -> None:
    tab = open_page(width=width)
    if language == "en":
        tab.page.click("#language")
    tab.see_all()
    tab.page.locator(".open").first.click()
    tab.page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    widths = tab.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert widths[0] <= widths[1] == width


def test_tables_are_sorted_by_click_and_by_keyboard(open_page: Open) -> None:
    tab = open_page()
    head = tab.page.locator("#board thead th").nth(1)
    means = "#board tbody:not([hidden]) td:nth-child(2)"
    before = tab.text(means)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending" and tab.text(means) == before
    head.locator("button").focus()
    tab.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending" and tab.text(means) == before[::-1] != before


def test_the_leaderboard_is_shown_for_another_metric(open_page: Open) -> None:
    tab = open_page()
    tab.page.select_option("#board-metric", "fluency")
    shown = tab.page.locator("#board tbody:not([hidden])")
    assert shown.count() == 1 and shown.get_attribute("data-metric") == "fluency"


def test_dialogues_are_filtered_and_put_in_order(open_page: Open) -> None:
    tab = open_page()
    assert tab.text("#count") == ["72 段对话"]
    tab.page.select_option("select[name=source]", "plain")
    tab.page.select_option("select[name=scenario]", "3")
    assert tab.text("#count") == ["3 段对话"]
    assert all(who.startswith("plain") and who.endswith("· 3") for who in tab.text("#list .who"))
    tab.page.select_option("select[name=metric]", "fluency")
    tab.page.select_option("select[name=order]", "low")
    scores = [float(score) for score in tab.text("#list .score")]
    assert scores == sorted(scores) and len(set(scores)) > 1
    tab.page.select_option("select[name=order]", "high")
    assert [float(score) for score in tab.text("#list .score")] == scores[::-1]


def test_a_dialogue_opens_by_click_and_by_keyboard(open_page: Open) -> None:
    tab = open_page()
    first, second = (tab.page.locator("#list .open").nth(place) for place in (0, 1))
    first.click()
    assert first.get_attribute("aria-expanded") == "true"
    assert tab.page.locator("#list .inside .turn.character").count() == 2
    assert tab.page.locator("#list .inside .levels tbody tr").count() == 9
    assert tab.page.locator("#list .inside .levels svg rect").count() == 45
    tab.page.keyboard.press("Tab")
    assert second.evaluate("one => one === document.activeElement")
    tab.page.keyboard.press("Enter")
    assert second.get_attribute("aria-expanded") == "true" and tab.page.locator("#list .inside").count() == 2
    tab.page.keyboard.press("Enter")
    assert second.get_attribute("aria-expanded") == "false" and tab.page.locator("#list .inside").count() == 1


def test_rationales_are_found_and_said_to_be_no_evidence(
    open_page: Open, scored: tuple[Path, CompletedProcess[str]], tmp_path: Path
) -> None:
    (run,) = (scored[0] / "results").iterdir()
    own = Path(shutil.copytree(run, tmp_path / "run"))
    write_rationales(own, "<b>像</b>这个角色")
    result = typed("report", own, "--language", "en", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    tab = open_page(own / "report.html")
    tab.page.select_option("[name=flag]", "explained")
    (button,) = tab.page.locator("#list .open").all()
    button.click()
    note, reason = tab.text(".rationale")
    assert "an explanation and no evidence" in note and reason == "Role-playing: <b>像</b>这个角色"


def test_a_number_leads_to_its_dialogues(open_page: Open) -> None:
    tab = open_page()
    tab.page.select_option("#board-metric", "coherency")
    tab.page.locator("#board tbody:not([hidden]) .read").first.click()
    source = tab.text("#board tbody:not([hidden]) th")[0]
    chosen = [tab.page.locator(f"select[name={name}]").input_value() for name in ("source", "metric")]
    assert chosen == [source, "coherency"] and tab.text("#count") == ["36 段对话"]


def test_a_cell_of_a_heat_map_leads_to_the_dialogues_of_its_row(open_page: Open) -> None:
    tab = open_page()
    plot = tab.page.locator("#figure-sources .plot")
    plot.scroll_into_view_if_needed()
    plot.locator(".heatmaplayer image").wait_for(state="attached")
    box = plot.locator(".nsewdrag").bounding_box()
    assert box
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8)
    tab.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8)
    tab.page.wait_for_function("document.querySelector('select[name=source]').value === 'steady'")


def test_the_language_changes_everywhere(open_page: Open) -> None:
    tab = open_page()
    tab.see_all()
    assert tab.page.locator("html").get_attribute("lang") == "zh-CN"
    assert "连贯性" in tab.page.locator("#figure-radar .plot").inner_text()
    tab.page.focus("#language")
    tab.page.keyboard.press("Enter")
    assert tab.page.locator("html").get_attribute("lang") == "en"
    assert "Coherency" in tab.page.locator("#figure-radar .plot").inner_text()
    assert tab.text("#count") == ["72 dialogues"] and tab.text("#systems-title") == ["Systems"]
    assert "Radar" in (tab.page.locator("#figure-radar .plot").get_attribute("aria-label") or "")


def test_the_theme_is_the_systems_until_it_is_switched(open_page: Open) -> None:
    tab = open_page(scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = tab.page.evaluate(ground)
    tab.page.click("#theme")
    assert tab.page.locator("html").get_attribute("data-theme") == "light" and tab.page.evaluate(ground) != dark


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1440, "dark"), (390, "light")])
def test_axe_finds_nothing(open_page: Open, width: int, scheme: str) -> None:
    tab = open_page(width=width, scheme=scheme)
    tab.see_all()
    tab.page.locator(".open").first.click()
    tab.page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    found = Axe().run(tab.page)
    assert found.violations_count == 0, found.generate_report()


def test_hostile_text_is_shown_as_it_is(open_page: Open, tmp_path: Path) -> None:
    run = score(tmp_path, [{**dialogue(text, number), "profile": text} for number, text in enumerate(HOSTILE)])
    tab = open_page(run / "report.html")
    tab.see_all()
    for place in range(len(HOSTILE)):
        tab.page.locator("#list .open").nth(place).click()
    shown = set(tab.page.locator("#list .turn.character").evaluate_all("all => all.map((one) => one.lastChild.data)"))
    assert set(HOSTILE[:-1]) < shown and "[U+202E]gnp.exe[U+202C]" in shown
    names = tab.page.locator("#figure-sources .plot .yaxislayer-above text").all_text_contents()
    assert "s <img src=x oner…" in names
    assert tab.page.locator("main img, main b[onmouseover]").count() == 0
    assert tab.said == []
