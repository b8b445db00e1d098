import json
import re

import pytest
from rich.console import Console

from mmunlearner_jax.data.benchmarks.mllmu import MLLMU, MLLMUBench
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.scores import accuracy
from mmunlearner_jax.evaluation.tasks import fingerprint
from mmunlearner_jax.reporting.cases import Predictions
from mmunlearner_jax.reporting.figures import heat_maps
from mmunlearner_jax.reporting.run_results import mask_verdict
from mmunlearner_jax.reporting.run_table import print_results
from mmunlearner_jax.reporting.templates import interval
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import report
from tests.helpers.finished_run import EVIL, add, add_everything
from tests.helpers.page import Page


def render(config, workdir):
    report.run(Session(config, workdir))
    return Page((workdir / "report.html").read_text())


def test_a_path_is_printed_as_it_is(config, workdir, capsys):
    named = workdir.rename(workdir.with_name("[red]a :smile: \x1b[31m"))
    render(config, named)
    printed = capsys.readouterr().out
    assert r"[red]a :smile: \x1b[31m" in printed and "\x1b" not in printed


def test_page_needs_nothing_from_outside_and_escapes_responses(config, workdir):
    add_everything(workdir)
    page = render(config, workdir)
    kinds = [script.get("type") for script in page.all("script")]
    assert kinds == ["application/json", "application/gzip;base64", None] and not page.all("link")
    (policy,) = [x["content"] for x in page.all("meta") if "http-equiv" in x]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert EVIL in page.text  # as text, not as an element
    images = page.all("img")
    assert all(image["alt"] for image in images)
    kinds = [image["src"].partition(",")[0] for image in images]
    # The example's two faces and the one who is forgotten; the mask and three charts.
    assert kinds == ["data:image/webp;base64"] * 3
    figures = [x for x in page.all("figure") if x["aria-label"].startswith("Figure: ")]
    assert len(figures) == len(page.all("svg")) == 4
    assert {(x["tabindex"], x["role"]) for x in figures} == {("0", "region")}
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len({*ids})
    assert not re.search(
        r"(src|href)=\W?(http|//)|url\((?!#)|@import", (workdir / "report.html").read_text()
    )
    assert all(attrs.get("scope") for attrs in page.all("th"))


def test_examples_show_the_face_its_twin_in_words_and_somebody_else(config, workdir):
    page = render(config, workdir)
    assert "2 of 2 such questions went from right to wrong." in page.text
    assert "1 of 1 such questions were right and stayed right." in page.text
    assert "4 of 4 such questions were right and stayed right." in page.text
    assert page.text.count("Alba Fake likes red.") >= 4
    assert "Photograph of Boris Fake, not used in training" in [i["alt"] for i in page.all("img")]


def test_photographs_are_found_where_the_model_could_not_see_all(workdir):
    for label in ("before", "after"):
        path = workdir / f"predictions/{label}-test.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[2:]))
    bench = MLLMUBench(workdir / "benchmark")
    cases = Predictions(workdir, bench, bench.scored("forget_33", "retain_67")).cases["test"]
    assert {case.photo and fingerprint(case.photo) for case in cases} == {
        case.before["image"] for case in cases
    }


def test_sections_without_data_disappear(config, workdir):
    optional = ("Is it the mask?", "Where the mask is open", "Learning and forgetting")
    bare = render(config, workdir)
    assert [title for title in optional if title in bare.text] == []
    assert "so what the mask contributes is unknown" in bare.text
    add_everything(workdir)
    full = render(config, workdir)
    assert [title for title in optional if title not in full.text] == []
    assert (
        "does not show that the mask, rather than the alternation of steps, has an effect"
        in full.text
    )
    charts = [x["aria-label"] for x in full.all("figure") if "ends at" in x["aria-label"]]
    assert [chart.removeprefix("Figure: ") for chart in charts] == [
        "Learning: loss: loss ends at 0.2",
        "Unlearning: loss: forget ends at 0.1, retain ends at 0.2",  # none of the controls
        "Training answers still remembered: fraction ends at 0.5",
    ]


def test_answers_with_the_right_word_are_shown(config, workdir, capsys):
    def page(config):
        render(config, workdir)
        return (workdir / "report.html").read_text()

    assert "with the right word" not in page(config)
    results = json.loads((workdir / "results.json").read_text())
    for label, right in (("before", True), ("after", False)):
        results[label]["forget"]["vqa"]["right"] = accuracy([right, right])
    add(workdir, **results)
    assert "Free answers with the right word" in page(config) and "AT&amp;T/ORL" in page(config)
    assert "AT&amp;T/ORL" not in page(config.with_values({"prepare.benchmark": "flags"}))
    capsys.readouterr()
    print_results(Console(width=200), results, config.report)
    (row,) = [line for line in capsys.readouterr().out.splitlines() if " right " in line]
    assert "100 % → 0 %" in row.replace("\u00a0", " ")


def test_page_says_what_it_cannot_claim(config, workdir):
    page = render(config, workdir)
    assert "no proof that the knowledge is gone" in page.text
    assert "names and all facts about them are invented" in page.text
    assert "AT&T" in page.text
    config = config.with_values({"data.benchmark": str(workdir / "benchmark")})
    assert "AT&T" not in render(config, workdir).text


def test_terminal_table_has_change_n_and_interval(config, workdir, capsys):
    add_everything(workdir)
    report.run(Session(config, workdir))
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if "test " in line and "classification" in line)
    assert re.search(r"VQA .*100.% → 0.% +2 +0 – 65\.8.%", row)
    assert "random" in out and "rather than the alternation" in " ".join(out.split())


def test_run_without_evaluation_is_an_input_error(config, tmp_path):
    with pytest.raises(InputError, match="results.json.*run the stages unlearn and evaluate"):
        report.run(Session(config, tmp_path))


def scores(low, high, split="forget", modality="qa"):
    score = {"value": (low + high) / 2, "n": 9, "ci95": [low, high]}
    return {split: {modality: {"classification": score}}}


@pytest.mark.parametrize(
    ("random_mask", "no_mask", "claims", "words"),
    [
        ((0.8, 1.0), (0.8, 1.0), False, "the intervals overlap on every row"),
        ((0.2, 0.5), (0.8, 1.0), False, "better on “forgotten people, in words”"),
        ((0.2, 0.5), (0.1, 0.4), True, "mask itself has an effect on “forgotten people, in words”"),
    ],
)
def test_verdict_needs_both_comparisons(random_mask, no_mask, claims, words):
    own = scores(0.7, 0.9)
    controls = {"random_mask": scores(*random_mask), "no_mask": scores(*no_mask)}
    verdict = mask_verdict(own, controls, MLLMU.kinds)
    assert words in verdict
    assert ("rather than the alternation" not in verdict) == claims


def test_verdict_claims_nothing_where_something_is_worse():
    faces = ("forget", "vqa")
    own = scores(0.7, 0.9) | {"test": scores(0.6, 0.9, "test", "vqa")["test"]}
    rival = scores(0.1, 0.4) | {"test": scores(0.1, 0.4, "test", "vqa")["test"]}
    verdict = mask_verdict(own, {"random_mask": rival, "no_mask": rival}, MLLMU.kinds)
    assert "better on “forgotten people, in words”" in verdict
    assert "worse on “forgotten people, unseen photographs”" in verdict
    assert "does not show that the mask" in verdict
    assert mask_verdict(scores(0.1, 0.2, *faces), {}, MLLMU.kinds).startswith("There is no run")


def test_heat_map_has_layers_and_leaves_out_what_is_closed():
    maps = heat_maps(
        {
            "model.vision_tower.encoder.layers.0.mlp.fc1.weight": 0.5,
            "model.vision_tower.encoder.layers.0.mlp.fc1.bias": 0.0,
            "model.language_model.layers.0.mlp.up_proj.weight": 0.0,
            "model.language_model.layers.1.mlp.up_proj.weight": 0.25,
            "model.multi_modal_projector.linear_1.weight": 1.0,
            "lm_head.weight": 0.0,
        }
    )
    assert maps == {
        "vision_tower": {"mlp.fc1": {"0": 0.5}},
        "language_model": {"mlp.up_proj": {"0": 0.0, "1": 0.25}},
        "multi_modal_projector": {"linear_1": {".": 1.0}},
    }


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0.26, 0.381, "26 – 38.1\u00a0%"), (0.975, 1.0, "97.5 – 100\u00a0%"), (1.0, 1.0, "all equal")],
)
def test_interval_text(low, high, text):
    assert interval({"ci95": [low, high]}) == text
