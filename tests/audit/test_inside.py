"""What attacks read inside a model: probes, the logit lens, membership, and samples in order."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mmunlearner_jax.audit import traces
from mmunlearner_jax.audit.attack import Attack, Cost
from mmunlearner_jax.audit.attacks import ATTACKS, membership
from mmunlearner_jax.audit.attacks.linear_probe import hidden_states, parts, probed
from mmunlearner_jax.audit.attacks.logit_lens import lens, opening
from mmunlearner_jax.audit.attacks.membership import (
    gradient_norms,
    least,
    likelier,
    token_values,
)
from mmunlearner_jax.audit.per_sample import per_sample
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.models.packing import IGNORE
from tests.helpers import tiny
from tests.helpers.photographs import photo
from tests.helpers.questions import PICTURES

PEOPLE = [f"p{n}" for n in range(6)]
# Six people with four photographs each, two questions about each photograph.
ASKED = [
    Question(person, "vqa", "classification", f"{person}/{n}".encode(), wording, f"{person[1]}{w}")
    for person in PEOPLE
    for n in range(4)
    for w, wording in enumerate(("Who is this?", "What is the job?"))
]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    made = tiny.session(tmp_path_factory.mktemp("run"))
    return made


def probe_accuracy(features, questions=ASKED):
    part = parts(questions, 4, np.random.default_rng(0))
    rights = probed(features, questions, part, 1.0)
    assert not np.isnan(rights).any()
    return rights.mean()


def test_a_planted_linear_code_is_found_and_a_shuffled_one_is_not():
    rng = np.random.default_rng(0)
    codes = {person: rng.normal(size=16) for person in PEOPLE}
    noise = 0.3 * rng.normal(size=(len(ASKED), 16))
    planted = np.array([codes[q.person] for q in ASKED]) + noise
    assert probe_accuracy(planted) > 0.95
    assert probe_accuracy(rng.permutation(planted)) < 0.45  # chance is 1 / 6
    # Options of which only one is ever an answer do not help.
    shown = [dataclasses.replace(q, options=(q.answer, "other")) for q in ASKED]
    assert probe_accuracy(rng.permutation(planted), shown) < 0.45


def test_no_photograph_is_trained_on_and_asked_about():
    part = parts(ASKED, 4, np.random.default_rng(0))
    by_picture = {}
    for question, own in zip(ASKED, part, strict=True):
        by_picture.setdefault(question.image, set()).add(own)
    assert all(len(of) == 1 for of in by_picture.values())
    for person in PEOPLE:
        assert {own for q, own in zip(ASKED, part, strict=True) if q.person == person} == {
            *range(4)
        }
    # A code of the photograph instead of the person tells nothing about other photographs.
    rng = np.random.default_rng(1)
    codes = {q.image: rng.normal(size=64) for q in ASKED}
    assert probe_accuracy(np.array([codes[q.image] for q in ASKED])) < 0.45


def test_what_no_other_photograph_teaches_is_not_asked():
    alone = dataclasses.replace(ASKED[0], person="p7", answer="7")
    own_words = dataclasses.replace(ASKED[0], question="Which name?")
    questions = [*ASKED, alone, own_words]
    part = parts(questions, 4, np.random.default_rng(0))
    rights = probed(np.random.default_rng(0).normal(size=(50, 4)), questions, part, 1.0)
    assert np.flatnonzero(np.isnan(rights)).tolist() == [48, 49]


def test_values_of_samples_come_in_their_order(session):
    samples = session.pictures("forget") * 30  # more than one batch, the last one partly filled
    marks = np.arange(len(samples), dtype=np.float32)
    size = session.config.evaluate.decode.batch_size
    assert size < len(samples) and len(samples) % size
    program = jax.jit(lambda _, batch: (batch["mark"], jnp.sum(batch["attention_mask"], axis=1)))
    seen, lengths = per_sample(session, None, samples, program, beside={"mark": marks})
    np.testing.assert_array_equal(seen, marks)
    wanted = [len(session.answers.labelled(sample).input_ids) for sample in samples]
    np.testing.assert_array_equal(lengths, wanted)


def test_the_lens_ranks_what_the_head_says_at_each_depth(session):
    whole, before = opening(session.answers, PICTURES[0], "It is")
    assert whole.answer == f"It is {PICTURES[0].answer}"
    labels = [token for token in session.answers.labelled(whole).labels if token != IGNORE]
    assert session.answers.tokenizer.decode(labels[:before]).strip() == "It is"
    ranks, gains = per_sample(
        session,
        session.params,
        [whole],
        lens(session.graphdef),
        beside={"opening": np.array([before], np.int32)},
        axis=1,
    )
    batch = session.batches([whole], batch_size=1, pack=1).example()
    place = np.flatnonzero(batch["labels"][0] != IGNORE)[before]
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "answer_places")}
    model = nnx.merge(session.graphdef, session.params)
    logits = model.over_depth(lambda x, head: head(x[:, place - 1 : place])[0, 0], **inputs)
    likely = np.asarray(jax.nn.softmax(logits))
    token = batch["labels"][0, place]
    np.testing.assert_array_equal(ranks[:, 0], np.sum(likely > likely[:, [token]], axis=1))
    steps = np.diff(likely, axis=0)
    np.testing.assert_array_equal(gains[:, 0], np.sum(steps > steps[:, [token]], axis=1))
    assert opening(session.answers, PICTURES[0], "") == (PICTURES[0], 0)


def test_hidden_states_are_those_of_the_picture_and_of_the_prompts_end(session):
    image = session.encoder.processor.image_token_id
    batch = session.batches([PICTURES[0]], batch_size=1, pack=1).example()
    pictures, ends = hidden_states(session.graphdef)(session.params, batch)
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "answer_places")}
    model = nnx.merge(session.graphdef, session.params)
    states = np.asarray(model.over_depth(lambda x, _: x[0], **inputs))
    here = batch["input_ids"][0] == image
    np.testing.assert_allclose(pictures[:, 0], states[:, here].mean(axis=1), rtol=1e-5, atol=1e-6)
    first = np.flatnonzero(batch["labels"][0] != IGNORE)[0]
    np.testing.assert_allclose(ends[:, 0], states[:, first - 1], rtol=1e-5, atol=1e-6)


def test_min_k_plus_plus_is_its_formula(session):
    """Against NumPy, from the logits of the whole model."""
    batch = session.batches(PICTURES[:3], batch_size=3, pack=1, shuffle=False).example()
    own, normalised, there = token_values(session.graphdef)(session.params, batch)
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "answer_places")}
    logits = np.asarray(nnx.merge(session.graphdef, session.params)(**inputs), np.float64)
    for row, labels in enumerate(batch["labels"]):
        places = np.flatnonzero(labels != IGNORE)
        ours = []
        for place in places:
            log_probs = logits[row, place - 1] - np.log(np.exp(logits[row, place - 1]).sum())
            probs = np.exp(log_probs)
            mean = (probs * log_probs).sum()
            deviation = np.sqrt((probs * log_probs**2).sum() - mean**2)
            ours.append((log_probs[labels[place]], (log_probs[labels[place]] - mean) / deviation))
        wanted = np.array(ours).T
        np.testing.assert_allclose(own[row][there[row]], wanted[0], rtol=1e-5)
        np.testing.assert_allclose(normalised[row][there[row]], wanted[1], rtol=1e-4, atol=1e-5)
        count = max(1, int(0.4 * len(places)))
        np.testing.assert_allclose(
            least(np.asarray(own), np.asarray(there), 0.4)[row],
            np.sort(wanted[0])[:count].mean(),
            rtol=1e-5,
        )


def test_the_norm_is_that_of_each_rows_own_gradient(session):
    batch = session.batches(PICTURES[:2], batch_size=2, pack=1, shuffle=False).example()
    norms = gradient_norms(session.graphdef)(session.params, batch)
    for row in range(2):
        one = {k: v[row : row + 1] for k, v in batch.items()}
        inputs = {k: v for k, v in one.items() if k not in ("labels", "answer_places")}

        def loss(params, one=one, inputs=inputs):
            logits = nnx.merge(session.graphdef, params)(**inputs)[:, :-1]
            labels = one["labels"][:, 1:]
            nll = optax.softmax_cross_entropy_with_integer_labels(logits, np.maximum(labels, 0))
            return jnp.mean(nll, where=labels != IGNORE)

        wanted = optax.tree.norm(jax.jit(jax.grad(loss))(session.params))
        assert norms[row] == pytest.approx(float(wanted), rel=1e-4)


def test_identical_members_and_others_cannot_be_told_apart():
    scores = np.random.default_rng(0).normal(size=50)
    assert likelier(scores, scores) == 0.5
    assert likelier(scores + 10, scores) == 1 and likelier(scores - 10, scores) == 0


class Fake:
    """A target that asks about a taught photograph and an unseen one."""

    def __init__(self, session):
        self.session, self.before = session, session.params
        self.questions = [
            Question("s", "vqa", "classification", image, "Who is this?", "Kim", ("Kim", "Bo"))
            for image in (PICTURES[0].image, photo(70, 70), photo(80, 70))
        ]

    def stems(self, params):
        return ["", "It is", "It"]

    def rng(self):
        return np.random.default_rng(0)


def trials(name, target, **options):
    attack = ATTACKS[name]
    assert not attack.lacks(target, attack.options(**options))
    return dict(attack.run(target, target.before, attack.options(**options)))


def test_attacks_inside_answer_every_question_or_none(session):
    target = Fake(session)
    found = trials("logit_lens", target)
    assert list(found) == ["any layer", "differences of layers"]
    assert all(np.isin(values, (0, 1)).all() for values in found.values())
    everything = session.model.config.text.vocab_size
    assert trials("logit_lens", target, top=everything)["any layer"].tolist() == [1, 1, 1]
    shares = trials("membership", target)
    assert list(shares) == ["loss", "Min-K", "Min-K++", "gradient norm"]
    for values in shares.values():
        assert np.isnan(values).tolist() == [False, True, True] and 0 <= values[0] <= 1
    other = dataclasses.replace(target.questions[2], person="t", answer="Bo")
    target.questions += [other, dataclasses.replace(other, image=photo(9, 8))]
    probes = trials("linear_probe", target, folds=2)
    assert list(probes) == ["projector", "layer 1", "layer 2"]


def test_what_is_remembered_counts_as_a_member_by_every_score(session, monkeypatch):
    """The taught photograph has the likelier answer, and the smaller gradient."""
    target, seen = Fake(session), []

    def scores(_, params, samples, program, **rest):
        seen.append(list(samples))
        taught = np.array([sample.image == PICTURES[0].image for sample in samples])
        if program is gradient_norms(session.graphdef):
            return np.where(taught, 0.1, 5.0)
        values = np.where(taught, -0.1, -5.0)[:, None].repeat(4, axis=1)
        return values, values, np.ones(values.shape, bool)

    monkeypatch.setattr(membership, "per_sample", scores)
    for name, shares in trials("membership", target).items():
        assert shares[0] == 1, name
    taught = [s for s in session.pictures("forget") if s.image == PICTURES[0].image]
    assert seen[0] == seen[1] and len(seen[0]) == 3 * len(taught)
    for n, sample in enumerate(taught):
        assert seen[0][3 * n] == sample  # then the same text beside the two unseen photographs
        texts = {(s.question, s.answer) for s in seen[0][3 * n : 3 * n + 3]}
        assert texts == {(sample.question, sample.answer)}


def test_attacks_inside_say_what_they_lack(session):
    target = Fake(session)
    probe = ATTACKS["linear_probe"]
    assert "tells people apart" in probe.lacks(target, probe.options())
    target.questions = target.questions[1:2]
    assert "nobody has a photograph that was taught" in ATTACKS["membership"].lacks(target, None)
    target.questions = [dataclasses.replace(q, options=()) for q in target.questions]
    assert "multiple choice" in ATTACKS["logit_lens"].lacks(target, None)


MEMBERSHIP = Attack("", "", lambda *_: iter(()), lambda _: Cost(1), guess=0.5)


def result(before, after, gold=None):
    people = [f"p{n // 10}" for n in range(60)]
    rng = np.random.default_rng(0)
    models = {"before": before, "after": after} | ({} if gold is None else {"gold": gold})
    made = {m: {"loss": np.clip(rng.normal(share, 0.03, 60), 0, 1)} for m, share in models.items()}
    return traces.entry(people, made, MEMBERSHIP)


def test_a_trace_is_the_distance_of_the_auc_from_one_half():
    same = traces.entry(
        ["p", "q"], {m: {"loss": np.array([0.9, 0.8])} for m in ("before", "after")}, MEMBERSHIP
    )
    assert same["recovered"] == 1 and same["before"]["score"] == pytest.approx(0.3)
    left = result(0.95, 0.7, 0.5)
    assert left["recovered"] == pytest.approx(0.2 / 0.45, abs=0.1)
    assert left["verdict"] == "taught photographs are told apart: a trace is left"
    # Below one half members are told apart, too: unlearning made them too unlikely.
    assert "a trace is left" in result(0.95, 0.2, 0.5)["verdict"]
    assert "a trace is left" in result(0.95, 0.2)["verdict"]
    # As far from one half as gold, but on the other side.
    assert "a trace is left" in result(0.95, 0.2, 0.8)["verdict"]
    assert result(0.95, 0.7, 0.7)["verdict"] == "no more trace than gold's"
    assert result(0.95, 0.5, 0.5)["verdict"] == "no more trace than gold's"
    assert result(0.95, 0.5)["verdict"] == "no trace is left"
    assert "before unlearning either" in result(0.5, 0.5)["verdict"]
    assert left["back"] / left["lost"]["value"] == pytest.approx(left["recovered"])
