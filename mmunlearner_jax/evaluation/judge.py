"""Grades the open answers of a run for factuality, 1 to 10, with a language model.

    python -m mmunlearner_jax.evaluation.judge --workdir=... --endpoint=https://... --model=...

The endpoint must offer OpenAI's chat completions; its key is read from OPENAI_API_KEY. The protocol
is MLLMU-Bench's with a rubric in our own words, so figures are not comparable with published ones
to the decimal. Grades are stored in `judge/`, beside `predictions/`, and are not requested again.
Questions, references and answers are sent to the endpoint; pictures are not.
"""

import glob
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax

from mmunlearner_jax.command_line import one_line, steady_streams
from mmunlearner_jax.errors import InputError, refusing, shown
from mmunlearner_jax.evaluation.chat import Chat, chat_arguments, read_key
from mmunlearner_jax.evaluation.predictions import prediction
from mmunlearner_jax.evaluation.scores import mean_score
from mmunlearner_jax.files import parse_json, read_lines
from mmunlearner_jax.lock import locked
from mmunlearner_jax.progress import Progress
from mmunlearner_jax.results import read_results, update_results

RUBRIC = """\
You grade answers for factual accuracy. You get a question, a reference that is true by definition,
and the answer to grade. Judge only whether the answer's facts agree with the reference; style,
length and politeness do not count.

10: every fact of the reference is there and nothing contradicts it.
7 to 9: the main fact is right; a detail is missing or inexact.
4 to 6: some facts are right, others are missing or wrong.
2 to 3: almost everything is wrong, but the answer keeps to the subject.
1: everything is wrong, or the answer is empty, senseless or about something else.

Give your reason in one sentence. Then end with one line of this form, N a whole number:
Factuality Score: N"""

# Repetitions are bounded, so that matching takes little time on any reply.
_SCORE = re.compile(
    r"Factuality Score[^:\n]{0,200}:[^\d\n]{0,200}(\d++)(?!\.\d)", re.IGNORECASE | re.ASCII
)
_GRADES = [str(grade) for grade in range(1, 11)]


def parse_score(reply: str) -> int | None:
    """Returns the grade, 1 to 10, of the last line `Factuality Score: N`; None without one."""
    numbers = _SCORE.findall(reply)
    return int(numbers[-1]) if numbers and numbers[-1] in _GRADES else None


class Judge(Chat):
    """A chat model that grades answers."""

    def ask(self, question: str, answer: str, response: str) -> str:
        """Returns the model's reply about one response.

        Raises:
            InputError: As in `reply`.
        """
        text = f"Question: {question}\n\nReference: {answer}\n\nAnswer to grade: {response}"
        messages = [{"role": "system", "content": RUBRIC}, {"role": "user", "content": text}]
        return self.reply(messages, most_tokens=700)


def grade(workdir: Path, label: str, judge: Judge) -> dict[str, Any]:
    """Grades the open answers of one model that have no grade yet.

    Args:
        workdir: Folder of the run; `predictions/` is read and `judge/` is written.
        label: First part of the prediction files' names, e.g. `after`.
        judge: The grading model.

    Returns:
        `{split: {"vqa"|"qa": {"factuality": {"value", "n", "ci95", "unread"}}}}`: the mean grade,
        1 to 10, with its bootstrap interval. `unread` counts replies without a grade, which are not
        in `n`.

    Raises:
        InputError: There are no open answers, or no reply has a grade.
    """
    folder, grades = workdir / "judge", defaultdict(list)
    files = sorted((workdir / "predictions").glob(f"{glob.escape(label)}-*.jsonl"))
    answers = {file: list(filter(None, read_lines(file, _open_answer))) for file in files}
    if not any(answers.values()):
        raise InputError(
            f"{workdir / 'predictions'}: no open answers of {label!r}; run the stage evaluate, or"
            " give another --label"
        )
    total, name = sum(map(len, answers.values())), shown(judge.model, 40)
    with (
        refusing(folder, "make it writable, then repeat the command"),
        Progress(name, total, unit="answer") as progress,
    ):
        folder.mkdir(exist_ok=True)
        for file, lines in answers.items():
            path = folder / file.name
            kept = read_lines(path, _graded, mend="remove the line") if path.exists() else []
            known = {_key(x, x["model"]): x["grade"] for x in kept if x["grade"] is not None}
            with path.open("a") as out:
                for line in lines:
                    key = _key(line, judge.model)
                    if key not in known:
                        reply = judge.ask(line["question"], line["answer"], line["response"])
                        known[key] = parse_score(reply)
                        record = dict(zip(_KEY, key, strict=True))
                        record |= {"grade": known[key], "reply": judge.without_secrets(reply)}
                        out.write(json.dumps(record) + "\n")
                        out.flush()
                    grades[line["split"], line["modality"]].append(known[key])
                    progress.update()
    return _summary(grades, f"{folder}: of {judge.model}")


def _open_answer(text: str) -> dict[str, Any]:
    """Parses a line of predictions; returns {} if it is no open answer."""
    line = prediction(text)
    if line["task"] != "generation":
        return {}
    if missing := {"split", "modality", "question", "answer", "response"} - {*line}:
        raise ValueError(f"has no {', '.join(sorted(missing))}")
    return line


def _graded(text: str) -> dict[str, Any]:
    """Parses a line of `judge/`."""
    line = parse_json(text)
    _key(line, line["model"])
    if line["grade"] is not None and str(line["grade"]) not in _GRADES:
        raise ValueError(f"the grade {shown(line['grade'], 40)} is not from 1 to 10")
    return line


def _summary(grades: dict[tuple[str, str], list[int | None]], where: str) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for (split, modality), values in grades.items():
        read = [value for value in values if value is not None]
        if not read:
            raise InputError(
                f"{where}, no reply for {split}/{modality} has a line 'Factuality Score: N'; give"
                " another --model"
            )
        cell = {**mean_score(read), "unread": len(values) - len(read)}
        scores.setdefault(split, {})[modality] = {"factuality": cell}
    return scores


_KEY = ("model", "question", "answer", "response")


def _key(line: dict[str, Any], model: str) -> tuple[str, ...]:
    return model, line["question"], line["answer"], line["response"]


def main(arguments: list[str] | None = None) -> None:
    """Grades answers and writes the entry `judge` of `results.json`, by label and grading model.

    Args:
        arguments: Arguments of the command line.

    Raises:
        InputError: A flag, the key, the predictions or the endpoint is wrong.
    """
    parser = chat_arguments(__doc__)
    parser.add_argument("--label", default="after", help="model: before, after, or a control")
    options = parser.parse_args(arguments)
    key = read_key()
    judge = Judge(options.endpoint, options.model, key)
    jax.config.update("jax_platforms", "cpu")  # another run may be using the accelerator
    workdir, label = options.workdir, options.label
    if not workdir.is_dir():
        raise InputError(f"--workdir={workdir}: is no folder; give that of an evaluated run")
    with locked(workdir):
        scores = grade(workdir, label, judge)
        by_model = read_results(workdir).get("judge", {}).get(label, {})
        update_results(workdir, "judge", {label: {**by_model, options.model: scores}})


if __name__ == "__main__":
    steady_streams()
    with one_line(Path("judge")):
        main()
