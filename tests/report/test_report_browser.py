"""The report in a real browser: pointer and keyboard, phone and paper, light and dark, nothing foreign run or fetched."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mind_distill.corpus.read import Corpus
from mind_distill.report.run import write_report
from mind_distill.runs import Run
from tests.browser import asked, faults_of_access, go, open_browser, seen
from tests.conftest import make_lesson
from tests.report.pages import HOSTILE, hostile_run
from tests.report.toy_run import write_lines, write_map, write_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from open_browser(tmp_path_factory.mktemp("profile"))


@pytest.fixture
def rich_run(tmp_path: Path) -> Run:
    """Several visits a problem, a map, an event, formulas, two subjects."""
    lessons = []
    for n in range(1, 7):
        made = make_lesson(n)
        body = f"So $x^2 = {n}$ and \\frac{{1}}{{{n}}} is left."
        text = f"{body}\n\nThe answer is {n + 2}."
        first = replace(made.rationales[0], text=text, body_end=len(body))
        problem = replace(made.problem, subject="geometry" if n % 2 else "algebra", question=f"Number {n}: how many?")
        lessons.append(replace(made, problem=problem, rationales=(first, *made.rationales[1:])))
    run = write_run(tmp_path / "run", Corpus(lessons), steps=18)
    write_map(run.path / "map.json")
    event = {"step": 4, "event": "mode_collapse", "message": "One path is left.", "ids": []}
    write_lines(run.path / "events.jsonl", [event])
    return run


def show(browser: Any, *runs: Run, width: int = 1200, scheme: str = "light") -> None:
    target = Path("report.html").resolve()
    write_report(runs, target)
    go(browser, target.as_uri(), width, scheme)


def place(browser: Any, element: Any) -> Any:
    """The element, scrolled to the middle of the window; the scroll event, which hides tips, has passed."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus?.()", element)
    time.sleep(0.3)
    return element


def test_hostile_page_opens_no_dialog_and_asks_for_nothing(browser: Any, tmp_path: Path) -> None:
    from selenium.common.exceptions import NoAlertPresentException

    run = hostile_run(tmp_path, " ".join(HOSTILE))
    payload = " ".join(HOSTILE)
    points = [{"x": i, "y": i, "label": payload, "id": payload, "text": payload, "run": payload} for i in range(3)]
    write_map(run.path / "map.json", title=payload, note=payload, labels=[payload], points=points)
    show(browser, run)
    for circle in seen(browser, ".points circle"):
        browser.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", circle)
    with pytest.raises(NoAlertPresentException):
        _ = browser.switch_to.alert.text
    assert browser.get_log("browser") == []
    assert not [address for address in asked(browser) if not address.startswith("file:")]
    assert browser.execute_script("return document.scripts.length") == 1


def test_a_line_of_a_megabyte_does_not_widen_the_page(browser: Any, tmp_path: Path) -> None:
    show(browser, hostile_run(tmp_path, "W" * 1_000_000), width=390)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert Path("report.html").stat().st_size < 3_000_000


def test_pointer_and_arrow_keys_read_the_numbers_of_a_figure(browser: Any, rich_run: Run) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    show(browser, rich_run)
    tip = browser.find_element("id", "tip")
    drawing = place(browser, browser.find_element("css selector", ".plots .drawing"))
    assert not tip.is_displayed()
    drawing.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert tip.text.startswith("step 2\nFormal Symbolic: 0.50\nIntuitive: 0.25")
    drawing.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert tip.text.endswith("mode collapse (step 4)")
    drawing.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()
    ActionChains(browser).move_to_element(drawing).perform()
    assert tip.text.startswith("step ")
    spark = place(browser, seen(browser, ".spark")[0])
    spark.send_keys(Keys.ARROW_RIGHT)
    assert tip.text == "step 6\nloss: 1.00\nweight: 50%"
    assert browser.get_log("browser") == []


def test_choosing_filtering_and_searching(browser: Any, rich_run: Run) -> None:
    from selenium.webdriver.support.select import Select

    show(browser, rich_run)
    room = browser.find_element("css selector", ".room")
    assert len(seen(browser, ".question")) == 1
    chooser = Select(room.find_element("css selector", ".chooser select"))
    chooser.select_by_index(2)
    assert [element.text for element in seen(browser, ".question")] == ["Number 3: how many?"]
    room.find_element("css selector", "button[data-move='1']").click()
    assert [element.text for element in seen(browser, ".question")] == ["Number 4: how many?"]
    Select(room.find_element("css selector", "select[data-key=subject]")).select_by_value("geometry")
    assert [option.text for option in chooser.options] == [f"Number {n}: how many?" for n in (1, 3, 5)]
    room.find_element("css selector", "input[type=search]").send_keys("number 5")
    assert [element.text for element in seen(browser, ".question")] == ["Number 5: how many?"]
    assert room.find_element("css selector", ".shown").text == "1 of 6 shown"
    assert len(seen(browser, ".answers tbody tr")) == 10
    browser.find_element("css selector", "input[value=gained]").click()
    assert len(seen(browser, ".answers tbody tr")) == 7
    browser.find_element("css selector", "input[value=all]").click()
    browser.find_element("css selector", ".answers input[type=search]").send_keys("What is 7")
    assert len(seen(browser, ".answers tbody tr")) == 1


def test_a_point_of_the_map_opens_its_problem_and_the_problem_marks_its_points(browser: Any, rich_run: Run) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select

    show(browser, rich_run)
    points = place(browser, browser.find_element("css selector", ".points"))
    circles = points.find_elements("css selector", "circle")
    ActionChains(browser).move_to_element(circles[3]).perform()
    assert browser.find_element("id", "tip").text == "Analogy · student · toy-003\nAsked: toy-003?\nText of toy-003"
    ActionChains(browser).click(circles[3]).perform()
    assert [element.text for element in seen(browser, ".question")] == ["Number 3: how many?"]
    Select(browser.find_element("css selector", ".chooser select")).select_by_index(0)
    assert len(browser.find_elements("css selector", ".points circle.lit")) == 2
    place(browser, points).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ENTER)
    assert [element.text for element in seen(browser, ".question")] == ["Number 2: how many?"]


def test_formulas_are_drawn_and_can_be_read_as_written(browser: Any, rich_run: Run) -> None:
    show(browser, rich_run)
    formula = seen(browser, ".card .formula")[0]
    math = formula.find_element("css selector", "math")
    assert math.find_element("css selector", "msup").size["height"] > 5
    assert math.is_displayed()
    browser.find_element("id", "written").click()
    assert not math.is_displayed()
    shown = "return getComputedStyle(arguments[0], '::before').content"
    assert browser.execute_script(shown, formula) == '"$x^2 = 1$"'


@pytest.mark.parametrize("width", [390, 700, 1200])
def test_nothing_is_wider_than_the_window(browser: Any, rich_run: Run, width: int) -> None:
    show(browser, rich_run, width=width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_theme_follows_the_system_and_can_be_switched(browser: Any, rich_run: Run) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    show(browser, rich_run, scheme="light")
    light = browser.execute_script(ground)
    show(browser, rich_run, scheme="dark")
    assert browser.execute_script(ground) != light
    browser.find_element("id", "theme").click()
    assert browser.execute_script(ground) == light


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_axe_finds_nothing_serious(browser: Any, rich_run: Run, tmp_path: Path, width: int, scheme: str) -> None:
    other = write_run(tmp_path / "other", Corpus([make_lesson(n) for n in range(1, 7)]), method="uniform")
    show(browser, rich_run, other, width=width, scheme=scheme)
    browser.execute_script("document.querySelectorAll('details:not(.shelf)').forEach((one) => { one.open = true; })")
    assert faults_of_access(browser) == []


def test_everything_can_be_reached_with_the_keyboard_alone(browser: Any, rich_run: Run) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    show(browser, rich_run)
    here = "const e = document.activeElement; return e.id || e.className || e.dataset.key || e.type || e.tagName"
    reached = set()
    for _ in range(120):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.add(browser.execute_script(here))
    assert {"skip", "theme", "written", "drawing", "drawing points", "drawing spark", "search", "subject"} <= reached
    assert browser.get_log("browser") == []


def test_without_scripts_and_on_paper_every_section_is_there(browser: Any, rich_run: Run) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, rich_run)
        assert len(seen(browser, ".shelf > summary")) == 6
        assert not seen(browser, ".tools, .chooser, #theme")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    paper = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(paper["data"]) > 20_000
