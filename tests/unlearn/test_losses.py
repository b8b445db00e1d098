"""The losses of the methods against plain loops over examples, in NumPy and torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from scipy.special import log_softmax

from mmunlearner_jax.models import logits
from mmunlearner_jax.models.packing import answer_places
from mmunlearner_jax.unlearn.losses import (
    OF_EXAMPLES,
    OF_TOKENS,
    TokenScores,
    cross_entropy,
    score_tokens,
)
from mmunlearner_jax.unlearn.losses import mean as mean_of_terms
from mmunlearner_jax.unlearn.methods.kl_min import kl_min
from mmunlearner_jax.unlearn.methods.npo import npo
from mmunlearner_jax.unlearn.methods.rmu import rmu
from mmunlearner_jax.unlearn.methods.simnpo import simnpo
from mmunlearner_jax.unlearn.methods.undial import undial
from mmunlearner_jax.unlearn.methods.unsee import log_loss
from mmunlearner_jax.unlearn.methods.vgid import distillation
from mmunlearner_jax.unlearn.scoring import LOG_PROBS, ImageTokens
from tests.helpers.models import filled
from tests.helpers.tokens import CONFIG, IDS, LABELS


def mean(loss, batches):
    return mean_of_terms(loss(scores) for scores in batches)


TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}
# Two batches of rows; each row lists the lengths of its examples, behind one another.
PACKED = [[(3, 2, 4), (5, 1)], [(2,), (1, 1, 1), (9,)]]
ALONE = [[(3,), (2,), (4,), (5,)], [(1,), (6,)]]


def made(rows, packed, seed):
    """What a model says of rows of examples, and the examples one by one."""
    rng = np.random.default_rng(seed)
    room, most = 12, max(map(len, rows))
    shape = (len(rows), room)
    scores = {
        "nll": rng.gamma(1.0, 2.0, shape).astype(np.float32),
        "kl": rng.gamma(1.0, 1.0, shape).astype(np.float32),
        "supervised": np.zeros(shape, bool),
        "questions": np.zeros(shape, int),
        "reference": np.zeros((len(rows), most), np.float32),
    }
    examples = []
    for row, lengths in enumerate(rows):
        end = 0
        for number, length in enumerate(lengths):
            here = slice(end, end + length)
            scores["supervised"][row, here] = True
            scores["questions"][row, here] = number + 1 if packed else 0
            nll, kl = (scores[name][row, here].astype(np.float64) for name in ("nll", "kl"))
            reference = scores["reference"][row, number] = rng.gamma(length, 2.0)
            examples.append((nll, kl, np.float64(reference)))
            end += length
    return TokenScores(**{k: jnp.asarray(v) for k, v in scores.items()}), examples


@pytest.fixture(params=[PACKED, ALONE], ids=["packed", "alone"])
def batches(request):
    both = [made(rows, request.param is PACKED, seed) for seed, rows in enumerate(request.param)]
    return [scores for scores, _ in both], [examples for _, examples in both]


def test_cross_entropy(batches):
    scores, examples = batches
    nll = np.concatenate([nll for batch in examples for nll, _, _ in batch])
    np.testing.assert_allclose(mean(cross_entropy, scores), nll.mean(), **TOLERANCE)


@pytest.mark.parametrize("over", ["token", "example"])
def test_kl_min(batches, over):
    scores, examples = batches
    nll, kl = (np.concatenate([e[n] for batch in examples for e in batch]) for n in (0, 1))
    count = sum(map(len, examples)) if over == "example" else len(kl)
    got = mean(lambda scores: kl_min(scores, weight=0.7, over=over), scores)
    np.testing.assert_allclose(got, nll.mean() + 0.7 * kl.sum() / count, **TOLERANCE)


def test_npo_is_the_mean_over_examples(batches):
    scores, examples = batches
    beta, values = 0.1, []
    for nll, _, reference in (example for batch in examples for example in batch):
        ratio = torch.tensor(-nll.sum() + reference)
        values.append(-2 / beta * torch.nn.functional.logsigmoid(-beta * ratio).item())
    got = mean(lambda scores: npo(scores, beta=beta, over="example"), scores)
    np.testing.assert_allclose(got, np.mean(values), **TOLERANCE)


def test_published_npo_has_one_ratio_of_the_batch(batches):
    scores, examples = batches
    nll = np.concatenate([nll for nll, _, _ in examples[0]])
    reference = sum(reference for _, _, reference in examples[0]) / len(nll)
    log = torch.nn.functional.logsigmoid(torch.tensor(0.4 * (nll.mean() - reference)))
    got = mean(lambda scores: npo(scores, beta=0.4, over="batch"), scores[:1])
    np.testing.assert_allclose(got, -log.item() * 2 / 0.4, **TOLERANCE)


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_simnpo(batches, gamma):
    scores, examples = batches
    beta = 2.5
    margins = [beta * nll.mean() - gamma for batch in examples for nll, _, _ in batch]
    values = -2 / beta * torch.nn.functional.logsigmoid(torch.tensor(margins))
    got = mean(lambda scores: simnpo(scores, beta=beta, gamma=gamma), scores)
    np.testing.assert_allclose(got, values.mean().item(), **TOLERANCE)


def test_log_loss_is_a_mean_of_logarithms_over_examples(batches):
    scores, examples = batches
    values = [np.log(nll.mean() + 0.01) for batch in examples for nll, _, _ in batch]
    got = mean(lambda scores: log_loss(scores, floor=0.01), scores)
    np.testing.assert_allclose(got, np.mean(values), **TOLERANCE)


def test_log_loss_moves_an_answer_that_is_sure_as_much_as_another():
    """The loss's own gradient vanishes with the loss."""

    def steepness(loss, sure):
        def of(logit):  # of the right one of two tokens
            nll = jax.nn.softplus(-logit).reshape(1, 1)
            return mean(loss, [TokenScores(nll, jnp.ones((1, 1), bool), jnp.zeros((1, 1), int))])

        return abs(float(jax.grad(of)(sure)))

    def logarithm(scores):
        return log_loss(scores, floor=1e-6)

    assert steepness(cross_entropy, 8.0) < 1e-3
    np.testing.assert_allclose(steepness(logarithm, 8.0), 1, atol=0.01)
    assert 0.1 < steepness(logarithm, -5.0) < 0.3


def test_undial_is_the_divergence_from_the_lowered_distribution():
    rng, gamma, words = np.random.default_rng(0), 3.0, 7
    ours, theirs = (log_softmax(rng.normal(size=(4, words)) * 3, axis=-1) for _ in range(2))
    true = rng.integers(words, size=4)
    rows = np.arange(4)
    target = theirs.copy()
    target[rows, true] -= gamma
    target = log_softmax(target, axis=-1)
    wanted = np.sum(np.exp(target) * (target - ours), axis=-1)
    kl = np.sum(np.exp(theirs) * (theirs - ours), axis=-1)
    scores = TokenScores(
        nll=jnp.asarray(-ours[rows, true])[None],
        supervised=jnp.asarray([[True, True, False, True]]),
        questions=jnp.zeros((1, 4), int),
        kl=jnp.asarray(kl)[None],
        vanilla=jnp.asarray(-theirs[rows, true])[None],
    )
    got = mean(lambda scores: undial(scores, gamma=gamma), [scores])
    np.testing.assert_allclose(got, wanted[[0, 1, 3]].mean(), **TOLERANCE)


def test_distillation_is_the_mean_divergence(batches):
    scores, examples = batches
    kl = np.concatenate([kl for batch in examples for _, kl, _ in batch])
    np.testing.assert_allclose(mean(distillation, scores), kl.mean(), **TOLERANCE)


def test_rmu_is_the_distance_from_one_vector():
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(2, 5, 8)).astype(np.float32) for _ in range(2)]
    seen = [rng.random((2, 5, 1)) < 0.5 for _ in rows]
    tokens = [ImageTokens(jnp.asarray(x), jnp.asarray(s)) for x, s in zip(rows, seen, strict=True)]
    u = np.asarray(jax.random.uniform(jax.random.key(0), (8,)), np.float64)
    u /= np.linalg.norm(u)
    away = [((x - 3.0 * u) ** 2).mean(-1)[s[..., 0]] for x, s in zip(rows, seen, strict=True)]
    got = mean(lambda tokens: rmu(tokens, coefficient=3.0), tokens)
    np.testing.assert_allclose(got, np.concatenate(away).mean(), **TOLERANCE)


def test_npo_near_beta_0_is_gradient_ascent(batches):
    scores, _ = batches
    both = [
        jax.grad(lambda nll, loss=loss: mean(loss, [scores[0]._replace(nll=nll)]))(scores[0].nll)
        for loss in (
            lambda scores: npo(scores, beta=1e-5, over="example"),
            lambda scores: simnpo(scores, beta=1e-5, gamma=0.0),
        )
    ]
    examples = batches[1][0]
    supervised = np.asarray(scores[0].supervised)
    lengths = np.concatenate([np.full(len(nll), len(nll)) for nll, _, _ in examples])
    wanted = -np.ones(supervised.sum()) / len(examples)
    np.testing.assert_allclose(both[0][supervised], wanted, rtol=1e-3)
    np.testing.assert_allclose(both[1][supervised], wanted / lengths, rtol=1e-3)
    assert not both[0][~supervised].any() and not both[1][~supervised].any()


@pytest.mark.parametrize("chunked", [False, True])
def test_what_a_model_says_beside_a_reference(chunked, monkeypatch):
    if chunked:
        monkeypatch.setattr(logits, "_LOGITS", 2 * CONFIG.text.vocab_size)
    graphdef, params = nnx.split(filled(CONFIG))
    moved = jax.tree.map(lambda p: 1.1 * p, params)
    batch = {"input_ids": IDS, "labels": LABELS, "answer_places": answer_places(LABELS)}
    before, after = (
        log_softmax(np.asarray(nnx.merge(graphdef, p)(IDS), np.float64), axis=-1)
        for p in (params, moved)
    )
    log_probs = OF_TOKENS.ask(graphdef, params, batch)
    assert log_probs.shape == (*batch["answer_places"].shape, CONFIG.text.vocab_size)
    scores = score_tokens(graphdef, moved, [{**batch, LOG_PROBS: log_probs}])[0]
    nll = np.asarray(OF_EXAMPLES.ask(graphdef, params, batch))
    assert nll.shape == (3, 1) and nll[2] == 0
    for row, labels in enumerate(LABELS):
        places = np.flatnonzero(labels[1:] != -100)
        wanted = labels[places + 1]
        here = np.asarray(scores.supervised[row])
        assert here.sum() == len(places)
        p, q = before[row, places], after[row, places]
        np.testing.assert_allclose(log_probs[row][here], p, **TOLERANCE)
        kl = (np.exp(p) * (p - q)).sum(axis=-1)
        np.testing.assert_allclose(scores.kl[row][here], kl, **TOLERANCE)
        true = -p[np.arange(len(places)), wanted]
        np.testing.assert_allclose(scores.vanilla[row][here], true, **TOLERANCE)
        np.testing.assert_allclose(
            scores.nll[row][here], -q[np.arange(len(places)), wanted], **TOLERANCE
        )
        np.testing.assert_allclose(
            nll[row, 0], -p[np.arange(len(places)), wanted].sum(), **TOLERANCE
        )
    same = score_tokens(graphdef, params, [{**batch, LOG_PROBS: log_probs}])[0]
    assert np.abs(np.where(same.supervised, same.kl, 0)).max() < 1e-6
