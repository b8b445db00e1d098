"""A checkpoint's small files: read where any release wrote them, else refused; never run."""

import ast
import builtins
import dataclasses
import json
import os
import shutil
import signal
import socket
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import jax
import numpy as np
import pytest
import transformers
from PIL import Image

import mmunlearner_jax
from configs import orl
from mmunlearner_jax import session
from mmunlearner_jax.config import typed
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.processors import load_processor
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava import LLAVA
from mmunlearner_jax.models.llava.model import LlavaConfig
from mmunlearner_jax.models.llava.tiny import build_processor
from mmunlearner_jax.models.llava.vision import ClipConfig
from mmunlearner_jax.models.llava_next import tiny as llava_next_tiny
from mmunlearner_jax.models.qwen2_vl.model import Qwen2VLConfig
from mmunlearner_jax.models.qwen2_vl.tiny import build_chatml_processor
from mmunlearner_jax.processing.confined import Server, render

LESSONS = [Sample("s1", None, "Who is this person?", "Kim Birch.")]
TOKENIZER, PROCESSOR = "tokenizer_config.json", "processor_config.json"
PICTURES, TEMPLATE = "preprocessor_config.json", "chat_template.jinja"
VICUNA = "{% for m in messages %}{{ m['content'].strip() }}{% endfor %}"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folder, config and number of tokens of a small picture, by the name of the model."""
    root = tmp_path_factory.mktemp("checkpoints")
    processor = build_processor(LESSONS, image_size=28, patch_size=14)
    processor.save_pretrained(root / "llava")
    chatml = build_chatml_processor(LESSONS)
    chatml.save_pretrained(root / "qwen2_vl")
    vision = ClipConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2,
        image_size=28, patch_size=14,
    )  # fmt: skip
    llava = LlavaConfig(
        vision=vision,
        text=LlamaConfig(vocab_size=len(processor.tokenizer)),
        image_token_id=processor.image_token_id,
    )
    qwen = dataclasses.replace(
        Qwen2VLConfig.qwen2_vl_7b(),
        text=dataclasses.replace(
            Qwen2VLConfig.qwen2_vl_7b().text, vocab_size=len(chatml.tokenizer)
        ),
        image_token_id=chatml.image_token_id,
    )
    tiled, processor = llava_next_tiny.make(
        LESSONS,
        vision={field.name: getattr(vision, field.name) for field in dataclasses.fields(vision)},
        text=dict(hidden_size=8, num_attention_heads=2),
        pixels=(0, 0),
    )
    processor.save_pretrained(root / "llava_next")
    return {
        "llava": (root / "llava", llava, 4),
        "llava_next": (root / "llava_next", tiled, 4 + 4 * 5),
        "qwen2_vl": (root / "qwen2_vl", qwen, 6),
    }


@pytest.fixture
def copied(checkpoints, tmp_path):
    """Copies a checkpoint, changes the copy, and loads it."""

    def load(kind, change=None, **options):
        folder, config, _ = checkpoints[kind]
        copy = Path(shutil.copytree(folder, tmp_path / kind, dirs_exist_ok=True))
        if change is not None:
            change(copy)
        return load_processor(config, str(copy), **options)

    return load


def fields(file, dropped=(), **new):
    """Changes fields of a JSON file."""

    def change(folder):
        stored = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        kept = {key: value for key, value in (stored | new).items() if key not in dropped}
        (folder / file).write_text(json.dumps(kept))

    return change


def pictures(**new):
    """Changes LLaVA's image processor."""

    def change(folder):
        stored = json.loads((folder / PROCESSOR).read_text())
        stored["image_processor"] |= new
        (folder / PROCESSOR).write_text(json.dumps(stored))

    return change


def tokens(edit):
    """Changes tokenizer.json."""

    def change(folder):
        stored = json.loads((folder / "tokenizer.json").read_text())
        edit(stored)
        (folder / "tokenizer.json").write_text(json.dumps(stored))

    return change


def holds(file, content):
    """Writes a file."""
    return lambda folder: (folder / file).write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )


def without(*files):
    """Removes files."""
    return lambda folder: [(folder / file).unlink() for file in files]


def both(*changes):
    return lambda folder: [change(folder) for change in changes]


def moved(file, wrap):
    """Puts the chat template somewhere else."""

    def change(folder):
        template = (folder / TEMPLATE).read_text()
        (folder / TEMPLATE).unlink()
        fields(file, chat_template=wrap(template))(folder)

    return change


def old(folder):
    """LLaVA's files as transformers 4 wrote them."""
    stored = json.loads((folder / PROCESSOR).read_text())
    (folder / PICTURES).write_text(json.dumps(stored.pop("image_processor")))
    (folder / PROCESSOR).write_text(json.dumps(stored))


def named(template):
    return [{"name": "default", "template": template}, {"name": "tools", "template": "x"}]


OWN = ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens")
PIXELS = {"min_pixels": 3136, "max_pixels": 12544}
READ = {
    "as is": ("llava", None),
    "files of transformers 4": ("llava", old),
    "no processor_config.json": ("llava", both(old, without(PROCESSOR))),
    "nothing of the model": ("llava", fields(PROCESSOR, OWN)),
    "null for the model's": ("llava", fields(PROCESSOR, **dict.fromkeys(OWN))),
    "no additional tokens": ("llava", fields(PROCESSOR, OWN[-1:])),
    "two mistakes that make the model's count": (
        "llava",
        fields(PROCESSOR, vision_feature_select_strategy="full", num_additional_image_tokens=0),
    ),
    "an image processor's old name": (
        "llava",
        pictures(image_processor_type=None, feature_extractor_type="CLIPFeatureExtractor"),
    ),
    "an image processor's fast name": (
        "llava",
        pictures(image_processor_type="CLIPImageProcessorFast"),
    ),
    "no class named": ("llava", fields(PROCESSOR, ["processor_class"])),
    "template in json": ("llava", moved("chat_template.json", str)),
    "template of the tokenizer": ("llava", moved(TOKENIZER, str)),
    "template of the processor": ("llava", moved(PROCESSOR, str)),
    "named templates": ("llava", moved(TOKENIZER, named)),
    "the tokenizer's template is for text": (
        "llava",
        both(moved("chat_template.json", str), fields(TOKENIZER, chat_template=VICUNA)),
    ),
    "no pad token": ("llava", fields(TOKENIZER, ["pad_token"])),
    "end in config.json": ("llava", fields(TOKENIZER, ["eos_token"])),
    "end in generation_config.json": (
        "llava",
        both(
            fields(TOKENIZER, ["eos_token"]),
            fields("generation_config.json", eos_token_id=[2, 3]),
        ),
    ),
    "a link into a cache": (
        "llava",
        lambda folder: (
            (folder / "tokenizer.json").rename(folder / "blob"),
            (folder / "tokenizer.json").symlink_to("blob"),
        ),
    ),
    "next as is": ("llava_next", None),
    "next files of transformers 4": ("llava_next", old),
    "next the size of an edge": (  # as the hub's files
        "llava_next",
        pictures(size={"shortest_edge": 28}, do_center_crop=True),
    ),
    "next no pinpoints": ("llava_next", pictures(image_grid_pinpoints=None)),
    "next nothing of the model": ("llava_next", fields(PROCESSOR, OWN)),
    "qwen as is": ("qwen2_vl", None),
    "qwen template in json": ("qwen2_vl", moved("chat_template.json", str)),
    "qwen template of the tokenizer": ("qwen2_vl", moved(TOKENIZER, str)),
    "qwen named templates": ("qwen2_vl", moved(TOKENIZER, named)),
    "qwen the tokenizer's template is for text": (
        "qwen2_vl",
        both(moved("chat_template.json", str), fields(TOKENIZER, chat_template=VICUNA)),
    ),
    "qwen sizes inside": ("qwen2_vl", fields(PICTURES, size=PIXELS)),
    "qwen sizes outside": ("qwen2_vl", fields(PICTURES, ["size"], **PIXELS)),
    "qwen sizes null outside": (
        "qwen2_vl",
        fields(PICTURES, min_pixels=None, max_pixels=None),
    ),
    "qwen sizes empty": ("qwen2_vl", fields(PICTURES, size={})),
    "qwen sizes null": ("qwen2_vl", fields(PICTURES, size=None)),
    "qwen no sizes": ("qwen2_vl", fields(PICTURES, ["size"])),
    "qwen nothing of the model": (
        "qwen2_vl",
        fields(PICTURES, ["patch_size", "merge_size", "temporal_patch_size"]),
    ),
    "qwen no pad token": ("qwen2_vl", fields(TOKENIZER, ["pad_token"])),
    "qwen vocabulary in two files": (
        "qwen2_vl",
        lambda folder: (
            write_vocabulary(folder),
            without("tokenizer.json")(folder),
        ),
    ),
}


def write_vocabulary(folder):
    stored = json.loads((folder / "tokenizer.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(stored["model"]["vocab"]))
    merges = "\n".join(" ".join(merge) for merge in stored["model"]["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    added = {token["content"]: token["id"] for token in stored["added_tokens"]}
    (folder / "added_tokens.json").write_text(json.dumps(added))


@pytest.mark.parametrize("kind, change", READ.values(), ids=READ)
def test_what_any_release_wrote_is_read(copied, checkpoints, kind, change):
    _, config, count = checkpoints[kind]
    encoder = Encoder(*copied(kind, change))
    plain = Encoder(*copied_as_is(checkpoints, kind))
    for spans in ([], [(encoder.processor.image_token, count)]):
        found, wanted = (e.tokens("Who is this?", "Kim.", *spans) for e in (encoder, plain))
        assert found.input_ids.tolist() == wanted.input_ids.tolist()
        assert found.labels.tolist() == wanted.labels.tolist()
    picture, given = encoder.pictures.read(Image.new("RGB", (41, 43), "red"))
    assert given == count
    assert all(np.isfinite(pixels).all() for pixels in jax.tree.leaves(picture))
    ids = encoder.prompt_ids(encoder.prompt("Who?", 0))
    assert max(ids) < config.text.vocab_size > encoder.tokenizer.pad_token_id
    assert encoder.tokenizer.eos_token_id is not None


def copied_as_is(checkpoints, kind):
    folder, config, _ = checkpoints[kind]
    return load_processor(config, str(folder))


NEXT = 10**5  # beyond any of the small vocabularies
EVERY = [
    TOKENIZER,
    PROCESSOR,
    "tokenizer.json",
    "special_tokens_map.json",
    "generation_config.json",
]
BROKEN = {"empty": b"", "cut": b'{"a": [1, ', "a list": b"[1]", "no UTF-8": b'{"a": "\xff"}'}
DEEP = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
REFUSED = {
    **{
        f"{file}: {name}": ("llava", holds(file, content), file)
        for file in EVERY
        for name, content in (BROKEN | {"deep": DEEP}).items()
    },
    **{
        f"qwen {PICTURES}: {name}": ("qwen2_vl", holds(PICTURES, content), PICTURES)
        for name, content in BROKEN.items()
    },
    "a pipe": (
        "llava",
        both(without("tokenizer.json"), lambda f: os.mkfifo(f / "tokenizer.json")),
        "tokenizer.json: is not a regular file",
    ),
    "a link to nothing": (
        "llava",
        lambda folder: (folder / "chat_template.json").symlink_to("lost"),
        "chat_template.json: FileNotFoundError",
    ),
    "no tokenizer": ("llava", without("tokenizer.json"), "tokenizer.json: is missing; save it"),
    "no template": ("llava", without(TEMPLATE), f"{TEMPLATE}: is missing"),
    "no image processor": ("qwen2_vl", without(PICTURES), f"{PICTURES}: has no options"),
    "template of bytes": ("llava", holds(TEMPLATE, b"\xff{{"), f"{TEMPLATE}: UnicodeDecodeError"),
    "template cut": ("llava", holds(TEMPLATE, "{% for m in"), f"{TEMPLATE}: .*SyntaxError"),
    "template of a number": ("llava", fields(PROCESSOR, chat_template=5), "int is not a string"),
    "no default template": (
        "llava",
        moved(TOKENIZER, lambda template: {"rag": template}),
        f"{TOKENIZER}: chat_template: KeyError: 'default'",
    ),
    "template for text": ("llava", holds(TEMPLATE, VICUNA), f"{TEMPLATE}: .*UndefinedError"),
    "template without pictures": (
        "llava",
        holds(TEMPLATE, "{% for m in messages %}{{ m.content[-1].text }}\n{% endfor %}"),
        f"{TEMPLATE}: prompt .* has 0 <image> for 1 pictures",
    ),
    "template without answers": (
        "llava",
        holds(TEMPLATE, "<image>{{ messages[0].content[-1].text }}"),
        f"{TEMPLATE}: chat template: renders the answer .* as",
    ),
    "template that takes the answer's blank": (
        "llava",
        lambda folder: (folder / TEMPLATE).write_text(
            (folder / TEMPLATE).read_text().replace("'ASSISTANT:'", "'ASSISTANT: '")
        ),
        f"{TEMPLATE}: chat template: the tokens of .* are no prefix of those of",
    ),
    "one token too few": (
        "llava",
        fields(PROCESSOR, num_additional_image_tokens=0),
        "a picture becomes 3 image tokens, but the model makes 4 features; remove",
    ),
    "another strategy": (
        "llava",
        fields(PROCESSOR, vision_feature_select_strategy="full"),
        "a picture becomes 5 image tokens, but the model makes 4 features; remove",
    ),
    "another patch size": ("llava", fields(PROCESSOR, patch_size=7), "16 image tokens"),
    "a patch size of words": ("llava", fields(PROCESSOR, patch_size="14"), "TypeError"),
    "a larger crop": (
        "llava",
        pictures(size={"height": 56, "width": 56}),
        r"becomes \(3, 56, 56\), but the model takes \(3, 28, 28\)",
    ),
    "pictures keep their shape": (
        "llava",
        pictures(size={"shortest_edge": 28}, do_center_crop=False),
        r"becomes \(3, 28, 42\)",
    ),
    "an endless size": ("llava", pictures(size={"height": 10**9, "width": 28}), "above 4096"),
    "a size of words": ("llava", pictures(size={"height": "x", "width": []}), "size, crop_size"),
    "no deviation": ("llava", pictures(image_std=[0, 0, 0]), "pixels that are not finite"),
    "pictures of sounds": (
        "llava",
        pictures(image_processor_type="WhisperFeatureExtractor"),
        "is no image processor of transformers",
    ),
    "another model's image token": (
        "llava",
        fields(TOKENIZER, extra_special_tokens={"image_token": "<pad>"}),
        "the image token is",
    ),
    "no end anywhere": (
        "llava",
        both(fields(TOKENIZER, ["eos_token"]), fields("generation_config.json", eos_token_id="x")),
        f"{TOKENIZER}: has no eos_token",
    ),
    "a word beyond the embeddings": (
        "llava",
        tokens(
            lambda stored: stored["added_tokens"].append(
                stored["added_tokens"][-1] | {"content": "Anna", "id": NEXT}
            )
        ),
        "tokenizer.json: has Anna, but the model has only",
    ),
    "padding beyond the embeddings": (
        "llava",
        fields(TOKENIZER, pad_token="<new>"),
        "tokenizer.json: has <new>, but the model has only",
    ),
    "an end beyond the embeddings": (
        "qwen2_vl",
        fields(TOKENIZER, eos_token="<new>"),
        "tokenizer.json: has <new>, but the model has only",
    ),
    "a first token beyond the embeddings": (
        "llava",
        tokens(lambda stored: stored["post_processor"]["special_tokens"]["<s>"].update(ids=[NEXT])),
        "tokenizer.json: its post_processor adds token 100000",
    ),
    "image tokens as words": (
        "qwen2_vl",
        fields(TOKENIZER, split_special_tokens=True),
        r"tokenizer: turns 6 <\|image_pad\|> into 0 image tokens",
    ),
    "a regular expression that never ends": (
        "llava",
        tokens(
            lambda stored: stored.update(
                pre_tokenizer={
                    "type": "Split",
                    "pattern": {"Regex": r"((\w|[\w? \n])+)+$"},
                    "behavior": "Isolated",
                    "invert": False,
                }
            )
        ),
        "tokenizer.json: PanicException: Onig",
    ),
    "a blank that becomes all memory": (
        "llava",
        tokens(
            lambda stored: stored.update(
                normalizer={
                    "type": "Sequence",
                    "normalizers": [
                        {"type": "Replace", "pattern": {"String": " "}, "content": " " * 1000}
                    ]
                    * 5,
                }
            )
        ),
        "tokenizer.json: the process that ran it ended with status -6",
    ),
    "next one token too few": (
        "llava_next",
        fields(PROCESSOR, num_additional_image_tokens=0),
        "a picture becomes 13 image tokens, but the model makes 14 features; remove",
    ),
    "next other pinpoints": (
        "llava_next",
        pictures(image_grid_pinpoints=[[28, 56]]),
        f"{PROCESSOR}: image_grid_pinpoints=.*, but config.json has .*one checkpoint",
    ),
    "next larger tiles": (
        "llava_next",
        pictures(crop_size={"height": 56, "width": 56}, do_center_crop=True),
        r"size, crop_size: tiles \(2, 3, 56, 56\) are not the model's, \(5, 3, 28, 28\)",
    ),
    "next another image processor": (
        "llava_next",
        pictures(image_processor_type="CLIPImageProcessor"),
        "image_processor_type=CLIPImageProcessor is not LLaVA-NeXT's",
    ),
    "qwen another patch size": ("qwen2_vl", fields(PICTURES, patch_size=16), "differ in patch"),
    "qwen another merge": ("qwen2_vl", fields(PICTURES, merge_size=4), "differ in patch"),
    "qwen sizes of another": (
        "qwen2_vl",
        fields(PICTURES, size={"height": 224, "width": 224}),
        f"{PICTURES}: size=.* has no shortest_edge",
    ),
    "qwen half a size": (
        "qwen2_vl",
        fields(PICTURES, size={"shortest_edge": 3136}),
        f"{PICTURES}: size=.* has no longest_edge",
    ),
    "qwen a size of words": ("qwen2_vl", fields(PICTURES, min_pixels="3136"), "no shortest_edge"),
    "qwen a size below 1": ("qwen2_vl", fields(PICTURES, min_pixels=-5), "no shortest_edge"),
    "qwen an endless size": (
        "qwen2_vl",
        fields(PICTURES, size={"min_pixels": 10**12, "max_pixels": 10**13}),
        "enlarges every picture above 4096 x 4096",
    ),
    "qwen another image processor": (
        "qwen2_vl",
        fields(PICTURES, image_processor_type="CLIPImageProcessor"),
        "image_processor_type=CLIPImageProcessor is not Qwen2-VL's",
    ),
    "qwen pictures that are not resized": (
        "qwen2_vl",
        fields(PICTURES, do_resize=False),
        f"{PICTURES}: ValueError",
    ),
}


@pytest.mark.parametrize("kind, change, said", REFUSED.values(), ids=REFUSED)
def test_what_is_broken_or_not_the_models_is_refused_in_one_line(copied, kind, change, said):
    with pytest.raises(InputError, match=said) as refused:
        copied(kind, change)
    assert str(refused.value).isprintable() and len(str(refused.value)) <= 600


CODE = {
    TOKENIZER: {"AutoTokenizer": ["code.Slow", "code.Fast"], "AutoImageProcessor": "code.Own"},
    PROCESSOR: {"AutoProcessor": "code.Own", "AutoImageProcessor": "code.Own"},
    PICTURES: {"AutoProcessor": "code.Own", "AutoImageProcessor": "elsewhere/code--code.Own"},
    "config.json": {"AutoConfig": "code.Own", "AutoTokenizer": [None, "code.Own"]},
}


@pytest.fixture
def no_reach(monkeypatch):
    """Whoever asks a question or opens a connection fails; answers to questions are yes."""
    asked = []
    monkeypatch.setattr(builtins, "input", lambda *a: asked.append(a) or "y")
    monkeypatch.setattr(socket.socket, "connect", lambda *a: asked.append(a))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: asked.append(a) or [])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield
    assert not asked


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
@pytest.mark.parametrize("file", CODE)
@pytest.mark.parametrize("own", [True, False], ids=["of its own", "of transformers"])
def test_code_of_a_checkpoint_is_never_run(copied, tmp_path, no_reach, kind, file, own):
    marker = tmp_path / "ran"

    def change(folder):
        (folder / "code.py").write_text(f"open({str(marker)!r}, 'w')\nclass Own: ...\n")
        names = ["processor_class", "image_processor_type", "tokenizer_class"]
        known = [
            {"llava": "LlavaProcessor", "qwen2_vl": "Qwen2VLProcessor"}[kind],
            {"llava": "CLIPImageProcessor", "qwen2_vl": "Qwen2VLImageProcessor"}[kind],
            "PreTrainedTokenizerFast",
        ]
        classes = dict.fromkeys(names, "Own") if own else dict(zip(names, known, strict=True))
        fields(file, auto_map=CODE[file], **classes)(folder)

    if own and file != "config.json":  # where we know the model, its code says nothing
        with pytest.raises(
            InputError, match=f"{file}: auto_map names the checkpoint's own code .* is never run"
        ):
            copied(kind, change)
    else:
        copied(kind, change)
    assert not marker.exists()


@pytest.mark.parametrize("legacy", [["code.Slow", None], {"AutoTokenizer": "code.Own"}])
def test_no_class_beside_the_code_is_refused_too(copied, no_reach, legacy):
    with pytest.raises(InputError, match="for tokenizer_class=None, which is no class"):
        copied("llava", fields(TOKENIZER, ["tokenizer_class"], auto_map=legacy))


@pytest.mark.parametrize(
    "change",
    [
        fields(TOKENIZER, fast_tokenizer_files=["../tokenizer.9.json"], vocab_file="/dev/zero"),
        fields(TOKENIZER, gguf_file="x.gguf", name_or_path="elsewhere/model", init_inputs=["x/y"]),
        fields(PROCESSOR, audio_tokenizer={"audio_tokenizer_name_or_path": "elsewhere/model"}),
        lambda folder: (
            (folder / "additional_chat_templates").mkdir(exist_ok=True),
            os.mkfifo(folder / "additional_chat_templates/rag.jinja"),
        ),
    ],
    ids=["other files", "another repository", "another model", "a pipe of a template"],
)
def test_files_cannot_name_other_places(copied, no_reach, change):
    assert Encoder(*copied("llava", change)).prompt("Who?", 0) == "USER: Who? ASSISTANT:"


def test_a_missing_file_is_not_looked_up_elsewhere(checkpoints, tmp_path, no_reach, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("org/model").mkdir(parents=True)
    with pytest.raises(InputError, match="has no options of an image processor"):
        load_processor(checkpoints["llava"][1], "org/model")


def test_nothing_in_the_package_lets_transformers_choose_a_class():
    for path in Path(mmunlearner_jax.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "transformers":
                assert not node.attr.startswith("Auto"), path
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".from_pretrained"):
                assert "trust_remote_code=False" in ast.unparse(node), path
                assert "local_files_only=True" in ast.unparse(node), path


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_tokens_and_pixels_are_those_of_transformers(checkpoints, kind):
    folder, config, _ = checkpoints[kind]
    processor, pictures = load_processor(config, str(folder))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in ("Who is this?", "<image> Kim  Birch.</s>\n<|im_end|>", "ünï 李", ""):
        assert processor.tokenizer(text).input_ids == theirs(text).input_ids
    assert processor.tokenizer.special_tokens_map == theirs.special_tokens_map
    turns = [{"role": "user", "content": [{"type": "text", "text": "Who?"}, {"type": "image"}]}]
    assert theirs.apply_chat_template(
        turns, chat_template=processor.chat_template, add_generation_prompt=True, tokenize=False
    ) == render(
        processor.chat_template, turns, theirs.special_tokens_map, add_generation_prompt=True
    )
    if kind == "llava":
        whole = transformers.AutoProcessor.from_pretrained(folder)
        assert processor.to_dict() == whole.to_dict()
        photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 33, 3), np.uint8))
        given = whole(text="<image>", images=photo)
        np.testing.assert_array_equal(pictures.read(photo)[0], given["pixel_values"][0])


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10**10 }}",
        "{{ 'a'|center(10**10) }}",
        "{{ '%10000000000d'|format(1) }}",
        "{{ [0] * 10**10 }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ " + "(" * 10**4 + ")" * 10**4 + " }}",
        "{{ messages.__class__.__mro__ }}",
        "{% include '/etc/passwd' %}",
        "{{ raise_exception('\x1b[2J') }}",
        "{% if 'Kim' in messages[1].content[0].text %}{{ 'a' * 10**10 }}{% endif %}",
    ],
)
def test_a_template_has_little_memory_and_no_reach(template):
    turns = [{"role": role, "content": [{"type": "text", "text": "Kim"}]} for role in "ab"]
    with pytest.raises(InputError, match="^chat template: .*; use the chat template of"):
        render(template, turns, {}, add_generation_prompt=True)
    assert render("{{ eos_token }}", [], {"eos_token": "E"}, add_generation_prompt=True) == "E"


def test_a_template_has_little_time():
    server = Server(seconds=1)
    request = {"conversations": [[]]}
    endless = "{% for i in range(99999) %}" * 2 + "{% endfor %}" * 2
    reply = server.ask(json.dumps(request | {"chat_template": endless}))
    assert reply == {"error": "took more than 1 seconds"}
    assert server.ask(json.dumps(request | {"chat_template": "x"})) == {"text": "x"}


def test_a_reply_that_nobody_waits_for_is_not_the_next_one():
    server = Server(seconds=2)
    request = {"conversations": [[]]}
    assert server.ask(json.dumps(request | {"chat_template": "x"})) == {"text": "x"}
    slow = "{% for i in range(90000) %}" * 2 + "{% endfor %}" * 2
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            server.ask(json.dumps(request | {"chat_template": slow}))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert server.ask(json.dumps(request | {"chat_template": "y"})) == {"text": "y"}


def test_options_of_any_size_are_refused_where_pictures_have_their_own(copied):
    for kind, why in (("llava", "have one size"), ("llava_next", "image_grid_pinpoints")):
        for given in ({"patch_budgets": (16,)}, {"min_pixels": 1}, {"max_pixels": 9}):
            with pytest.raises(InputError, match=f"config.model.min_pixels.*{why}.*leave these"):
                copied(kind, **given)


def test_budgets_below_the_tried_picture_are_the_users_choice(copied):
    _, found = copied("qwen2_vl", patch_budgets=(16,))
    assert found.most_tokens == 4


def test_a_question_that_is_no_text_is_refused(checkpoints):
    encoder = Encoder(*copied_as_is(checkpoints, "llava"))
    for sample in (Sample("s1", None, "Who \ud83d?", "Kim"), Sample("s1", None, "Who?", "\udc00")):
        with pytest.raises(InputError, match="sample of 's1': tokenizer: prompt .*surrogates not"):
            encoder.encode(sample)


def test_blanks_around_an_answer_do_not_move_its_end(checkpoints):
    for kind, end in (("llava", "</s>"), ("qwen2_vl", "<|im_end|>")):
        for supervised in (True, False):
            encoder = Encoder(*copied_as_is(checkpoints, kind), supervise_end=supervised)
            labels = encoder.encode(Sample("s1", None, "Who?", " Kim "))["labels"]
            said = encoder.tokenizer.decode(labels[labels >= 0]).replace(" ", "")
            assert said == f"Kim{end if supervised else ''}"


def test_small_files_are_read_before_the_weights(checkpoints, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(checkpoints["llava"][0], tmp_path / "llava"))
    config = LLAVA.to_hf(checkpoints["llava"][1])
    (folder / "config.json").write_text(json.dumps(config))
    (folder / TEMPLATE).write_text("{{")
    bench = SimpleNamespace(split=lambda ratio: ("forget", "retain"))
    parts = {"make_mesh": None, "open_benchmark": bench, "benchmark_folder": None}
    for name, value in parts.items():
        monkeypatch.setattr(session, name, lambda *a, value=value: value)
    monkeypatch.setattr(session, "load_model", lambda *a: pytest.fail("reads weights"))
    with pytest.raises(InputError, match=f"{TEMPLATE}: chat template: TemplateSyntaxError"):
        _ = session.Session(typed(orl.get_config()), tmp_path, str(folder)).params
