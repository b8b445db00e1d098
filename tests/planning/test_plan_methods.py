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
# Batches with the vanilla model's distributions: of pictures and text, of the forget set, of all.
ASKED = {"kl_min": 2, "undial": 1, "vgid": 3}
PARTS = (
    {"unlearn.ahead.steps": 2},
    {"unlearn.forget_optimizer": "preconditioned"},
    {"unlearn.anchor": "own_words"},
    {"unlearn.anchor": "old_answers"},
    {"unlearn.ahead.steps": 2, "unlearn.lora.rank": 2},
)


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
    elif method in ASKED:
        of_each = (4, SMALL.text.vocab_size)
        assert [shape[::2] for shape in shapes] == [of_each] * ASKED[method]
    else:
        assert not shapes


@pytest.mark.parametrize("changes", PARTS, ids=lambda changes: "-".join(changes).replace(".", "_"))
def test_parts_of_methods_are_planned(monkeypatch, changes):
    monkeypatch.setitem(LLAVA.sizes, "llava_1_5_7b", lambda: SMALL)
    config = typed(llava.get_config()).with_values(changes)
    forget, retain = programs(config, make_mesh((1, 1, 1), jax.devices()[:1]), "unlearn")
    for program in (forget, retain):
        state, loss = program.function.eval_shape(*program.arguments)
        assert loss.shape == ()
        assert jax.tree.structure(state) == jax.tree.structure(program.arguments[0])
    batches = len(forget.arguments[1]), len(retain.arguments[1])
    assert batches == (1 + ("unlearn.ahead.steps" in changes), 2 + ("unlearn.anchor" in changes))


def test_a_path_of_importances_is_planned(monkeypatch):
    monkeypatch.setitem(LLAVA.sizes, "llava_1_5_7b", lambda: SMALL)
    plain = typed(llava.get_config())
    config = plain.with_values({"importance.path.points": 2, "importance.path.every": 3})
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    once, twice = ({p.name: p for p in programs(c, mesh, "importance")} for c in (plain, config))
    for name, program in once.items():
        assert twice[name].times == 2 * program.times
    fewer = typed(llava.get_config()).with_values(
        {"importance.preserve.language": ("pictures",), "importance.path.points": 1}
    )
    assert [p.name for p in programs(fewer, mesh, "importance")] == ["picture batch", "path step"]
    path = twice["path step"]
    assert path.times == 3 * 2 * 3
    state, _ = path.function.eval_shape(*path.arguments)
    assert jax.tree.structure(state) == jax.tree.structure(path.arguments[0])
