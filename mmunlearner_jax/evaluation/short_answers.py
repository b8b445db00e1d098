"""Scoring of short answers, by the rules of the benchmarks of general ability.

A line of the task "short" names its rule. No rule asks another model.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mmunlearner_jax.data.samples import option_letters
from mmunlearner_jax.evaluation.texts import has_words, words

_ENOUGH = 3  # people who must agree for a full score

_NUMBERS = "zero one two three four five six seven eight nine ten".split()
_DIGITS = {"none": "0", **{word: str(n) for n, word in enumerate(_NUMBERS)}}
_ARTICLES = ("a", "an", "the")
_MARKS = ';/[]"{}()=+\\_-><@`!'
_CONTRACTED = """ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't
hadn't've hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am
mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't
she'd've
should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've
someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
you've""".split()
# By each spelling that lacks one apostrophe.
_SPELLINGS = {
    form[:n] + form[n + 1 :]: form for form in _CONTRACTED for n, c in enumerate(form) if c == "'"
} | {"somebody'd": "somebodyd"}


def scored_short(line: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the score of a line of the task "short".

    Args:
        line: Prediction with `rule`, `answer`, `accepted`, `options`, `letters` and `response`.

    Returns:
        `correct`; of the rules "letter" and "yes_no" also `said`, what was read (None: nothing); of
        the rule "vqa" also `credit`, 0 to 1, and then `correct` is a credit of 1.

    Raises:
        ValueError: The rule is unknown.
    """
    if line["rule"] not in _RULES:
        raise ValueError(f"rule {line['rule']!r} is none of {', '.join(_RULES)}")
    return _RULES[line["rule"]](line)


def read_letter(response: str, options: Sequence[str]) -> str | None:
    """Returns the letter of the option that an answer names; None if it names none, or several.

    The answer begins with the letter and a mark ("B. A cat"), or exactly one letter stands in it as
    a word ("The answer is B"), or exactly one option's words do. In an answer of more than three
    words, "A" and "I" are taken for the article and the pronoun.

    Args:
        response: The model's answer.
        options: Texts of the options.
    """
    letters = option_letters(options)
    first = re.match(r"\W*([A-Z])(?:\W*$|[.):,])", response)
    if first and first[1] in letters:
        return first[1]
    spoken = re.findall(r"\w+", response)
    named = {word for word in spoken if len(word) == 1 and word in letters}
    named -= {"A", "I"} if len(spoken) > 3 else set()
    if not named:
        pairs = zip(letters, options, strict=True)
        named = {letter for letter, option in pairs if has_words(response, option)}
    return named.pop() if len(named) == 1 else None


def read_yes_no(response: str) -> str | None:
    """Returns the first "yes" or "no" among the words of an answer; None if there is none."""
    return next((word for word in words(response) if word in ("yes", "no")), None)


def normalised(answer: str) -> str:
    """Returns an answer as the VQA challenge's server (EvalAI) compares it.

    Case, punctuation, articles and apostrophes of contractions do not count; number words become
    digits. A mark next to a blank is dropped, and elsewhere becomes a blank.

    Source: the rules at https://visualqa.org/evaluation.html.
    """
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    before = re.sub(r"[\n\t]", " ", text).strip()
    text = before
    for mark in _MARKS:
        lone = f"{mark} " in before or f" {mark}" in before
        text = text.replace(mark, "" if lone else " ")
    text = re.sub(r"\.(?!\d)", "", text)
    spoken = (_DIGITS.get(word, word) for word in text.split())
    return " ".join(_SPELLINGS.get(word, word) for word in spoken if word not in _ARTICLES)


def vqa_credit(response: str, answers: Sequence[str]) -> float:
    """Returns the VQA score: the mean over people of min(1, others who gave this answer / 3).

    Args:
        response: The model's answer.
        answers: One answer of each person, at least one.

    Returns:
        A number from 0 to 1.
    """
    same = [normalised(answer) == normalised(response) for answer in answers]
    return sum(min(1.0, (sum(same) - own) / _ENOUGH) for own in same) / len(same)


def collapsed(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns lines with one for all rotations of a question, which is right if all of them are.

    Args:
        lines: Scored predictions; rotations of a short question have the same `group`.
    """
    merged: dict[Any, Mapping[str, Any]] = {}
    for number, line in enumerate(lines):
        rotated = line.get("group") and line["task"] == "short"
        key = (line["split"], line["group"]) if rotated else number
        other = merged.get(key)
        both = other is None or (other["correct"] and line["correct"])
        merged[key] = line if other is None else {**other, "correct": both}
    return list(merged.values())


def credit(line: Mapping[str, Any]) -> float:
    """Returns how right a short answer is, 0 to 1."""
    return float(line.get("credit", line["correct"]))


def _letter(line: Mapping[str, Any]) -> dict[str, Any]:
    said = read_letter(line["response"], line["options"])
    return {"said": said, "correct": said == line["letters"]}


def _yes_no(line: Mapping[str, Any]) -> dict[str, Any]:
    said = read_yes_no(line["response"])
    return {"said": said, "correct": said == line["answer"].lower()}


def _exact(line: Mapping[str, Any]) -> dict[str, Any]:
    given, wanted = (line[x].strip().rstrip(".").lower() for x in ("response", "answer"))
    return {"correct": given == wanted}


def _words(line: Mapping[str, Any]) -> dict[str, Any]:
    return {"correct": any(has_words(line["response"], text) for text in line["accepted"])}


def _vqa(line: Mapping[str, Any]) -> dict[str, Any]:
    credit = round(vqa_credit(line["response"], line["accepted"]), 6)
    return {"credit": credit, "correct": credit == 1}


_RULES: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "letter": _letter,
    "yes_no": _yes_no,
    "exact": _exact,
    "words": _words,
    "vqa": _vqa,
}
