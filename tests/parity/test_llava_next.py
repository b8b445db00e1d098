"""Ours against `transformers.LlavaNextForConditionalGeneration`, from layouts to decoding."""

import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import LlavaNextForConditionalGeneration
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import unpad_image

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.llava_next import LLAVA_NEXT, tiles
from mmunlearner_jax.models.llava_next.hf import TABLE
from mmunlearner_jax.models.llava_next.model import LlavaNext, LlavaNextConfig
from mmunlearner_jax.weights.io import from_pretrained, save_pretrained
from tests.helpers import compare
from tests.helpers import torch_llava_next as next_models
from tests.helpers.compare import assert_same_model, close, reload


@pytest.fixture(scope="module", params=next_models.CASES)
def case(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("next")
    model = next_models.make_torch_model(request.param)
    model.save_pretrained(path)
    return next_models.Case(model, from_pretrained(path), path)


PUBLISHED = LlavaNextConfig.llava_next_vicuna_7b()
OTHER_PINPOINTS = tuple((28 * rows, 28 * columns) for rows in (1, 2, 5) for columns in (1, 3, 4))


@pytest.mark.parametrize(
    ("pinpoints", "edge", "side"),
    [(PUBLISHED.image_grid_pinpoints, 336, 24), (OTHER_PINPOINTS, 28, 3)],
    ids=["published", "others"],
)
def test_layouts(pinpoints, edge, side):
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 1500, (400, 2)).tolist()
    sizes += [[high, wide] for high, wide in pinpoints] + [[1, 4000], [4000, 1]]
    seen = set()
    for size in sizes:
        rows, columns, height, width = tiles.layout(tuple(size), pinpoints, edge, side)
        best = select_best_resolution(size, [*map(list, pinpoints)])
        assert (rows * edge, columns * edge) == best
        left = unpad_image(torch.zeros(1, rows * side, columns * side), size)
        assert (height, width) == left.shape[1:]
        assert side**2 + height * (width + 1) <= tiles.most_tokens(pinpoints, edge, side)
        seen.add(best)
    assert seen >= {*PUBLISHED.image_grid_pinpoints} or edge == 28


def test_tiles_are_joined_and_cut():
    cut = np.random.default_rng(0).normal(size=(6, 3, 4, 4))
    np.testing.assert_array_equal(tiles.cut(tiles.join(cut, 3), 4), cut)
    whole = torch.from_numpy(tiles.join(cut, 3))
    parts = transformers.image_transforms.divide_to_patches(whole.numpy(), 4)
    np.testing.assert_array_equal(np.stack(parts), cut)


@nnx.jit
def _features(model, pixels, layouts):
    return model.image_features(model.vision_features(pixels, layouts), layouts)


def test_image_features(case):
    """Pictures for every pinpoint: wide and tall ones, and ones that need no padding."""
    pictures = case.pixels(next_models.SIZES)
    theirs = case.theirs.get_image_features(
        **{name: torch.from_numpy(x) for name, x in pictures.items()}
    ).pooler_output
    ids = np.array([sum(map(case.tokens, next_models.SIZES), [])])
    grouped = case.ours.group_pictures({"input_ids": ids, **pictures})
    ours = _features(case.ours, grouped["pixel_values"], grouped["image_sizes"])
    assert ours.shape[1] == len(next_models.SIZES) * case.ours.config.image_tokens(0)
    close(ours[0, : ids.size], torch.cat(theirs))


def test_those_pictures_have_every_grid(case):
    grids = {case.ours.config.layout(size)[:2] for size in next_models.SIZES}
    edge = case.ours.config.vision.image_size
    wanted = {(high // edge, wide // edge) for high, wide in case.ours.config.image_grid_pinpoints}
    assert grids == wanted


def test_logits(case, padding):
    compare.logits_agree(case, padding)


@pytest.mark.parametrize("case", ["a short window", "siglip, tied"], indirect=True)
def test_gradients(case):
    compare.gradients_agree(case, "left", case.ours.group_pictures(case.batch("left")))


@pytest.mark.parametrize("case", ["mistral", "a short window"], indirect=True)
def test_greedy_tokens(case):
    compare.greedy_tokens_agree(case)


def test_every_case_returns(case, tmp_path):
    assert_same_model(case.ours, case.theirs)
    save_pretrained(case.ours, tmp_path)
    again = reload(LlavaNextForConditionalGeneration, tmp_path)
    assert_same_model(case.ours, again)
    theirs, saved = case.theirs.config.to_dict(), again.config.to_dict()
    for config in (theirs, saved):
        config.pop("image_seq_length")  # transformers' default is that of the 7B model
        for part in (config, config["text_config"], config["vision_config"]):
            part.pop("_name_or_path", None)
            part.pop("dtype")  # reading fills it in
    assert saved == theirs
    with safe_open(tmp_path / "model.safetensors", framework="numpy") as file:
        assert "image_newline" in file.keys()
        assert not [name for name in file.keys() if name.startswith("model.")]


def test_names_in_memory(case, tmp_path):
    case.theirs.save_pretrained(tmp_path)
    tensors = {name: p.detach() for name, p in case.theirs.named_parameters()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same_model(from_pretrained(tmp_path), case.theirs)


@pytest.mark.parametrize("name", LLAVA_NEXT.sizes)
def test_published_sizes(name):
    """Names and shapes of the whole model, without a weight on either side."""
    config = LLAVA_NEXT.sizes[name]()
    with torch.device("meta"):
        theirs = LlavaNextForConditionalGeneration(
            transformers.LlavaNextConfig(**LLAVA_NEXT.to_hf(config))
        )
    params = nnx.split(nnx.eval_shape(lambda: LlavaNext(config, rngs=nnx.Rngs(0))))[1]
    ours = {name: e.shape for e in TABLE.entries(params) for name in e.names}
    assert ours == {name: tuple(p.shape) for name, p in theirs.named_parameters()}
    assert (config.slots, config.image_tokens(0)) == (5, 576 + 48 * 49)


def test_pictures_that_do_not_match(case):
    batch = case.batch("left")
    shorter = batch | {"input_ids": batch["input_ids"][:, 1:]}
    grouped = case.ours.group_pictures(batch)
    wrong = {
        "image tokens per row": [
            {**grouped, "input_ids": grouped["input_ids"][[2, 1, 0]]},
            batch | {"image_sizes": batch["image_sizes"][::-1]},
            shorter | {"input_ids": np.where(shorter["input_ids"] == 48, 1, 2)},
            {"input_ids": batch["input_ids"]},
            {**batch, "input_ids": batch["input_ids"][[1, 0, 2]]},
        ],
        "image_sizes: shape": [
            {k: v for k, v in batch.items() if k != "image_sizes"},
            batch | {"image_sizes": batch["image_sizes"][:, :1]},
        ],
        "pixel_values: shape": [
            batch | {"pixel_values": batch["pixel_values"][:2]},
            batch | {"pixel_values": batch["pixel_values"][:, :1]},
            {**grouped, "pixel_values": grouped["pixel_values"][:, :, :-1]},
            {**grouped, "pixel_values": grouped["pixel_values"][:, :1]},
            batch | {"pixel_values": batch["pixel_values"][..., :-1]},
            {k: v for k, v in batch.items() if k != "pixel_values"},
        ],
    }
    for words, batches in wrong.items():
        for given in batches:
            with pytest.raises(InputError, match=words):
                case.ours.group_pictures(given)
    with pytest.raises(InputError, match="pixel_values: shape .*group_pictures"):
        nnx.jit(lambda model, batch: model(**batch))(case.ours, batch)
