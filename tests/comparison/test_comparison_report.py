import csv
import json
import re
import shutil

import pytest
from rich.console import Console

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.reporting import comparison_figures, figures
from mmunlearner_jax.reporting.comparison_csv import COLUMNS, WHOLE
from mmunlearner_jax.reporting.comparison_page import write_report
from mmunlearner_jax.reporting.comparison_table import print_result
from mmunlearner_jax.reporting.templates import points
from tests.helpers import synthetic
from tests.helpers.chromium import check_accessible, chromium
from tests.helpers.page import Page

COMMAND = "python -m mmunlearner_jax.compare"


@pytest.fixture(scope="module")
def written(workdir):
    """The report of all cells, with its Markdown."""
    write_report(workdir, markdown=workdir / "docs/results-orl.md", command=COMMAND)
    return workdir


@pytest.fixture(scope="module")
def page(written):
    return Page((written / "report.html").read_text())


def test_page_needs_nothing_from_outside(written, page):
    source = (written / "report.html").read_text()
    assert not re.search(r"(src|href)=\W?(http|//)|url\((?!#)|@import", source)
    assert page.all("script") == [] and page.all("link") == []
    kinds = [image["src"].partition(",")[0] for image in page.all("img")]
    assert kinds == ["data:image/webp;base64"]  # the forgotten person
    # Two ratios' contrasts, paths, relearning, shares, densities.
    assert len(page.all("svg")) == len(page.all("figure")) == 6
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len({*ids})
    assert all(image["alt"] for image in page.all("img"))
    assert all(attrs.get("scope") for attrs in page.all("th"))


def test_page_escapes_answers(page):
    assert synthetic.EVIL in page.text  # as text, not as an element


def test_page_says_what_was_found_and_what_is_missing(page):
    text = " ".join(page.text.split())
    assert "These contrasts were named in the config before the runs" in text
    assert "MMUnlearner, relative importances against gradient difference" in text
    assert "not measured" in text and "at the edge of the grid" in text
    assert "seed 2, 10 % forgotten: Without the forgotten people's text" in text
    assert COMMAND in text and "12 of 12" in text
    assert "no proof that the knowledge is gone" in text


def test_every_row_of_the_csv_is_what_the_cells_say(written):
    with (written / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    wanted = {"ratio": "10", "seed": "1", "variant": "no_mask", "level": "forgotten"}
    wanted |= {"kind": "test_retain/vqa", "metric": "classification"}
    (row,) = [row for row in rows if wanted.items() <= row.items()]
    results = json.loads((written / "seed-1/forget-10/results.json").read_text())
    matched = results["variants"]["no_mask"]["matched"]["forgotten"]["accuracies"]
    people = matched["test_retain/vqa"].values()
    right, n = sum(value * n for value, n in people), sum(n for _, n in people)
    assert float(row["value"]) == pytest.approx(right / n) and int(row["n"]) == n
    assert (row["method"], row["control"]) == ("mmunlearner", "True")
    assert (float(row["learning_rate"]), row["forget_steps"]) == (1e-4, "2.5")
    whole = [r for r in rows if r["kind"] == r["level"] == "" and r["variant"] == "mmunlearner"]
    assert {r["metric"] for r in whole} == {*WHOLE}
    assert {r["method"] for r in rows if r["variant"] == "vanilla"} == {""}
    looks = [r for r in rows if r["level"] == "look" and r["variant"] == "ga" and r["seed"] == "0"]
    assert {r["forget_steps"] for r in looks} == {"0", "1", "2", "3"}


def test_markdown_is_one_screen_with_figures_beside_it(written):
    folder = written / "docs"
    text = (folder / "results-orl.md").read_text()
    assert f"Written by `{COMMAND}` on" in text and "Seeds 0, 1, 2" in text
    assert "**Primary contrast, named beforehand.**" in text and "detect" in text
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    names = ("paths", "relearning", "shares")
    assert pictures == [f"results-orl-{name}.svg" for name in names]
    assert "unseen photographs, after 40 relearning steps ↓ |" in text
    assert re.search(r"\| \d+\.\d ± \d+\.\d \([+−]\d+\.\d ± \d+\.\d\) \|", text)
    assert all((folder / name).read_text().startswith("<svg") for name in pictures)
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4  # accuracies and secondary contrasts of two ratios
    for table in tables:
        assert len({line.count("|") for line in table.strip().splitlines()}) == 1, table


def test_terminal_shows_the_main_result(found, capsys):
    print_result(Console(width=200), found)
    out = " ".join(capsys.readouterr().out.split())
    assert "10 % of people forgotten" in out and "IdkNLL" in out and "(end)" in out
    assert "primary: MMUnlearner, relative importances against random mask" in out
    assert "Missing: seed 2, 10 % forgotten" in out


def test_figures_are_the_same_bytes_again(found):
    for draw in (comparison_figures.paths, comparison_figures.shares):
        assert figures.svg(draw(found, 10)) == figures.svg(draw(found, 10))
    assert "date" not in figures.svg(figures.densities(found.blocks(10)))


def test_one_seed_with_one_variant_is_reported(benchmark, tmp_path, capsys):
    knows = {"mmunlearner": synthetic.KNOWS["mmunlearner"]}
    synthetic.write(tmp_path, benchmark, seeds=(0,), ratios=(5,), knows=knows)
    write_report(tmp_path, markdown=tmp_path / "results.md", command=COMMAND)
    page = Page((tmp_path / "report.html").read_text())
    assert "There is one seed: nothing can be called a difference" in page.text
    assert "not measured" in page.text
    assert "What they answer" not in page.text  # there is nothing before
    assert f"Report: {tmp_path / 'report.html'}" in capsys.readouterr().out


def test_two_people_have_no_interval_over_people(benchmark, tmp_path):
    knows = {name: synthetic.KNOWS[name] for name in ("gold", "mmunlearner", "random_mask", "ga")}
    synthetic.write(tmp_path, benchmark, ratios=(5,), knows=knows)
    write_report(tmp_path, markdown=tmp_path / "results.md", command=COMMAND)
    assert "have an interval over seeds alone" in (tmp_path / "results.md").read_text()


def test_a_method_that_diverged_is_said_and_paths_are_printed_as_they_are(
    benchmark, tmp_path, capsys
):
    workdir = tmp_path / "[red]a :smile: \x1b[31m"
    knows = {name: synthetic.KNOWS[name] for name in ("vanilla", "mmunlearner", "ga")}
    synthetic.write(workdir, benchmark, seeds=(0,), ratios=(5,), knows=knows)
    folder = workdir / "seed-0/forget-5"
    for path in folder.glob("compare/predictions/ga-*"):
        path.unlink()
    results = json.loads((folder / "results.json").read_text())
    told = {"method": None, "control": False, "learning_rate": None, "diverged": True}
    results["variants"] |= {"ga": told, "[bold]evil\x1b": told}
    (folder / "results.json").write_text(json.dumps(results))
    write_report(workdir, markdown=workdir / "results.md", command=COMMAND)
    page, printed = (workdir / "report.html").read_text(), capsys.readouterr().out
    assert "Gradient ascent, which diverged" in page
    assert "Gradient ascent, which diverged" in printed
    assert "[bold]evil" in printed and "\x1b" not in printed
    assert r"[red]a :smile: \x1b[31m" in printed
    assert not {"nan", "inf"} & {*re.findall(r"\w+", (workdir / "results.md").read_text())}


def test_a_benchmark_that_is_gone_is_an_input_error(workdir, tmp_path):
    shutil.copytree(workdir / "seed-0", tmp_path / "seed-0")
    for path in tmp_path.glob("seed-0/*/config.json"):
        config = json.loads(path.read_text())
        config["data"]["benchmark"] = str(tmp_path / "gone")
        path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="gone is missing"):
        write_report(tmp_path, command=COMMAND)


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.123, "+12.3"), (-0.5, "\u221250.0"), (-1e-9, "+0.0")]
)
def test_points(fraction, text):
    assert points(fraction) == text


def test_the_page_is_accessible(written):
    with chromium() as browser:
        check_accessible(browser, written / "report.html")
