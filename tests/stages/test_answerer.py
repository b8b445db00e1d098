"""A session's answers where the weights are split by heads, as far as devices divide them."""

import jax
import numpy as np

from mmunlearner_jax.data.benchmarks.mllmu import MLLMU
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.models.vision_language import abstract_model
from mmunlearner_jax.sharding import make_mesh, param_shardings
from tests.helpers import tiny
from tests.helpers.questions import PHOTOS, QUESTIONS

ASKED = [
    Question("x", "vqa", "classification", image, wording, "Oslo", ("Kim", "Oslo"), "B")
    for wording in QUESTIONS
    for image in PHOTOS[:2]
]


def test_weights_split_by_heads_give_the_same_answers(tmp_path):
    session = tiny.session(tmp_path)
    session.bench.record = MLLMU
    session.mesh = mesh = make_mesh((1, 8, 1))
    session.graphdef = abstract_model(session.model.config, mesh)[0]
    session.params = jax.device_put(session.params, param_shardings(session.params, mesh))
    found = {}
    for weights in ("mesh", "heads"):
        changes = {"weights": weights, "batch_size": 8, "max_new_tokens": 6}
        options = {f"evaluate.decode.{key}": value for key, value in changes.items()}
        session.config = session.config.with_values(options)
        with jax.default_matmul_precision("highest"):
            found[weights] = session.answerer().answer(
                session.params, ASKED, split="test", label="before"
            )
    for one, other in zip(found["mesh"], found["heads"], strict=True):
        assert one["response"] == other["response"] and one["question"] == other["question"]
        np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-3)
    homes = {leaf.sharding.spec for leaf in jax.tree.leaves(session.params)}
    assert any("fsdp" in spec for spec in homes)  # the session's own stay where they are
