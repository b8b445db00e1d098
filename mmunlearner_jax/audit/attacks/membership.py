"""Membership: does the model show which photographs it was taught?

A taught photograph, with a taught question and its answer, is compared with unseen photographs of
the same person beside the same text. Where the model cannot tell them apart, the AUC is one half.

Sources: loss and gradient norm: Yeom et al. 2018 (arXiv 1709.01604), Nasr et al. 2019
(arXiv 1812.00910); Min-K: Shi et al. 2023 (arXiv 2310.16789); Min-K++: Zhang et al. 2024
(arXiv 2404.02936). The loss by the text's compressed length (zlib) is left out: the text is the
same, so it says what the loss says.
Axes: B rows, S supervised tokens of a row, Q questions.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from mmunlearner_jax.audit.attack import Attack, Cost, Target
from mmunlearner_jax.audit.per_sample import per_sample
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.options import Section, option
from mmunlearner_jax.unlearn.scoring import answer_nll, answer_scores, example_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class MembershipConfig(Section):
    """Options of the attack `membership`."""

    key: ClassVar[str] = "audit.membership"

    fraction: float = option(
        0.2, "Fraction of the answer's tokens, the least likely ones, of Min-K.", above=0, below=1
    )


@functools.lru_cache(1)  # all models of an audit share it
def token_values(graphdef: nnx.GraphDef) -> Callable[[Any, Any], tuple[jax.Array, ...]]:
    """Returns the jitted program `(params, batch) -> (log_probs, normalised, there)`, each [B, S].

    `log_probs` are the tokens' log-probabilities in nats. `normalised` is less their mean over the
    vocabulary, divided by their standard deviation, both weighed by probability (Min-K++, eq. 3).
    `there` says which tokens are part of an answer.
    """

    def values(logits: jax.Array, wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
        probs = jnp.exp(log_probs)
        mean = jnp.sum(probs * log_probs, axis=-1)
        variance = jnp.sum(probs * jnp.square(log_probs - mean[..., None]), axis=-1)
        places = jnp.maximum(wanted, 0)[..., None]
        own = jnp.take_along_axis(log_probs, places, axis=-1)[..., 0]
        return own, (own - mean) / jnp.sqrt(jnp.maximum(variance, 1e-12))

    @jax.jit
    def program(params: Any, batch: dict[str, Any]) -> tuple[jax.Array, ...]:
        (scores,) = answer_scores(graphdef, params, [batch], values)
        return *scores.values, scores.supervised

    return program


@functools.lru_cache(1)  # all models of an audit share it
def gradient_norms(graphdef: nnx.GraphDef) -> Callable[[Any, Any], jax.Array]:
    """Returns the jitted program `(params, batch) -> norms`, float32 [B].

    Each is the norm of the gradient of one row's mean loss, by all parameters.
    """

    @jax.jit
    def program(params: Any, batch: dict[str, Any]) -> jax.Array:
        def norm(row: dict[str, Any]) -> jax.Array:
            def loss(params: Any) -> jax.Array:
                one = jax.tree.map(lambda x: x[None], row)
                return example_mean(*answer_nll(graphdef, params, one))[0]

            gradient = jax.grad(loss)(params)
            return optax.tree.norm(jax.tree.map(lambda x: x.astype(jnp.float32), gradient))

        return jax.lax.map(norm, batch)

    return program


def least(values: np.ndarray, there: np.ndarray, fraction: float) -> np.ndarray:
    """Returns the mean of each row's least values, float64 [B].

    Args:
        values: Values of tokens, [B, S].
        there: Which of them count, bool [B, S]; at least one in each row.
        fraction: Fraction of them that is averaged, at least one.
    """
    ordered = np.sort(np.where(there, values, np.inf), axis=1)
    counts = np.maximum(1, np.floor(fraction * np.sum(there, axis=1)))
    among = np.arange(values.shape[1]) < counts[:, None]
    return np.sum(np.where(among, ordered, 0.0), axis=1) / counts


def likelier(members: np.ndarray, others: np.ndarray) -> float:
    """Returns the AUC: how often a member has more than another sample; ties count half.

    Args:
        members: Scores of members, [M].
        others: Scores of samples that are no members, [N].
    """
    difference = np.sign(members[:, None] - others[None, :])
    return float(np.mean((difference + 1) / 2))


class Member(NamedTuple):
    """A taught sample among samples.

    Attributes:
        person: ID of the person.
        image: The taught photograph.
        place: Number of the sample. Those that it is compared with follow it.
        others: How many they are.
    """

    person: str
    image: bytes | None
    place: int
    others: int


def _samples(target: Target) -> tuple[list[Sample], list[Member]]:
    """Returns taught samples about photographs that are asked about, each before its others."""
    taught = target.session.pictures(target.session.forget)
    shown, asked = {s.image for s in taught}, {q.image for q in target.questions}
    unseen: dict[str, dict[bytes | None, None]] = {}
    for question in target.questions:
        if question.image not in shown:
            unseen.setdefault(question.person, {})[question.image] = None
    samples: list[Sample] = []
    members = []
    for sample in taught:
        images = unseen.get(sample.person, {})
        if sample.image in asked and images:
            members.append(Member(sample.person, sample.image, len(samples), len(images)))
            samples += [dataclasses.replace(sample, image=x) for x in (sample.image, *images)]
    return samples, members


def _scores(
    target: Target, params: Any, samples: Sequence[Sample], fraction: float
) -> dict[str, np.ndarray]:
    """Returns scores that are higher for members, float [N] by name."""
    session = target.session
    program = token_values(session.graphdef)
    log_probs, normalised, there = per_sample(session, params, samples, program)
    return {
        "loss": np.sum(np.where(there, log_probs, 0), axis=1) / np.sum(there, axis=1),
        "Min-K": least(log_probs, there, fraction),
        "Min-K++": least(normalised, there, fraction),
        "gradient norm": -per_sample(session, params, samples, gradient_norms(session.graphdef)),
    }


def _attacked(
    target: Target, params: Any, options: MembershipConfig
) -> Iterator[tuple[str, np.ndarray]]:
    samples, members = _samples(target)
    for name, scores in _scores(target, params, samples, options.fraction).items():
        shares: dict[tuple[str, bytes | None], list[float]] = {}
        for person, image, place, others in members:
            share = likelier(scores[[place]], scores[place + 1 : place + 1 + others])
            shares.setdefault((person, image), []).append(share)
        yield (
            name,
            np.array([np.mean(shares.get((q.person, q.image), np.nan)) for q in target.questions]),
        )


def _lacks(target: Target, _: MembershipConfig) -> str:
    if _samples(target)[1]:
        return ""
    return "nobody has a photograph that was taught and one that was not, which would be compared"


ATTACK = Attack(
    "Membership",
    "Taught photographs are told from unseen ones of the same person by the loss, by Min-K, Min-K++"
    " and by the norm of the gradient.",
    _attacked,
    lambda _: Cost(4),
    MembershipConfig,
    lacks=_lacks,
    guess=0.5,
)
