"""What single attacks do to models, pictures and questions."""

import dataclasses
import io
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from mmunlearner_jax.audit.attacks import ATTACKS
from mmunlearner_jax.audit.attacks.paraphrases import reworded
from mmunlearner_jax.audit.attacks.picture_changes import CHANGES
from mmunlearner_jax.audit.attacks.quantisation import int8, nf4, quantised
from mmunlearner_jax.audit.attacks.relearn_same import shown_photographs
from mmunlearner_jax.audit.attacks.universal_perturbation import perturbed, signed_step
from mmunlearner_jax.audit.averages import mean_of_trials
from mmunlearner_jax.data.clips import changed
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.errors import Diverged, InputError
from mmunlearner_jax.unlearn.steps import mean_loss
from tests.helpers import tiny
from tests.helpers.photographs import photo
from tests.helpers.questions import PICTURES

# The 16 values of NF4, as bitsandbytes has them (create_normal_map).
NF4 = [-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0]
NF4 += [0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]


class Fake:
    """A target that knows the truth about its models: `right(params)` for every question."""

    def __init__(self, session, questions, right):
        self.session, self.questions, self._right = session, questions, right
        self.before, self.put = session.params, []

    def answers(self, params, questions, trial):
        self.put.append((trial, questions))
        right = float(self._right(params))
        return np.array([np.nan if q is None else right for q in questions])

    def rng(self):
        return np.random.default_rng(0)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return tiny.session(tmp_path_factory.mktemp("run"))


def asking(image, person="s"):
    return Question(person, "vqa", "classification", image, "Who is this?", "Kim", ("Kim", "Bo"))


QUESTIONS = [asking(image) for image in dict.fromkeys(s.image for s in PICTURES)]


def trials(name, target, params, **options):
    attack = ATTACKS[name]
    own = attack.options(**options) if attack.options else None
    return dict(attack.run(target, params, own))


def test_int8_has_even_steps_for_each_output():
    kernel = np.random.default_rng(0).normal(size=(2, 96, 5)).astype(np.float32)
    step = np.abs(kernel).max(axis=1, keepdims=True) / 127.5
    rounded = np.asarray(int8(jnp.asarray(kernel)))
    np.testing.assert_allclose(rounded / step, np.rint(rounded / step), atol=1e-4)
    assert np.all(np.abs(rounded - kernel) <= step / 2 * (1 + 1e-4))


def test_nf4_rounds_blocks_of_64_to_bitsandbytes_values():
    kernel = np.random.default_rng(0).normal(size=(128, 6)).astype(np.float32)
    blocks = kernel.T.reshape(12, 64)  # along the inputs
    scales = np.abs(blocks).max(axis=1, keepdims=True)
    values = np.array(NF4)
    nearest = values[np.abs(blocks[..., None] / scales[..., None] - values).argmin(axis=-1)]
    rounded = np.asarray(nf4(jnp.asarray(kernel))).T.reshape(12, 64)
    # The scales less their mean, all in one block here, are rounded to 8 bits.
    step = np.abs(scales - scales.mean()).max() / 127.5
    assert np.all(np.abs(rounded - nearest * scales) <= np.abs(nearest) * step / 2 + 1e-6)
    assert np.abs(rounded - nearest * scales).max() > step / 8
    assert max(len(np.unique(row)) for row in rounded) <= 16
    # A block may hold weights of two outputs, and the last one is filled up.
    odd = np.random.default_rng(1).normal(size=(3, 96, 4)).astype(np.float32)
    assert 0 < np.abs(nf4(jnp.asarray(odd)) - odd).max() < 0.5


def test_kernels_are_rounded_and_nothing_else(session):
    params = session.params
    rounded = quantised(params, lambda x: x + 1)
    for (path, old), new in zip(
        jax.tree.leaves_with_path(params), jax.tree.leaves(rounded), strict=True
    ):
        kernel = "kernel" in jax.tree_util.keystr(path)
        np.testing.assert_array_equal(new, old + 1 if kernel else old)
    assert trials("quantisation", Fake(session, QUESTIONS, lambda _: 1), params).keys() == {
        *("8 bits", "4 bits")
    }


def test_a_changed_projector_that_is_put_back_brings_everything_back(session):
    held, projector = session.split_frozen(session.params, ("vision", "language"))
    changed_params = nnx.merge_state(held, jax.tree.map(lambda x: x + 1, projector))

    def same_projector(params):
        mine = session.split_frozen(params, ("vision", "language"))[1]
        both = zip(*map(jax.tree.leaves, (mine, projector)), strict=True)
        return all(np.array_equal(a, b) for a, b in both)

    target = Fake(session, QUESTIONS, same_projector)
    back = trials("modules_put_back", target, changed_params)
    assert {name: x.mean() for name, x in back.items()} == {
        "vision tower": 0,
        "projector": 1,
        "language model": 0,
    }


def test_pictures_change_as_their_names_say():
    picture = photo(92, 112)
    original = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), float)
    rng = np.random.default_rng(0)
    seen = {
        name: np.asarray(Image.open(io.BytesIO(changed(picture, change, rng))), float)
        for name, change in CHANGES.items()
    }
    np.testing.assert_array_equal(seen["mirrored"], original[:, ::-1])
    assert seen["darker"].mean() == pytest.approx(0.85 * original.mean(), rel=0.02)
    assert seen["less contrast"].std() == pytest.approx(0.85 * original.std(), rel=0.05)
    noise = (seen["noise"] - original)[(original > 30) & (original < 225)]
    assert noise.std() == pytest.approx(0.02 * 255, rel=0.1)
    assert seen["smaller"].shape == (
        round(0.85 * original.shape[0]),
        round(0.85 * original.shape[1]),
        3,
    )
    covered = np.mean(np.all(seen["partly covered"] == 128, axis=2))
    assert covered == pytest.approx(0.18, abs=0.02)
    for name, left in (("cut to 90 %", 0.9), ("cut to 65 %", 0.65)):
        rows = round((1 - left) / 2 * original.shape[0])
        assert seen[name].shape == original.shape
        middle = original[rows : original.shape[0] - rows].mean()
        assert seen[name].mean() == pytest.approx(middle, rel=0.15)
    again = changed(picture, CHANGES["noise"], np.random.default_rng(0))
    assert again == changed(picture, CHANGES["noise"], np.random.default_rng(0))


def test_all_questions_about_a_picture_see_the_same_change(session):
    twice = [QUESTIONS[0], QUESTIONS[0]]
    target = Fake(session, twice, lambda _: 1)
    assert trials("picture_changes", target, session.params).keys() == CHANGES.keys()
    for _, (one, other) in target.put:
        assert one.image == other.image != QUESTIONS[0].image


def test_prompts_keep_the_question(session):
    target = Fake(session, QUESTIONS, lambda _: 1)
    assert len(trials("pressing_prompts", target, session.params)) == len(target.put) == 3
    assert all("Who is this?" in q.question for _, put in target.put for q in put)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_cost_is_what_is_asked(session, monkeypatch, name):
    if name in ("membership", "linear_probe", "logit_lens"):
        pytest.skip("asks in other ways than by `Target.answers`")
    samples = [dataclasses.replace(s, person=person) for person in "stuv" for s in PICTURES]
    monkeypatch.setattr(session, "pictures", lambda _: samples)
    small = {"steps": 1, "batch": 2, "choices": 1, "rates": (1e-3,), "shown": (0.25,)}
    kind = ATTACKS[name].options
    fields = {field.name: field.type for field in dataclasses.fields(kind)} if kind else {}
    own = {key: x for key, x in small.items() if key in fields}
    if "tuple" in str(fields.get("steps")):
        own["steps"] = (1, 2)
    questions = [asking(photo(70, 70), person) for person in "stuv"]
    questions = [dataclasses.replace(q, question="Who is this person?") for q in questions]
    target = Fake(session, questions, lambda _: 1)
    trials(name, target, session.params, **own)
    assert ATTACKS[name].cost(kind(**own) if kind else None).passes == len(target.put)


def test_relearning_shows_one_photograph_and_asks_about_the_others(session):
    rng = np.random.default_rng(0)
    shown = shown_photographs(PICTURES, 1, rng)
    assert len(shown) == 1 and shown < {s.image for s in PICTURES}
    assert len(shown_photographs(PICTURES, 99, rng)) == len(QUESTIONS)
    before = jax.tree.map(np.asarray, session.params)
    target = Fake(session, QUESTIONS, lambda _: 1)
    options = {"steps": (1, 2), "rates": (1e-3, 1e-4), "choices": 2, "batch": 2}
    made = trials("relearn_same", target, session.params, **options)
    assert list(made) == [
        f"{step} steps at {rate}" for rate in ("0.001", "0.0001") for step in (1, 2)
    ]
    assert len(target.put) == 8
    for _, put in target.put:
        assert sum(question is None for question in put) == 1
    for old, kept in zip(*map(jax.tree.leaves, (before, session.params)), strict=True):
        np.testing.assert_array_equal(old, kept)


def test_rates_share_a_program_and_differ_in_what_they_do(session):
    held = []
    target = Fake(session, QUESTIONS, lambda p: held.append(np.asarray(jax.tree.leaves(p)[0])) or 1)
    trials("relearn_retained", target, session.params, steps=(1,), rate=1e-3, batch=2)
    trials("relearn_retained", target, session.params, steps=(1,), rate=1e-2, batch=2)
    moved = [np.abs(x - jax.tree.leaves(session.params)[0]).max() for x in held]
    assert moved[1] == pytest.approx(10 * moved[0], rel=0.1)


def test_other_people_are_shown_whole_and_never_asked(session, monkeypatch):
    samples = [dataclasses.replace(s, person=person) for person in "stuv" for s in PICTURES]
    monkeypatch.setattr(session, "pictures", lambda _: samples)
    questions = [asking(PICTURES[0].image, person) for person in "stuv"]
    target = Fake(session, questions, lambda _: 1)
    options = {"steps": 1, "shown": (0.1, 0.2), "choices": 1, "batch": 2}
    made = trials("relearn_others", target, session.params, **options)
    assert list(made) == ["1 of 4 shown"]  # both fractions come to one person
    assert np.isnan(made["1 of 4 shown"]).sum() == 1
    alone = SimpleNamespace(questions=questions[:1])
    assert "only one person" in ATTACKS["relearn_others"].lacks(alone, None)


def test_means_leave_out_what_was_not_asked():
    trials = [np.array([1, np.nan, np.nan]), np.array([0, 1, np.nan])]
    np.testing.assert_array_equal(mean_of_trials(trials), [0.5, 1, np.nan])


def test_paraphrases_are_at_least_five_and_none_is_known(session, tmp_path):
    wordings = ["Who is this person?", "What is the capital of this country?", "Is it warm?"]
    by_rule = reworded(wordings, "")
    for wording in wordings:
        texts = by_rule[wording]
        assert len({*texts}) == len(texts) >= 4 + ("this" in wording) and not {*texts} & {*wordings}
    assert "Who is the person that you see here?" in by_rule["Who is this person?"]
    file = tmp_path / "words.json"
    file.write_text(json.dumps({"Is it warm?": ["Does the sun shine?"]}))
    from_file = reworded(wordings, str(file))
    assert from_file["Is it warm?"] == ["Does the sun shine?"]
    assert from_file["Who is this person?"] == by_rule["Who is this person?"]
    file.write_text(json.dumps({"Is it warm?": ["Who is this person?"]}))
    with pytest.raises(InputError, match=r"words\.json.*'Who is this person\?' is a question"):
        reworded(wordings, str(file))
    file.write_text(json.dumps({"Is it cold?": ["Does it freeze?"]}))
    with pytest.raises(InputError, match=r"words\.json.*'Is it cold\?' is no question"):
        reworded(wordings, str(file))
    with pytest.raises(InputError, match="is a question that is scored or taught"):
        file.write_text(json.dumps({"Is it warm?": ["How hot is it?"]}))
        reworded(wordings, str(file), ["How hot is it?"])
    file.write_text(json.dumps({"Is it warm?": [3]}))
    with pytest.raises(InputError, match="is no text"):
        reworded(wordings, str(file))
    target = Fake(session, QUESTIONS, lambda _: 1)
    assert list(trials("paraphrases", target, session.params))[0] == "rewording 1"


def test_what_is_written_about_the_person_stands_before_the_question(session):
    target = Fake(session, QUESTIONS, lambda _: 1)
    made = trials("in_context", target, session.params, facts=1)
    assert list(made) == ["other people's answers", "what is written about the person"]
    (_, solved), (_, written) = target.put
    own = [sample.answer for sample in tiny.TEXTS if sample.person == "s"]
    others = [sample.answer for sample in tiny.OTHERS]
    for question in written:
        assert question.question == f"{own[0]} Who is this?"
    assert all(any(answer in q.question for answer in others) for q in solved)


def test_a_perturbation_is_small_and_lowers_the_loss_of_what_it_was_trained_on(session):
    encoder = session.encoder
    image, other = QUESTIONS[0].image, QUESTIONS[1].image
    processor = encoder.processor.image_processor
    mean, std = (np.array(x, np.float32) for x in (processor.image_mean, processor.image_std))
    delta = np.random.default_rng(0).integers(-12, 13, encoder.image(image)[0].shape)
    pixels = encoder.image(image)[0]
    again = encoder.image(perturbed(pixels, delta, mean, std))[0]
    levels = np.rint(
        np.clip((pixels * std[:, None, None] + mean[:, None, None]) * 255 + delta, 0, 255)
    )
    expected = (levels / 255 - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(again, expected, atol=1e-5)

    batch = session.batches(session.pictures("forget"), batch_size=4, pack=1).example()
    step, change = signed_step(session.graphdef, 3), jnp.zeros(pixels.shape)
    for _ in range(5):
        change = step(change, session.params, batch, std)
    assert set(np.unique(change)) <= {*range(-3, 4)} and np.abs(change).max() == 3
    shifted = batch | {"pixel_values": batch["pixel_values"] + change / 255 / std[:, None, None]}
    clean, attacked = (
        float(mean_loss(session.graphdef, session.params, [b])) for b in (batch, shifted)
    )
    assert attacked < clean

    unseen = asking(photo(70, 70))
    target = Fake(session, [asking(image), asking(other), unseen], lambda _: 1)
    made = trials("universal_perturbation", target, session.params, steps=2, batch=2)
    ((_, put),) = target.put
    assert np.isnan(made["12 of 255"]).tolist() == [True, False, False]  # trained on, others
    assert put[2].image not in {image, other, unseen.image}
    alone = Fake(session, [asking(image)], lambda _: 1)
    assert "no unseen photograph" in ATTACKS["universal_perturbation"].lacks(alone, None)


def test_a_rate_at_which_a_model_diverges_makes_no_trial(session, caplog):
    def right(params):
        if np.abs(jax.tree.leaves(params)[0] - jax.tree.leaves(session.params)[0]).max() > 1:
            raise Diverged("its weights are damaged")
        return 1

    target = Fake(session, QUESTIONS, right)
    options = {"steps": (1, 2), "rates": (1e-3, 10.0), "choices": 1, "batch": 2}
    made = trials("relearn_same", target, session.params, **options)
    assert list(made) == ["1 steps at 0.001", "2 steps at 0.001"]
    assert "fine-tuning at 10 ends after 0 steps" in caplog.text
