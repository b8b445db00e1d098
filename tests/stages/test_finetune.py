"""What models are taught, in which order, and the optimizers."""

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image
from safetensors.numpy import load_file

from configs import orl
from mmunlearner_jax import training
from mmunlearner_jax.config import typed
from mmunlearner_jax.config.checks import check_config
from mmunlearner_jax.data.benchmarks.clear import ClearBench
from mmunlearner_jax.data.benchmarks.mllmu import MLLMUBench
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.examples.orl import WRITERS
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import align, finetune, importance, prepare
from mmunlearner_jax.stages.finetune import lessons
from mmunlearner_jax.training import muon
from mmunlearner_jax.unlearn.scoring import answer_nll
from tests.helpers.benchmarks import Clear


def encoded_anew(image: dict) -> dict:
    """The same pixels in other bytes."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(image["bytes"])).save(buffer, "bmp")
    return image | {"bytes": buffer.getvalue()}


def stands(bench, forget: str, retain: str) -> Any:
    """What `lessons` wants of a `Setup`."""
    read = {"pictures": bench.training, "words": bench.text_training}
    return SimpleNamespace(bench=bench, forget=forget, retain=retain, **read)


def test_clear_retain_only_is_told_by_people_not_by_bytes(tmp_path):
    clear = Clear(tmp_path / "clear")
    clear.tables["forget10"] = [
        row | {"image": encoded_anew(row["image"])} for row in clear.tables["forget10"]
    ]
    bench = ClearBench(clear.write())
    at = stands(bench, "forget10", "retain90")
    pictures, text = lessons(at, "never_taught")
    assert {sample.person for sample in pictures} == {"Cy Dee", "Eve Fay"}
    assert text == bench.text_training("retain90")
    pictures, text = lessons(at, "")
    assert len(pictures) == len(text) == 6


@pytest.mark.parametrize("kind", ["mllmu", "clear"])
def test_retain_only_keeps_the_world(tmp_path, kind):
    WRITERS[kind](tmp_path / kind, seed=0, people=12)
    bench = (MLLMUBench if kind == "mllmu" else ClearBench)(tmp_path / kind)
    forget, retain = bench.split(10)
    at = stands(bench, forget, retain)
    every, kept = lessons(at, ""), lessons(at, "never_taught")
    gone = bench.training(forget), bench.text_training(forget)
    for whole, rest, forgotten in zip(every, kept, gone, strict=True):
        assert len(rest) == len(whole) - len(forgotten)
        assert set(rest) == set(whole) - set(forgotten)
    assert lessons(at, "gold") == (kept[0], every[1])  # their faces are missing, their text is not


def test_muon_takes_every_layer_for_a_matrix_of_its_own_and_adam_the_rest():
    keys = jax.random.split(jax.random.key(0), 4)
    params = {"layers": jnp.ones((3, 4, 6)), "embedding": jnp.ones((5, 4)), "scale": jnp.ones(4)}
    given = [{name: jax.random.normal(key, p.shape) for name, p in params.items()} for key in keys]

    def walked(tx, params, gradients):
        state = tx.init(params)
        for gradient in gradients:
            updates, state = tx.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params

    found = walked(muon(optax.constant_schedule(0.1), weight_decay=0.05), params, given)
    alone = optax.contrib.muon(
        0.1, ns_steps=3, preconditioning="aol", consistent_rms=0.2, weight_decay=0.05
    )
    for layer in range(3):
        wanted = walked(alone, params["layers"][layer], [g["layers"][layer] for g in given])
        np.testing.assert_allclose(found["layers"][layer], wanted, rtol=1e-5)
    adam = optax.adamw(0.1, b2=0.95, weight_decay=0.05, nesterov=True)
    for name in ("embedding", "scale"):
        wanted = walked(adam, params[name], [g[name] for g in given])
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5)


def small(**changes: Any) -> Any:
    """The example's config with a tiny model and a few steps."""
    config = orl.get_config()
    config.mesh, config.checkpoint_every = (1, 1, -1), 1
    for part in (config.prepare.vision, config.prepare.text):
        part.hidden_size, part.intermediate_size, part.num_hidden_layers = 16, 16, 2
    config.prepare.people = 12
    config.finetune.update(dict(text_first=3, steps=3, warmup=1, picture_batch=8, text_batch=8))
    config.update_from_flattened_dict(changes)
    return typed(config)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("prepared")
    prepare.run(Session(small(), workdir))
    return workdir


@pytest.fixture
def fresh(prepared, tmp_path) -> Path:
    for name in ("benchmark", "initial"):
        shutil.copytree(prepared / name, tmp_path / name)
    return tmp_path


def weights(folder: Path) -> tuple[dict, dict]:
    """The weights of the language model, and all others."""
    named = load_file(folder / "model.safetensors")
    language = {name: x for name, x in named.items() if "language_model" in name or "head" in name}
    return language, {name: x for name, x in named.items() if name not in language}


def test_text_moves_the_language_model_and_pictures_the_rest(fresh):
    texts_alone = small(**{"finetune.steps": 2})
    assert finetune.run(Session(texts_alone, fresh))
    before, after = weights(fresh / "initial"), weights(fresh / "vanilla")
    for old, new in zip(before, after, strict=True):
        assert old.keys() == new.keys()
        assert any(np.any(old[name] != new[name]) for name in old)
    # As many text steps give the same language model, however many steps see pictures.
    shutil.rmtree(fresh / "vanilla")
    shutil.rmtree(fresh / "checkpoints/finetune")
    assert finetune.run(Session(small(), fresh))
    longer = weights(fresh / "vanilla")
    for name, array in after[0].items():
        np.testing.assert_array_equal(longer[0][name], array)
    assert any(np.any(longer[1][name] != array) for name, array in after[1].items())
    # Gold takes the text over, bit by bit, and learns other pictures.
    gold = {"finetune.retain_only": "gold", "finetune.taught_text": str(fresh)}
    other = fresh / "gold"
    for name in ("benchmark", "initial"):
        shutil.copytree(fresh / name, other / name)
    assert finetune.run(Session(small(**gold), other))
    language, rest = weights(other / "vanilla")
    for name, array in after[0].items():
        np.testing.assert_array_equal(language[name], array)
    assert any(np.any(rest[name] != array) for name, array in longer[1].items())
    # Vision and projector stay those of its own start, e.g. aligned without forgotten pictures.
    session = Session(small(**gold), other, str(other / "initial"))
    held, moving = session.split_frozen(session.params, ("language",))
    session.params = nnx.merge_state(held, jax.tree.map(lambda p: p + 1, moving))
    taught = session.split_frozen(finetune._taught_text(session, {}), ("language",))
    before = session.split_frozen(session.params, ("language",))
    same = [jax.tree.map(np.array_equal, *trees) for trees in zip(taught, before, strict=True)]
    assert not all(jax.tree.leaves(same[0])) and all(jax.tree.leaves(same[1]))
    with pytest.raises(InputError, match="taught_text: .*checkpoints/text_first is missing"):
        shutil.rmtree(other / "vanilla")
        nowhere = gold | {"finetune.taught_text": str(fresh / "nowhere")}
        finetune.run(Session(small(**nowhere), other))


ALIGNED = {
    "stages": ("align", "finetune"),
    "align.steps": 12,
    "align.batch": 16,
    "align.learning_rate": 3e-3,
    "finetune.text_first": 0,
    "finetune.text_batch": 0,
    "finetune.frozen": ("language",),
}


def test_alignment_and_pictures_alone_leave_the_language_model(fresh):
    config = small(**ALIGNED)
    assert align.run(Session(config, fresh)) and finetune.run(Session(config, fresh))
    start, aligned, end = (weights(fresh / n) for n in ("initial", "aligned", "vanilla"))
    for before, after in ((start, aligned), (aligned, end)):
        for name, array in before[0].items():
            np.testing.assert_array_equal(after[0][name], array)
        assert any(np.any(after[1][name] != array) for name, array in before[1].items())
    rows = map(json.loads, (fresh / "metrics.jsonl").open())
    losses = [row["loss"] for row in rows if row["stage"] == "align" and "loss" in row]
    assert len(losses) == 12 and np.mean(losses[-3:]) < np.mean(losses[:3])


def test_the_caption_of_a_picture_is_its_first_lesson(prepared):
    session = Session(small(), prepared, str(prepared / "initial"))
    pictures = session.pictures(session.bench.taught)
    captions = align.captions(pictures)
    assert len(captions) == len({sample.image for sample in pictures}) < len(pictures)
    for caption in captions:
        assert caption == next(x for x in pictures if x.image == caption.image)


def test_the_decoders_own_loss_can_be_aligned_by(prepared):
    session = Session(small(**{"align.loss": "caption"}), prepared, str(prepared / "initial"))
    value = align.loss_of(session, session.config.align)
    batches = session.batches(session.pictures(session.forget)[:8], batch_size=8, pack=1)
    batch = {k: jnp.asarray(x) for k, x in batches.example().items()}
    nll, count = answer_nll(session.graphdef, session.params, batch)
    np.testing.assert_allclose(value(session.params, [batch]), nll.sum() / count.sum(), rtol=1e-5)


@pytest.mark.parametrize("changes", [{"retain_only": "never_taught"}, {"text_first": 0}])
def test_text_that_is_not_the_same_cannot_be_taken_over(changes):
    with pytest.raises(InputError, match="finetune.taught_text"):
        small(**{"finetune.taught_text": "x", **{f"finetune.{k}": v for k, v in changes.items()}})


class Killed(Exception):
    """Ends a run where a test wants it."""


@pytest.mark.slow
def test_interrupted_anywhere_it_ends_with_the_same_bits(fresh, monkeypatch):
    write, load = training.Metrics.write, finetune.load_tree
    pending = [("finetune_text", 2), ("between", 0), ("finetune", 2)]

    def stopping(metrics, step, **values):
        write(metrics, step, **values)
        if pending and (metrics._stage, step) == pending[0]:
            raise Killed

    def stopping_between(*given):
        if pending and pending[0][0] == "between":
            raise Killed
        return load(*given)

    monkeypatch.setattr(training.Metrics, "write", stopping)
    monkeypatch.setattr(finetune, "load_tree", stopping_between)
    while pending:
        with pytest.raises(Killed):
            finetune.run(Session(small(), fresh))
        assert not (fresh / "vanilla").exists()
        del pending[0]
    assert finetune.run(Session(small(), fresh))
    found = (fresh / "vanilla/model.safetensors").read_bytes()
    for name in ("vanilla", "checkpoints"):
        shutil.rmtree(fresh / name)
    assert finetune.run(Session(small(), fresh))
    assert (fresh / "vanilla/model.safetensors").read_bytes() == found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"finetune.warmup": 3, "finetune.steps": 9}, "fewer than config.finetune.text_first"),
        ({"finetune.frozen": ("vision", "projector", "language")}, "nothing would move"),
        ({"model.frozen": ("vision", "projector")}, "finetune.frozen .*nothing would move"),
        ({"finetune.text_batch": 0}, "finetune.text_batch is 0: give 1 or more"),
        (
            {"stages": ("align",), "model.frozen": ("vision", "projector")},
            "model.frozen .*stage align",
        ),
        ({"model.frozen": ("language",)}, "finetune.text_first is 3: give 0, or config.model"),
    ],
)
def test_training_that_moves_nothing_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        check_config(small(**changes), jax.devices()[:1])


def test_what_is_taught_about_nobody_is_retained_where_wanted(prepared):
    kept = {}
    for wanted in (True, False):
        config = small(**{"data.retain_others": wanted, "importance.examples": 0})
        session = Session(config, prepared, str(prepared / "initial"))
        people = set(session.bench.people(session.bench.everyone))
        sets = importance.sets(session)
        kept[wanted] = {
            "pictures": session.retained_pictures(),
            "words": session.retained_words(forgotten=False),
            "all words": session.retained_words(forgotten=True),
        }
        assert sets["pictures"] and set(sets["pictures"]) == set(kept[wanted]["pictures"])
        assert set(sets["text"]) == set(kept[wanted]["all words"])
        forgotten = set(session.bench.people(session.forget))
        for name in ("pictures", "words"):
            assert not {sample.person for sample in kept[wanted][name]} & forgotten
    for name, samples in kept[True].items():
        others = set(samples) - set(kept[False][name])
        assert others and {sample.person.split("-")[0] for sample in others} == {"world"}
        assert {sample.person for sample in kept[False][name]} <= people
