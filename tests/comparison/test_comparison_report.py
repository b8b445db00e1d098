import csv
import json
import re
import shutil

import numpy as np
import pytest
from rich.console import Console

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.reporting import comparison_figures, figures
from mmunlearner_jax.reporting.comparison_csv import COLUMNS
from mmunlearner_jax.reporting.comparison_page import points, write_report
from mmunlearner_jax.reporting.comparison_table import print_result
from mmunlearner_jax.reporting.tradeoff import trade_off
from tests.helpers import synthetic
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
    assert not re.search(r"(src|href)=\W?(http|//)|url\(|@import", source)
    assert page.all("script") == [] and page.all("link") == []
    kinds = [image["src"].partition(",")[0] for image in page.all("img")]
    assert kinds.count("data:image/webp;base64") == 1  # the forgotten person
    assert kinds.count("data:image/svg+xml;base64") == 5
    assert all(image["alt"] for image in page.all("img"))
    assert all(attrs.get("scope") for attrs in page.all("th"))


def test_page_escapes_answers(page):
    assert synthetic.EVIL in page.text  # as text, not as an element


def test_page_says_what_was_found_and_what_is_missing(page):
    text = " ".join(page.text.split())
    assert "does not separate from its simplest controls" in text
    assert "Better than Gradient ascent" in text and "No difference shown from" in text
    assert "seed 2, 10 % forgotten: Without the forgotten people's text" in text
    assert COMMAND in text and "12 of 12" in text
    assert "no proof that the knowledge is gone" in text


def test_every_row_of_the_csv_is_what_the_lines_say(written):
    with (written / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    wanted = {"ratio": "10", "seed": "1", "variant": "no_mask", "split": "test_retain"}
    wanted |= {"modality": "vqa", "metric": "classification"}
    (row,) = [row for row in rows if wanted.items() <= row.items()]
    path = written / "seed-1/forget-10/compare/predictions/no_mask-test_retain.jsonl"
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    right = [
        x["correct"] for x in lines if x["task"] == "classification" and x["modality"] == "vqa"
    ]
    assert float(row["value"]) == pytest.approx(np.mean(right)) and int(row["n"]) == len(right)
    assert (row["method"], row["control"]) == ("mmunlearner", "True")
    assert (float(row["learning_rate"]), row["forget_steps"]) == (1e-4, "4")
    whole = [r for r in rows if r["split"] == "" and r["variant"] == "mmunlearner"]
    assert {r["metric"] for r in whole} == {"seconds", "density", "perplexity"}
    assert {r["method"] for r in rows if r["variant"] == "vanilla"} == {""}


def test_markdown_has_tables_and_figures_beside_it(written):
    folder = written / "docs"
    text = (folder / "results-orl.md").read_text()
    assert f"Written by `{COMMAND}` on" in text and "Seeds 0, 1, 2" in text
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert pictures == ["results-orl-tradeoff.svg", "results-orl-points.svg"]
    assert all((folder / name).read_text().startswith("<svg") for name in pictures)
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 6  # accuracies, differences and settings of two ratios
    for table in tables:
        assert len({line.count("|") for line in table.strip().splitlines()}) == 1, table
        assert len(table.strip().splitlines()) > 8


def test_terminal_shows_the_main_result(found, capsys):
    print_result(Console(), found)
    out = " ".join(capsys.readouterr().out.split())
    assert "10 % forgotten" in out and "IdkNLL" in out and "wins" in out
    assert "Missing: seed 2, 10 % forgotten" in out


def test_figures_are_the_same_bytes_again(found):
    for draw in (trade_off, comparison_figures.grid_points):
        assert figures.svg(draw(found, 10)) == figures.svg(draw(found, 10))
    assert "date" not in figures.svg(figures.densities(found.blocks(10)))


def test_one_seed_with_one_variant_is_reported(benchmark, tmp_path, capsys):
    knows = {"mmunlearner": synthetic.KNOWS["mmunlearner"]}
    synthetic.write(tmp_path, benchmark, seeds=(0,), ratios=(5,), knows=knows)
    write_report(tmp_path, markdown=tmp_path / "results.md", command=COMMAND)
    page = Page((tmp_path / "report.html").read_text())
    assert "nothing here tells what the mask contributes" in page.text
    assert "There is one seed, so nothing is called a difference" in page.text
    assert "Paired differences" not in page.text  # there is nothing to compare with
    assert "What they answer" not in page.text  # there is nothing before
    assert f"Report: {tmp_path / 'report.html'}" in capsys.readouterr().out


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
    told = results["variants"]["ga"] | {"learning_rate": None, "points": [], "diverged": [1e-4]}
    del told["unlearn"], told["perplexity"]
    results["variants"] |= {"ga": told, "[bold]evil\x1b": told}
    (folder / "results.json").write_text(json.dumps(results))
    write_report(workdir, markdown=workdir / "results.md", command=COMMAND)
    page, printed = (workdir / "report.html").read_text(), capsys.readouterr().out
    assert "Gradient ascent, which diverged at every learning rate" in page
    assert "Gradient ascent, which diverged at every learning rate" in printed
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
