"""Two models of a run on one path of weights; none of this needs Gradio."""

import shutil

import jax
import numpy as np
import pytest
from flax import nnx

from mmunlearner_jax.app.pair import END, Pair
from mmunlearner_jax.app.weights_path import WeightsPath
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.stages.unlearn import load_unlearned
from tests.helpers.small_run import prepared_run


@pytest.mark.parametrize("on_host", [False, True])
def test_a_path_has_exact_ends_and_shares_what_did_not_move(on_host):
    before = {"a": jax.numpy.arange(3.0), "b": jax.numpy.float32([1e8, 1e-8, -3])}
    after = {"a": jax.numpy.arange(3.0), "b": jax.numpy.float32([1.0, 0.1, -3])}
    path = WeightsPath(before, after, on_host=on_host)
    assert path.moved == 2 and path.host_bytes == (12 if on_host else 0)
    assert path.at(0) is before
    for _ in range(2):  # there and back again
        assert path.at(1)["b"].tolist() == after["b"].tolist()
        assert path.at(1)["a"] is before["a"]
        halfway = (np.float32(1e8) + 1) / 2, (np.float32(1e-8) + np.float32(0.1)) / 2, -3
        np.testing.assert_allclose(path.at(0.5)["b"], halfway, rtol=1e-6)
        assert path.at(0)["b"].tolist() == before["b"].tolist()


@pytest.fixture(scope="module")
def asked(pair):
    return next(q for q in pair.questions["forget"] if q.options and q.image)


def test_both_ends_answer_as_the_evaluation_does(run, pair, asked):
    answers = pair.session.answerer()
    weights = pair.session.params, load_unlearned(run, pair.session.params)
    said = []
    for place, params in enumerate(weights):
        (line,) = answers.answer(params, [asked], split="forget", label="model")
        answer = pair.ask(place, asked.question, asked.image, asked.options)
        assert answer.text == line["response"]
        options, probabilities = zip(*answer.options, strict=True)
        assert options == asked.options
        scores = np.exp(line["scores"]) / np.sum(np.exp(line["scores"]))
        np.testing.assert_allclose(probabilities, scores, atol=1e-3)
        said.append(answer)
    assert said[0] != said[1] and pair.ask(0.5, asked.question, asked.image) not in said


@pytest.mark.parametrize("pictured", [True, False])
def test_probabilities_of_tokens_are_those_of_the_logits(pair, asked, pictured):
    image = asked.image if pictured else None
    answer = pair.ask(1, "Who is this person?", image)
    encoder, words = pair.session.encoder, answer.text
    model = nnx.merge(pair.session.graphdef, pair.path.at(1))
    prompt = encoder.prompt_ids(encoder.prompt("Who is this person?", pictured), [image] * pictured)
    ids = prompt + pair._words.ids(words) + [encoder.tokenizer.eos_token_id]
    extra = {"pixel_values": encoder.pixels([image])[0][None]} if pictured else {}
    logits = np.asarray(model(input_ids=np.array([ids], np.int32), **extra))[0]
    expected = jax.nn.softmax(logits)[np.arange(len(prompt), len(ids)) - 1, ids[len(prompt) :]]
    np.testing.assert_allclose([t.probability for t in answer.tokens], expected, rtol=1e-4)
    assert answer.tokens[-1].text == END
    assert "".join(t.text for t in answer.tokens[:-1]).strip() == words


def test_the_weights_after_may_lie_on_the_host(run, pair, asked):
    other = Pair.opened(run, on_host=True)
    assert other.path.host_bytes == 4 * pair.path.moved > 0
    for place in (1, 0.25):
        given = place, asked.question, asked.image, asked.options
        assert other.ask(*given) == pair.ask(*given)


def test_examples_that_flip_have_their_photographs(pair):
    flips = pair.flips()
    assert len(flips) == len(pair.questions) and all(flip.lost for flip in flips)
    first = flips[0]
    assert first.question.image == pair.questions[first.split][0].image
    assert first.responses[0] == first.responses[1]


def test_nothing_is_written(run, pair, asked):
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    pair.ask(1, asked.question, asked.image)
    Pair.opened(run).flips()
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_a_run_that_has_not_unlearned_is_one_line(run, tmp_path):
    with pytest.raises(InputError, match="config.json: is missing; give the --workdir of a run"):
        Pair.opened(tmp_path)
    begun = prepared_run(tmp_path / "run")
    shutil.copy(run / "config.json", begun)
    with pytest.raises(InputError, match="unlearned: is missing, and so is export/; give the"):
        Pair.opened(begun)
