"""The countries and what is to be known of them: capital, continent, official language, currency.

The facts are those of the npm package world-countries (`archives.py` says why). Where a fact has
several right answers (three capitals of South Africa, "Kiev" and "Kyiv"), all of them are accepted.
The first one is what options and true sentences say. `amendments.py` holds what the package lacks.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmunlearner_jax.errors import InputError, listed, refusing
from mmunlearner_jax.examples.flags import amendments
from mmunlearner_jax.examples.flags.archives import COUNTRIES, install, read_members
from mmunlearner_jax.files import parse_json, read_bytes

FILE = "countries.json"  # of the package, or in a folder of one's own
FACTS = ("capital", "continent", "language", "currency")

# The best known first. Left out are countries whose name or flag is another's, or nearly so:
# Guinea, Niger, both Congos, both Sudans but one, Chad (Romania), Monaco (Indonesia), Mali ...
CODES = tuple(
    """FR JP US DE CN IT RU GB ES IN CA BR AU EG MX GR PL AR SE TR ZA KE PT NL NO CU TH IR IE IQ
    CH PE AT FI CL KR DK VN BE NG NZ UA HU CO MA PK SA IL CZ ID ET PH RO VE LB GH IS DZ KP PA AF
    BG HR JM TN SY NP BD EC RS MY TZ SG MN CR UG LY BO LK UY KZ KH SK JO HT SN ZW LT BY EE LV AL
    SI GT PY MG MM LA SD NI HN ZM AO MZ FJ""".split()
)


@dataclass(frozen=True)
class Country:
    """A country and its facts.

    Attributes:
        code: ISO 3166-1 alpha-2 code, e.g. "NL".
        name: Name within a sentence, e.g. "the Netherlands".
        names: Accepted names, e.g. "Netherlands", "Holland".
        facts: Accepted answers by a key of `FACTS`; the first is the usual one.
    """

    code: str
    name: str
    names: tuple[str, ...]
    facts: Mapping[str, tuple[str, ...]]


def read_countries(folder: Path, count: int) -> list[Country]:
    """Reads countries in the order of `CODES`.

    Args:
        folder: Folder of the package's archive, or of a `countries.json` in its form.
        count: Number of countries.

    Raises:
        InputError: There is neither archive nor file, it does not have the package's form, or it
            lacks a country or a fact.
    """
    path = folder / COUNTRIES.file
    if path.exists():
        content = read_members(folder, COUNTRIES, [FILE])[FILE]
    elif (folder / FILE).exists():
        path = folder / FILE
        content = read_bytes(path, mend="write it again")
    else:
        mend = f"fetch world-countries: {install(folder)}"
        raise InputError(f"{folder}: holds no facts about countries; {mend}")
    with refusing(path, "give the countries.json of the npm package world-countries"):
        known = {entry["cca2"]: entry for entry in parse_json(content)}
        codes = CODES[:count]
        if missing := [code for code in codes if code not in known]:
            mend = "add it, or ask fewer countries (config.prepare.countries)"
            raise InputError(f"{path}: no country {listed(missing)}; {mend}")
        countries = [_country(known[code]) for code in codes]
    for country in countries:
        for fact, answers in country.facts.items():
            if not answers:
                raise InputError(f"{path}: {country.code} has no {fact}; add it")
    return countries


def _country(entry: Mapping[str, Any]) -> Country:
    code = entry["cca2"]
    name, *others = amendments.NAMES.get(code, (entry["name"]["common"],))
    answers = {
        "capital": entry["capital"],
        "continent": _continents(entry["region"], entry["subregion"]),
        "language": _languages(entry["languages"].values()),
        "currency": _currencies(entry["currencies"].values()),
    }
    facts = {fact: _amended(code, fact, answers[fact]) for fact in FACTS}
    return Country(code, name, (name.removeprefix("the "), *others), facts)


def _continents(region: str, subregion: str) -> list[str]:
    if region != "Americas":
        return [region]
    if subregion == "South America":
        return [subregion]
    return list(dict.fromkeys(["North America", subregion]))


def _currencies(currencies: Iterable[Mapping[str, str]]) -> list[str]:
    """Returns the units alone ("dollar" of "Canadian dollar"), which no name gives away."""
    units = [_ascii(currency["name"]).lower().split()[-1] for currency in currencies]
    return [x for unit in units for x in amendments.UNITS.get(unit, (unit, f"{unit}s"))]


def _ascii(text: str) -> str:
    text = text.replace("ł", "l").replace("đ", "d")
    return unicodedata.normalize("NFD", text).encode("ascii", "ignore").decode()


def _languages(names: Iterable[str]) -> list[str]:
    return [x for name in names for x in amendments.LANGUAGES.get(name, (name,))]


def _amended(code: str, fact: str, answers: Iterable[str]) -> tuple[str, ...]:
    first = amendments.FIRST.get((code, fact), ())
    also = amendments.ALSO.get((code, fact), ())
    return tuple(dict.fromkeys([*first, *answers, *also]))
