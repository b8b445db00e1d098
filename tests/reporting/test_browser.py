"""The browser of answers: what the page holds, and what it does in Chromium."""

import base64
import csv
import gzip
import json

import numpy as np
import pytest

from mmunlearner_jax.data.benchmarks.mllmu import MLLMUBench
from mmunlearner_jax.reporting import browser
from mmunlearner_jax.reporting.cases import Predictions
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import report
from tests.helpers.chromium import check_accessible, chromium, opened
from tests.helpers.finished_run import EVIL, add_everything, write_run


@pytest.fixture(scope="module")
def path(config, tmp_path_factory):
    workdir = write_run(tmp_path_factory.mktemp("run"))
    add_everything(workdir)
    report.run(Session(config, workdir))
    return workdir / "report.html"


@pytest.fixture(scope="module")
def rows(path):
    bench = MLLMUBench(path.parent / "benchmark")
    questions = bench.scored("forget_33", "retain_67")
    return browser.answer_rows(Predictions(path.parent, bench, questions))


@pytest.fixture(scope="module")
def chrome():
    with chromium() as started:
        yield started


def test_every_line_of_the_predictions_is_a_row(path, rows):
    lines = [
        (f"{file.stem.removeprefix('after-')}-{number}", json.loads(line))
        for file in sorted(path.parent.glob("predictions/after-*.jsonl"))
        for number, line in enumerate(file.read_text().splitlines(), 1)
    ]
    assert [(row["id"], row["after"]["response"]) for row in rows] == [
        (name, line["response"]) for name, line in lines
    ]
    choice = next(row for row in rows if row["options"] and row["change"] == "right to wrong")
    weights = np.exp([-1.0 - 2.0 * (option != "grey") for option in choice["options"]])
    assert choice["after"]["probabilities"] == pytest.approx(weights / weights.sum(), abs=1e-4)
    assert choice["before"]["answer"] == "red" and choice["after"]["answer"] == "grey"


def test_the_page_holds_all_rows_compressed_and_equal_rows_give_equal_bytes(path, rows):
    text = browser.packed(rows)
    assert text in path.read_text() and text == browser.packed(rows)
    assert json.loads(gzip.decompress(base64.b64decode(text))) == rows


def test_the_table_without_scripts_has_some_of_each(rows):
    fields = ("split", "asked", "task", "change")
    kinds = {tuple(row[field] for field in fields) for row in rows}
    some = browser.some_of_each(rows, len(kinds))
    assert {tuple(row[field] for field in fields) for row in some} == kinds
    assert browser.some_of_each(rows, 1000) != [] and len(some) == len(kinds)


def shown(page):
    return page.locator("#answer-list details").count()


def unfolded(page):
    """Opens the first answer; what is inside is made by an event that comes later."""
    first = page.locator("#answer-list details").first
    first.locator("summary").click()
    first.locator(".inside").wait_for()
    return first


def test_filters_search_and_the_address(chrome, path, rows):
    with opened(chrome, path) as page:
        page.wait_for_selector("#answer-list details")
        assert shown(page) == min(50, len(rows))
        lost = [row for row in rows if row["change"] == "right to wrong"]
        page.select_option("select[name=change]", "right to wrong")
        assert shown(page) == len(lost) > 0
        assert f"{len(lost)} of {len(rows)} answers" in page.inner_text("#answer-count")
        page.select_option("select[name=split]", "test")
        assert shown(page) == sum(row["split"] == "test" for row in lost)
        assert "change=right+to+wrong" in page.url and "split=test" in page.url
        page.click("#clear")
        page.fill("input[name=search]", "BORIS tell")
        wanted = [r for r in rows if r["person"] == "Boris Fake" and "Tell" in r["question"]]
        assert shown(page) == len(wanted) > 0
        page.fill("input[name=search]", "nowhere to be found")
        assert shown(page) == 0 and page.inner_text("#answer-count").startswith("0 of")


def test_answers_are_text_and_options_have_both_probabilities(chrome, path):
    with opened(chrome, path) as page:
        page.wait_for_selector("#answer-list details")
        page.select_option("select[name=change]", "right to wrong")
        page.select_option("select[name=task]", "generation")
        first = unfolded(page)
        assert EVIL in first.inner_text()
        page.select_option("select[name=task]", "classification")
        first = unfolded(page)
        (line,) = [x for x in first.locator("tbody tr").all_inner_texts() if "grey" in x]
        assert "9.6 %" in line and "71 %" in line


def test_an_address_leads_to_its_row_whatever_is_filtered(chrome, path, rows):
    last = rows[-1]
    with opened(chrome, path) as page:
        page.wait_for_selector("#answer-list details")
        page.select_option("select[name=split]", "forget")
        page.evaluate(f"location.hash = 'row={last['id']}'")
        opened_row = page.wait_for_selector(f"#row-{last['id']}[open] dl")
        assert last["answer"] in opened_row.inner_text()
        assert page.input_value("select[name=split]") == ""
        page.evaluate("location.hash = 'split=nothing&change=stayed+right'")
        page.wait_for_function("document.forms[0].elements.change.value === 'stayed right'")
        assert page.input_value("select[name=split]") == ""


def test_the_csv_has_what_is_filtered(chrome, path, rows, tmp_path):
    with opened(chrome, path) as page:
        page.wait_for_selector("#answer-list details")
        page.select_option("select[name=change]", "right to wrong")
        with page.expect_download() as download:
            page.click("#download")
        download.value.save_as(tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8-sig") as file:
        read = list(csv.DictReader(file))
    wanted = [row for row in rows if row["change"] == "right to wrong"]
    assert [(r["id"], r["after: whole response"]) for r in read] == [
        (row["id"], row["after"]["response"]) for row in wanted
    ]
    choice = next(row for row in read if row["options"])
    assert len(choice["after: probabilities"].split(" | ")) == 4


def test_without_scripts_there_is_a_table(chrome, path, rows):
    with opened(chrome, path, java_script_enabled=False) as page:
        assert page.locator(".some-answers tbody tr").count() == min(200, len(rows))
        assert page.locator(".some-answers").is_visible()
        assert not page.locator("#filters").is_visible()


def test_the_page_is_accessible(chrome, path):
    check_accessible(chrome, path, ready="#answer-list details")
