"""A few fine-tuning steps on one picture of each person."""

import dataclasses

import jax
import numpy as np
import pytest

from mmunlearner_jax.comparison.relearning import relearned
from mmunlearner_jax.data.samples import one_picture_each
from mmunlearner_jax.unlearn.scoring import answer_nll
from tests.helpers import tiny
from tests.helpers.questions import PHOTOS, PICTURES


def test_one_picture_of_each_person_with_all_its_samples():
    others = [dataclasses.replace(sample, person="another") for sample in PICTURES]
    chosen = one_picture_each([*PICTURES, *others])
    assert {sample.image for sample in chosen} == {PICTURES[0].image}
    of_picture = [sample for sample in PICTURES if sample.image == PICTURES[0].image]
    assert len(chosen) == 2 * len(of_picture) and len(PHOTOS) > 1
    last = one_picture_each([*PICTURES, *others], -1)
    assert {sample.image for sample in last} == {PICTURES[-1].image}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    made = tiny.session(tmp_path_factory.mktemp("run"))
    options = dataclasses.replace(
        made.config.compare, relearn_steps=(3, 6), relearn_rate=1e-3, relearn_batch=2
    )
    made.config = dataclasses.replace(made.config, compare=options)
    return made


def test_what_is_relearned_is_likelier_and_the_model_stays_as_it_was(session):
    before = jax.tree.map(np.asarray, session.params)
    runs = [
        {steps: jax.tree.map(np.asarray, params) for steps, params in made}
        for made in (relearned(session, session.params), relearned(session, session.params))
    ]
    assert all([*run] == [3, 6] for run in runs)
    halfway, after, again = runs[0][3], runs[0][6], runs[1][6]
    for old, kept, new, same in zip(
        *map(jax.tree.leaves, (before, session.params, after, again)), strict=True
    ):
        np.testing.assert_array_equal(old, kept)
        np.testing.assert_array_equal(new, same)
    shown = one_picture_each(session.pictures(session.forget))
    batch = session.batches(shown, batch_size=2, pack=1).example()
    models = (before, halfway, after)
    nats = [float(answer_nll(session.graphdef, p, batch)[0].sum()) for p in models]
    assert nats[2] < nats[1] < nats[0]
