"""What a user reads is one printable, short line, whatever a stranger wrote into it."""

import json

import pytest

from mmunlearner_jax.errors import LONGEST, InputError, in_words, listed, refusing, shown
from mmunlearner_jax.files import parse_json, read_bytes, read_json, read_lines, write_whole

HOSTILE = "a\x1b[2J\x07b\nc\u202ed\ud83de\u2028f\x9b31m"


def test_foreign_text_is_escaped():
    assert shown(HOSTILE) == "a\\x1b[2J\\x07b\\nc\\u202ed\\ud83de\\u2028f\\x9b31m"
    assert shown("Zoë 李 🙂 C:\\x") == "Zoë 李 🙂 C:\\x"


@pytest.mark.parametrize("text", ["x" * 10**6, "\x1b" * 10**6, "\U000e0001" * 500])
@pytest.mark.parametrize("most", [20, 120, 600])
def test_and_shortened(text, most):
    assert shown(text, most).isprintable() and len(shown(text, most)) <= most


def test_both_ends_of_a_long_text_stay():
    found = shown(f"FILE: {'x' * 5000}; mend it", 100)
    assert found.startswith("FILE: xxx") and found.endswith("; mend it")
    assert "(5,015 characters)" in found


def test_an_error_is_one_line_by_construction():
    said = str(InputError(f"{HOSTILE}: {'y' * 10**5}; fetch it again"))
    assert len(said) <= LONGEST and said.isprintable() and said.endswith("; fetch it again")
    assert str(InputError(said)) == said  # told again by what is around it


def test_a_list_says_how_many_more():
    assert listed(["a", "b"]) == "a, b"
    assert listed(f"n{i}" for i in range(10_000)) == "n0, n1, n2 and 9,997 more"


def test_a_librarys_exception_becomes_an_input_error():
    with pytest.raises(InputError, match=r"^f\.json: ValueError: bad \\x1b; mend$"):
        with refusing("f.json", "mend"):
            raise ValueError("bad\n\x1b")
    with pytest.raises(InputError, match="^kept$"):
        with refusing("f.json", "mend"):
            raise InputError("kept")
    for leaves in (KeyboardInterrupt, SystemExit):
        with pytest.raises(leaves):
            with refusing("f.json", "mend"):
                raise leaves
    assert in_words(FileNotFoundError(2, "No such file or directory", "/p")) == (
        "FileNotFoundError: No such file or directory"
    )
    assert in_words(MemoryError()) == "MemoryError"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1]",
        b'{"a": NaN}',
        b'{"a": ' + b"[" * 50_000,
        b'{"a": "\xff"}',
        b'{"a": ' + b"9" * 5_000 + b"}",
        b'{"a": 1',
        b'{"a": 1e999}',
        b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}",
    ],
    ids=["empty", "list", "NaN", "deep", "no UTF-8", "digits", "cut", "1e999", "65 deep"],
)
def test_files_that_hold_no_json_object(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json: .*; restore it$"):
        read_json(path)


def test_a_file_is_regular_and_of_bounded_size(tmp_path):
    import os

    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_whole(tmp_path / "file", "{}")
    assert read_json(tmp_path / "link") == {}  # as the hub's cache has them
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "nowhere"):
        with pytest.raises(InputError, match="; mend$"):
            read_bytes(tmp_path / name, mend="mend")
    with pytest.raises(InputError, match="2 bytes, above 1"):
        read_bytes(tmp_path / "file", mend="mend", most=1)


def test_lines_name_the_one_that_is_damaged(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"a": "x\u2028y"}, ensure_ascii=False) + "\n" + '{"b": 1}\n')
    assert read_lines(path) == [{"a": "x\u2028y"}, {"b": 1}]
    path.write_bytes(b'{"a": 1}\n{"a": \xff}\n')
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: UnicodeDecodeError"):
        read_lines(path)


def test_json_of_strangers_has_no_nan():
    with pytest.raises(ValueError, match="the number NaN is not finite"):
        parse_json('{"score": NaN}')
