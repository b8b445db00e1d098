import io
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from mmunlearner_jax.config import Config
from mmunlearner_jax.data.benchmarks.mllmu import MLLMU, MLLMUBench
from mmunlearner_jax.data.benchmarks.mllmu.schema import PERSON_SCHEMA, TEST_SCHEMA, TRAINING_SCHEMA
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.scores import accuracy, summarise
from mmunlearner_jax.evaluation.tasks import fingerprint
from mmunlearner_jax.reporting.cases import Predictions
from mmunlearner_jax.reporting.figures import heat_maps
from mmunlearner_jax.reporting.run_results import mask_verdict
from mmunlearner_jax.reporting.run_table import print_results
from mmunlearner_jax.reporting.templates import interval
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import report
from tests.helpers.page import Page

NAMES = {"f1": "Alba Fake", "k1": "Boris Fake", "k2": "Cleo Fake"}
EVIL = '<script>alert("no")</script>'
COLOURS = ("red", "green", "blue", "grey")


def picture(shade):
    buffer = io.BytesIO()
    Image.new("L", (23, 28), shade).save(buffer, "png")
    return {"bytes": buffer.getvalue(), "path": f"{shade}.png"}


def profile(person):
    name = NAMES[person]
    choice = {"Options": dict(zip("ABCD", COLOURS, strict=True)), "Correct_Answer": "A"}
    fact = {"Ground_Truth": f"{name} likes red."}
    return {
        "ID": person,
        "Directory": "",
        "biography": json.dumps({"Name": name}),
        "question": "",
        "answer": "",
        "Classification_Task": {
            "Image_Textual_Questions": [choice | {"Question": "What does this person like?"}],
            "Pure_Text_Questions": [choice | {"Question": f"What does {name} like?"}],
        },
        "Mask_Task": [],
        "Generation_Task": [
            fact | {"Question": "Tell me about this person.", "Type": "Image_Textual"},
            fact | {"Question": f"Tell me about {name}.", "Type": "Pure_Text"},
        ],
    }


def write_benchmark(root):
    tests = [profile(p) | {"images": [picture(40), picture(200)]} for p in NAMES]
    known = [profile(p) | {"image": picture(100)} for p in NAMES]
    taught = [{"image": picture(100), "ID": p, "metadata": "[]"} for p in NAMES]
    configs = {
        "Full_Set": (PERSON_SCHEMA, known),
        "forget_33": (PERSON_SCHEMA, known[:1]),
        "retain_67": (PERSON_SCHEMA, known[1:]),
        "Retain_Set": (PERSON_SCHEMA, known[1:]),
        "Test_Set": (TEST_SCHEMA, tests),
        "ft_Data": (TRAINING_SCHEMA, taught),
    }
    for config, (schema, rows) in configs.items():
        (root / config).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema), root / config / "train.parquet")


def predict(question, split, knows):
    choice = question.answer if knows else "grey"
    response = question.answer if knows else f"{EVIL} likes grey."
    record = {
        "split": split,
        "person": question.person,
        "modality": question.modality,
        "task": question.task,
        "question": question.question,
        "answer": question.answer,
        "options": list(question.options),
        "image": question.image and fingerprint(question.image),
        "response": response,
        "rougeL": float(knows),
        "correct": knows,
    }
    return record | ({"choice": choice} if question.options else {})


@pytest.fixture
def config():
    return Config().with_values(
        {
            "stages": ("prepare", "report"),
            "data.forget_ratio": 33,
            "data.text_source": "ft_Data",
            "evaluate.photos_per_person": 2,
        }
    )


@pytest.fixture
def workdir(tmp_path):
    """A finished run: f1 is known before and, from pictures, forgotten after; no controls."""
    write_benchmark(tmp_path / "benchmark")
    asked = MLLMUBench(tmp_path / "benchmark").scored("forget_33", "retain_67")
    del asked["realworld"]
    (tmp_path / "predictions").mkdir()
    results = {"seed": 7, "seconds": {"unlearn": 1.5}}
    for label in ("before", "after"):
        lines = []
        for split, questions in asked.items():
            answered = [
                predict(q, split, label == "before" or q.person != "f1" or q.modality == "qa")
                for q in questions
            ]
            path = tmp_path / f"predictions/{label}-{split}.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in answered))
            lines += answered
        results[label] = summarise(lines)
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path


def add(workdir, **entries):
    path = workdir / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def add_everything(workdir):
    results = json.loads((workdir / "results.json").read_text())
    control = results["after"] | {"unlearn": {"forget_steps": 5}}
    add(
        workdir,
        controls=dict.fromkeys(("no_forget_text", "random_mask", "no_mask", "ga"), control),
        unlearn={"forget_steps": 3, "retain_steps": 9, "remembered": 0.0},
        mask={
            "density": 0.25,
            "by_module": {"vision": 0.5},
            "by_block": {
                "model.vision_tower.encoder.layers.0.mlp.fc1.weight": 0.9,
                "model.vision_tower.encoder.layers.1.mlp.fc1.weight": 0.1,
            },
        },
    )
    metrics = [
        {"stage": "finetune", "step": 1, "loss": 2.0},
        {"stage": "finetune", "step": 2, "loss": 0.2},
        {"stage": "unlearn", "step": 1, "forget_loss": 0.1, "retain_loss": 0.1},
        {"stage": "unlearn", "step": 2, "retain_loss": 0.2, "remembered": 0.5},
        {"stage": "controls/ga", "step": 2, "forget_loss": 77.0},
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))


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
    assert page.all("script") == [] and page.all("link") == []
    assert EVIL in page.text  # as text, not as an element
    images = page.all("img")
    assert all(image["alt"] for image in images)
    kinds = [image["src"].partition(",")[0] for image in images]
    # The example's two faces and the one who is forgotten; the mask and three charts.
    assert sorted(kinds) == ["data:image/svg+xml;base64"] * 4 + ["data:image/webp;base64"] * 3
    assert not re.search(
        r"(src|href)=\W?(http|//)|url\(|@import", (workdir / "report.html").read_text()
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
    charts = [image["alt"] for image in full.all("img") if "ends at" in image["alt"]]
    assert charts == [
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
    print_results(Console(width=200), results)
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
    assert re.search(r"VQA .*100.% → 0.% .* 2 .* 0 – 65\.8.%", row)
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
