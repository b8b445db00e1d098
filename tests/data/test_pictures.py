"""Pictures of any size: put together, packed, in batches; all as transformers cuts them."""

import io

import numpy as np
import pytest
import transformers
from PIL import Image

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.pipeline import Batches, Jitter
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.qwen2_vl.inputs import AnySize
from mmunlearner_jax.models.qwen2_vl.tiny import build_chatml_processor
from tests.helpers.photographs import LESSONS, SIZES, photo

PHOTOS = [photo(*size) for size in ((92, 112), (64, 64), (130, 60), (112, 92))]
SAMPLES = [Sample(f"s{n}", PHOTOS[n % 4], "Who is this person?", "Kim Birch.") for n in range(10)]


@pytest.fixture(scope="module")
def processor():
    return build_chatml_processor(LESSONS, **SIZES)


def encoder(processor, *budgets: int) -> Encoder:
    return Encoder(processor, AnySize(processor.image_processor, budgets))


def theirs(processor, *images: bytes) -> tuple[np.ndarray, np.ndarray]:
    pictures = [Image.open(io.BytesIO(image)).convert("RGB") for image in images]
    inputs = processor.image_processor(images=pictures, return_tensors="np")
    return inputs["pixel_values"], inputs["image_grid_thw"]


def test_a_picture_is_what_its_patches_show(processor):
    plain = transformers.CLIPImageProcessorPil(
        size={"height": 112, "width": 84},
        do_center_crop=False,
        image_mean=[0.45] * 3,
        image_std=[0.22] * 3,
    )
    pixels, tokens = encoder(processor).image(PHOTOS[0])
    expected = plain(images=Image.open(io.BytesIO(PHOTOS[0])), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(pixels, expected[0])
    assert (pixels.shape, tokens) == ((3, 112, 84), 12)


@pytest.mark.parametrize("shapes", [(14, 2, 2), (8, 3, 1), (4, 2, 3)], ids=str)
def test_rows_are_packed_as_transformers_cuts_them(shapes):
    patch, merge, frames = shapes
    cutter = transformers.Qwen2VLImageProcessorPil(
        patch_size=patch,
        merge_size=merge,
        temporal_patch_size=frames,
        min_pixels=64,
        max_pixels=9999,
    )
    pictures = AnySize(cutter)
    rows = [PHOTOS[:2], PHOTOS[2:]]
    read = [[pictures.read(Image.open(io.BytesIO(image))) for image in row] for row in rows]
    tokens = max(sum(count for _, count in row) for row in read)
    packed = pictures.pack([[pixels for pixels, _ in row] for row in read], tokens)
    pixels, grids = packed["pixel_values"], packed["image_grid_thw"]
    assert pixels.dtype == np.float32 and grids.dtype == np.int32
    for row, images in enumerate(rows):
        inputs = cutter(
            images=[Image.open(io.BytesIO(image)) for image in images], return_tensors="np"
        )
        size = len(inputs["pixel_values"])
        np.testing.assert_array_equal(pixels[row, :size], inputs["pixel_values"])
        np.testing.assert_array_equal(grids[row], inputs["image_grid_thw"])
        assert not pixels[row, size:].any()
        assert size // merge**2 == sum(count for _, count in read[row])


@pytest.mark.parametrize(
    ("budgets", "lengths"), [((48,), {48}), ((64, 16), {16, 64}), ((), {16, 64})]
)
def test_batches_of_mixed_sizes(processor, budgets, lengths):
    given = encoder(processor, *budgets)
    batches = Batches(SAMPLES, given, batch_size=2, seed=0, repeat=False)
    found = set()
    seen = []
    for batch in batches:
        grids = batch["image_grid_thw"]
        assert grids.shape == (2, 1, 3)
        found.add(batch["pixel_values"].shape[1])
        for row in range(2):
            if not (batch["labels"][row] != -100).any():
                continue
            size = grids[row].prod()
            same = [
                n
                for n, image in enumerate(PHOTOS)
                if np.array_equal(theirs(processor, image)[0], batch["pixel_values"][row, :size])
            ]
            seen += same
            tokens = (batch["input_ids"][row] == processor.image_token_id).sum()
            assert 4 * tokens == size and not batch["pixel_values"][row, size:].any()
    assert found <= lengths
    assert sorted(seen) == sorted(n % 4 for n in range(10))


def test_processes_agree_on_the_length(processor):
    def batches(**rows):
        options = {"batch_size": 2, "seed": 1, "augment": Jitter(2, 0.1, 0.1, 0.1)}
        return list(Batches(SAMPLES, encoder(processor, 16, 48), repeat=False, **options, **rows))

    whole = batches()
    for n in range(2):
        for batch, share in zip(whole, batches(rows=[n]), strict=True):
            for key, value in batch.items():
                np.testing.assert_array_equal(share[key], value[n : n + 1])
    # Alone, one of the two would have been content with fewer patches.
    sizes = [batch["image_grid_thw"].prod(axis=-1)[:, 0].tolist() for batch in whole]
    assert any(min(row) == 16 and max(row) == 48 for row in sizes)


def test_a_changed_picture_is_the_same_in_both_frames(processor):
    batch = next(iter(Batches(SAMPLES, encoder(processor), batch_size=4, seed=0, augment=Jitter())))
    frames = batch["pixel_values"].reshape(4, -1, 3, 2, 14, 14)
    np.testing.assert_array_equal(frames[:, :, :, 0], frames[:, :, :, 1])


def test_pictures_that_are_refused(processor):
    with pytest.raises(InputError, match="not a multiple of 4, the patches of one token"):
        encoder(processor, 48, 30)
    wide = Sample("s8", photo(5700, 28), "Who?", "Kim.")
    with pytest.raises(InputError, match="'s8': is a strip of 5700 x 28 pixels, .* than 200 times"):
        encoder(processor).encode(wide)
    said = "sample of 's0': the pictures of a prompt have 12 tokens, above the 8 of config.model.pa"
    with pytest.raises(InputError, match=said) as error:
        Batches(SAMPLES, encoder(processor, 16, 32), batch_size=2, seed=0)
    assert "\n" not in str(error.value)
    text = encoder(processor).prompt("Who?", 2)
    with pytest.raises(InputError, match="the pictures of a prompt have 16 tokens, above the 12"):
        encoder(processor, 48).prompt_ids(text, PHOTOS[:2])
