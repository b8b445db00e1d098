"""Makes broken inputs from good ones, reproducibly for a seed."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# Replacements of a JSON value: other types, extremes, text that affects terminals or paths.
NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 10**15, 0.5, 1e308, float("nan"), float("inf")),
    *(
        "",
        "x" * 10_000,
        "\x1b[2J\x07",
        "[red]a[/red]",
        "\ud83d",
        "../../../etc/passwd",
        "/dev/zero",
    ),
    *("{{ 'a' * 10 ** 10 }}", "<image>", "NaN", "0", "\u202e\u0000", "(a+)+$"),
    *([], {}, [[]], [None], ["a", 1], {"": ""}, {"a": {"a": {"a": []}}}),
)


def of_bytes(good: bytes, rng: np.random.Generator) -> bytes:
    """Damages bytes one to four times.

    Each time it flips a bit, sets a byte, removes, repeats, overwrites or copies a part, or cuts
    off the end.
    """
    data = bytearray(good)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(len(data) + 1)) if rng.random() < 0.5 else int(rng.integers(64))
        place = min(place, max(len(data) - 1, 0))
        length = int(rng.integers(1, 65))
        match rng.integers(7):
            case 0:
                data[place : place + 1] = bytes(
                    b ^ 1 << int(rng.integers(8)) for b in data[place : place + 1]
                )
            case 1:
                data[place : place + 1] = bytes([int(rng.choice([0, 1, 127, 128, 255]))])
            case 2:
                del data[place : place + length]
            case 3:
                data[place:place] = data[place : place + length] * int(rng.integers(1, 20))
            case 4:
                data[place : place + 4] = rng.bytes(4)
            case 5:
                other = int(rng.integers(len(data) + 1))
                data[place:place] = data[other : other + length]
            case _:
                del data[max(place, 1) :]
    return bytes(data)


def of_json(good: Any, rng: np.random.Generator) -> Any:
    """Replaces, removes, renames or wraps one to three values anywhere in a tree."""
    value = copy.deepcopy(good)
    for _ in range(rng.integers(1, 4)):
        places = list(_places(value))
        if not places:
            return value
        holder, key = places[int(rng.integers(len(places)))]
        match rng.integers(6):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[f"{key}_"] = holder.pop(key)
            case 2:
                holder[key] = [holder[key]]
            case 3:
                holder[key] = str(holder[key])
            case _:
                holder[key] = copy.deepcopy(NASTY[int(rng.integers(len(NASTY)))])
    return value


def of_json_text(good: Any, rng: np.random.Generator) -> bytes:
    """Returns JSON of a changed tree (80 %), changed bytes of JSON, or very deeply nested text."""
    kind = rng.random()
    if kind < 0.02:
        return b'{"a":' * 50_000
    if kind < 0.2:
        return of_bytes(json.dumps(good).encode(), rng)
    return json.dumps(of_json(good, rng)).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yields the container and the key of every value in a tree."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


Mutation = Callable[[Any, np.random.Generator], Any]
