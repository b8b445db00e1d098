"""The steps of every method, with what they need to know of the vanilla model."""

import jax
import pytest

from configs import llava
from mmunlearner_jax.config import typed
from mmunlearner_jax.models.llava import LLAVA
from mmunlearner_jax.planning.programs import programs
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.unlearn.methods import METHODS
from mmunlearner_jax.unlearn.scoring import EXAMPLE_NLL, LOG_PROBS
from tests.helpers.small import SMALL

PACK = 5


@pytest.mark.parametrize("method", METHODS)
def test_the_steps_take_what_they_are_planned_with(monkeypatch, method):
    monkeypatch.setitem(LLAVA.sizes, "llava_1_5_7b", lambda: SMALL)
    config = llava.get_config()
    config.unlearn.update(dict(method=method, accumulate=2, pack=PACK, text_pack=PACK))
    config.unlearn.update(dict(forget_batch=20, retain_batch=20, text_batch=20))
    found = list(programs(typed(config), make_mesh((1, 1, 1), jax.devices()[:1]), "unlearn"))
    assert len(found) == 1 + (METHODS[method].retain is not None)
    held = []
    for program in found:
        state, loss = program.function.eval_shape(*program.arguments)
        assert loss.shape == ()
        assert jax.tree.map(lambda x: x.shape, state) == jax.tree.map(
            lambda x: x.shape, program.arguments[0]
        )
        held += [
            batch.get(name) for batch in program.arguments[1] for name in (EXAMPLE_NLL, LOG_PROBS)
        ]
        assert program.times % 2 == 0
    shapes = [array.shape for array in held if array is not None]
    if method == "npo":
        assert shapes == [(20 // PACK, PACK)]
    elif method in ("kl_min", "undial"):  # of pictures and text, or of the forget set
        of_each = (4, SMALL.text.vocab_size)
        assert [shape[::2] for shape in shapes] == [of_each] * (2 if method == "kl_min" else 1)
    else:
        assert not shapes
