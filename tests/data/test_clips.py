"""Clips: stored, read from files and rows, sampled, cut and packed; and what is refused."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from mmunlearner_jax.data.benchmarks.columns import CLIP
from mmunlearner_jax.data.benchmarks.mllmu import MLLMUBench
from mmunlearner_jax.data.builders import builders
from mmunlearner_jax.data.clips import StoredClip, examine, is_clip, joined, read_clip, still
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.noising import noised
from mmunlearner_jax.data.pipeline import Batches, Jitter
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.examples.orl_clips import with_clips
from mmunlearner_jax.models.packing import IGNORE
from mmunlearner_jax.models.qwen2_vl.inputs import AnySize
from mmunlearner_jax.models.qwen2_vl.sampling import Sampler
from mmunlearner_jax.models.qwen2_vl.tiny import build_chatml_processor
from mmunlearner_jax.processing.pictures import OneSize
from tests.helpers import torch_videos
from tests.helpers.photographs import LESSONS, SIZES, photo

SIZE = {"shortest_edge": SIZES["min_pixels"], "longest_edge": SIZES["max_pixels"]}


def frame(number: int, size: tuple[int, int] = (92, 112)) -> bytes:
    noise = np.random.default_rng(number).integers(0, 255, (*size[::-1], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "png")
    return buffer.getvalue()


FRAMES = [frame(n) for n in range(8)]
LONG, SHORT = joined(FRAMES, 4.0), joined(FRAMES[:4], 2.0)


def sampler(**options) -> Sampler:
    given = dict(fps=2.0, min_frames=4, max_frames=768, together=2, size=SIZE)
    return Sampler(**given | options)


@pytest.fixture(scope="module")
def processor():
    return build_chatml_processor(LESSONS, **SIZES)


def encoder(processor, *budgets: int, timed: bool = True, **options) -> Encoder:
    pictures = AnySize(processor.image_processor, budgets, sampler(**options), timed=timed)
    return Encoder(processor, pictures)


# --- Sampling and patches


@pytest.mark.parametrize("options", [{}, {"fps": 0.7, "min_frames": 2}, {"max_frames": 9}], ids=str)
def test_frames_are_sampled_as_the_processor_does(options):
    ours = sampler(**options)
    theirs = dict(fps=ours.fps, min_frames=ours.min_frames, max_frames=ours.max_frames)
    for count in (2, 3, 4, 5, 7, 8, 12, 15, 24, 31, 48):
        for rate in (1.0, 2.0, 4.0, 23.976, 24.0, 30.0):
            wanted, fps = torch_videos.sampled(count, rate, temporal_patch_size=2, **theirs)
            assert ours.places(count, rate) == wanted, (count, rate)
            assert ours.seconds(count, rate) == pytest.approx(2 / fps, rel=1e-12)


def test_patches_are_cut_as_the_processor_does(processor):
    """The frames are resized one by one by the image processor, as torchvision is not there."""
    made = encoder(processor)
    clip, tokens = made.image(LONG)
    shown = [Image.open(io.BytesIO(FRAMES[n])) for n in sampler().places(8, 4.0)]
    cut = [made.image(FRAMES[n])[0] for n in sampler().places(8, 4.0)]
    assert len(shown) == 4 and (clip.seconds, tokens) == (1.0, 24)
    packed = made.pictures.pack([[clip]], tokens)
    wanted = torch_videos.patches(cut, 14, 2, 2)
    np.testing.assert_array_equal(packed["pixel_values"][0, : len(wanted)], wanted)
    assert packed["image_grid_thw"].tolist() == [[[2, 8, 6]]]
    assert packed["second_per_grid_ts"].tolist() == [[1.0]]


def test_a_changed_clip_is_changed_alike_in_all_frames(processor):
    made = encoder(processor)
    still_one = joined([FRAMES[0]] * 4, 2.0)
    changed = Jitter().of_picture(made.image(still_one)[0], 5)
    for pixels in changed.pixels:
        np.testing.assert_array_equal(pixels, changed.pixels[0])
    assert (changed.pixels[0] != made.image(FRAMES[0])[0]).any()


def test_noise_hides_a_clip_alike_in_all_frames():
    clip = joined([FRAMES[0]] * 3, 2.0)
    (hidden,) = noised([Sample("Anna", clip, "Who is this?", "Anna.")], seed=1)
    frames = StoredClip(hidden.image)
    assert len(frames) == 3 and frames.fps == 2.0
    for picture in frames:
        np.testing.assert_array_equal(picture, frames[0])
    assert (np.asarray(frames[0]) != StoredClip(clip)[0]).any()


# --- In batches


def test_clips_and_pictures_share_batches_and_rows(processor):
    made = encoder(processor, 96)
    images = [LONG, FRAMES[0], SHORT]
    samples = [
        Sample("s", image, question, "Kim Birch.")
        for image in images
        for question in ("Who is this person?", "Is it Kim Birch.")
    ]
    batches = Batches(samples, made, batch_size=2, seed=0, pack=2, repeat=False)
    token = {n: made.tokenizer.get_vocab()[n] for n in ("<|image_pad|>", "<|video_pad|>")}
    shapes, seen = set(), 0
    for batch in batches:
        (grid,) = batch["image_grid_thw"][0]
        kind = "<|video_pad|>" if grid[0] > 1 else "<|image_pad|>"
        (there,) = batch["input_ids"]
        assert (there == token[kind]).sum() == grid.prod() // 4
        assert not set(there) & set(token.values()) - {token[kind]}
        hidden = np.isin(there, [*token.values()])
        assert (batch["labels"][0][hidden] == IGNORE).all()
        assert (batch["segments"][0][hidden] == 0).all() and batch["segments"].max() == 2
        assert (batch["second_per_grid_ts"][0, 0] == 0) == (grid[0] == 1)
        shapes.add(tuple((name, array.shape) for name, array in sorted(batch.items())))
        seen += 1
    assert seen == 3 and len(shapes) == 1


def test_features_are_packed_as_the_patches_that_they_are_of(processor):
    made, images = encoder(processor, 96), (LONG, FRAMES[0])
    whole, outlines = ([[get(x)[0]] for x in images] for get in (made.image, made.outline))
    packed = made.pictures.pack(whole, 24)
    patches = packed.pop("pixel_values")
    seen = made.pictures.unpack_features(patches, [picture for (picture,) in outlines])
    assert [x.shape[:3] for x in seen] == [(8, 3, 4), (4, 3, 4)]
    again = made.pictures.pack_features([[x] for x in seen], outlines, 24)
    np.testing.assert_array_equal(again.pop("vision_features"), patches)
    assert again.keys() == packed.keys()
    assert all(np.array_equal(again[name], array) for name, array in packed.items())


def test_above_the_budget(processor):
    said = (
        "sample of 's': is a clip: 4 frames of 84 x 112 pixels are sampled, and have 96 patches,"
        " above the 48 of config.model.patch_budgets; raise the budget, or lower"
        " config.model.clip_fps, clip_frames or max_pixels"
    )
    with pytest.raises(InputError, match=re.escape(said)) as error:
        encoder(processor, 16, 48).labelled(Sample("s", LONG, "Who?", "Kim."))
    assert "\n" not in str(error.value)
    fewer = encoder(processor, 48, max_frames=2, min_frames=2)
    assert fewer.image_tokens(LONG) == 12


def test_a_model_without_clips(processor):
    said = "is a clip of 8 frames, but the model takes pictures only; use a Qwen2-VL"
    for pictures in (OneSize(processor),):
        with pytest.raises(InputError, match=said):
            examine(LONG, pictures.check)
        with pytest.raises(InputError, match=f"sample of 's': {said}"):
            Encoder(processor, pictures).labelled(Sample("s", LONG, "Who?", "Kim."))
    bare = AnySize(processor.image_processor)
    with pytest.raises(InputError, match=r"no <\|video_pad\|> that is the video_token_id"):
        examine(LONG, bare.check)
    with pytest.raises(InputError, match="clip of 2 frames, fewer than the 3 that a patch spans"):
        sampler(together=3).places(2, 1.0)


# --- Files and rows


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_an_animation(tmp_path, kind):
    first, *others = (Image.open(io.BytesIO(x)).quantize(64).convert("RGB") for x in FRAMES[:4])
    file = tmp_path / f"clip.{kind}"
    options = {"lossless": True} if kind == "webp" else {}
    first.save(file, save_all=True, append_images=others, duration=250, **options)
    cell = read_clip(file)
    assert (cell["bytes"], cell["path"], cell["fps"]) == (None, f"clip.{kind}", 4.0)
    clip = StoredClip(joined(cell["frames"], cell["fps"]))
    assert len(clip) == 4
    if kind != "gif":  # which has a palette
        for ours, wanted in zip(clip, (first, *others), strict=True):
            assert ours.tobytes() == wanted.tobytes()
    assert read_clip(file, fps=1.0)["fps"] == 1.0


def test_a_folder_of_frames(tmp_path):
    for number, encoded in enumerate(FRAMES[:3]):
        (tmp_path / f"{number:03}.png").write_bytes(encoded)
    cell = read_clip(tmp_path, fps=2.0)
    assert cell["frames"] == FRAMES[:3]
    with pytest.raises(InputError, match=f"{tmp_path.name}: is a clip of 3 frames with fps=0.0: w"):
        read_clip(tmp_path)
    (tmp_path / "004.png").write_bytes(frame(9, (60, 60)))
    with pytest.raises(InputError, match="whose frame 3 has another size than its first, 92 x 112"):
        read_clip(tmp_path, fps=2.0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\0\0\0\x20ftypisom" + b"\0" * 40, "is a video file, for which there is no decoder here"),
        (b"\x1aE\xdf\xa3" + b"\0" * 40, "is a video file"),
        (FRAMES[0], "has one frame; give an animation, or store it as a picture"),
        (b"no picture", "cannot be decoded"),
    ],
    ids=["mp4", "mkv", "picture", "text"],
)
def test_files_that_are_no_clip(tmp_path, content, said):
    (tmp_path / "clip").write_bytes(content)
    with pytest.raises(InputError, match=f"clip: {said}") as error:
        read_clip(tmp_path / "clip")
    assert "\n" not in str(error.value)


def cell(**changes):
    return {"bytes": None, "path": "clip", "frames": FRAMES[:4], "fps": 2.0} | changes


def with_cell(published, made):
    for name, schema in published.schemas.items():
        published.schemas[name] = with_clips(schema)
    published.tables["forget_25"][0]["image"] = made
    published.tables["Test_Set"][0]["images"][1] = made
    published.tables["ft_Data"][0]["image"] = made
    return MLLMUBench(published.write())


def test_rows_with_clips(published):
    bench = with_cell(published, cell())
    assert published.schemas["ft_Data"].field("image").type == CLIP
    shown = [sample.image for sample in bench.training("forget_25")]
    assert shown and set(shown) == {SHORT} and is_clip(SHORT)
    scored = bench.scored("forget_25", "retain_75")
    assert SHORT in {q.image for q in scored["test"]} and SHORT in {
        q.image for q in scored["forget"]
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"fps": None},
            "4 frames with fps=None: without the frames of a second, none can be sampl",
        ),
        ({"fps": -1.0}, "4 frames with fps=-1.0"),
        (
            {"frames": FRAMES[:1]},
            "is a clip of 1 frames; give 2 to 4096, and store a single one as",
        ),
        ({"bytes": FRAMES[0]}, "has both bytes and frames; give a picture or a clip"),
        ({"frames": [FRAMES[0], None]}, "has frames that are no list of encoded pictures"),
        ({"frames": [FRAMES[0], b"x"]}, "cannot be decoded"),
        (
            {"frames": [FRAMES[0], frame(0, (8, 8))]},
            "whose frame 1 has another size than its first",
        ),
    ],
    ids=lambda it: next(iter(it)) if isinstance(it, dict) else "",
)
def test_rows_that_are_refused(published, changes, said):
    bench = with_cell(published, cell(**changes))
    with pytest.raises(InputError, match=rf"parquet: row 0: image .*{said}") as error:
        bench.training("forget_25")
    assert "\n" not in str(error.value)


def test_builders_take_no_clips(published, tmp_path):
    with_cell(published, cell())
    made = {x.builder_config.name: x for x in builders(published.root, tmp_path / "tfds")}
    for name, column in (("ft_Data", "image"), ("Test_Set", "images")):
        with pytest.raises(InputError, match=f"row 0: {column} is a clip; builders take pictures"):
            made[name].download_and_prepare()


def test_a_damaged_clip():
    for encoded in (
        LONG[:-1],
        LONG.replace(b"sizes", b"seizes", 1),
        LONG.replace(b"4.0", b"nan", 1),
    ):
        with pytest.raises(InputError, match="is a damaged clip|with fps"):
            StoredClip(encoded)


def test_a_still_shows_frames_side_by_side():
    strip = still(LONG)
    assert strip.size == (4 * 92, 112)
    for place, number in enumerate((0, 2, 4, 7)):
        own = strip.crop((92 * place, 0, 92 * (place + 1), 112))
        assert own.tobytes() == Image.open(io.BytesIO(FRAMES[number])).tobytes()
    assert still(FRAMES[0]).size == (92, 112)
    assert still(photo(20, 10)).size == (20, 10)
