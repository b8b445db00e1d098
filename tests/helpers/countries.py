"""A small stand-in for the npm archives of the flags benchmark: drawn flags, and facts in the form
of world-countries.
"""

import json
from pathlib import Path

from PIL import Image, ImageDraw

FACTS = """FR France Paris Europe Western French Euro
JP Japan Tokyo Asia Eastern Japanese Japanese_yen
US United_States Washington_D.C. Americas North_America English United_States_dollar
DE Germany Berlin Europe Western German Euro
CN China Beijing Asia Eastern Chinese Chinese_yuan
IT Italy Rome Europe Southern Italian Euro
RU Russia Moscow Europe Eastern Russian Russian_ruble
GB United_Kingdom London Europe Northern English British_pound
ES Spain Madrid Europe Southern Spanish Euro
IN India New_Delhi Asia Southern English,Hindi,Tamil Indian_rupee
CA Canada Ottawa Americas North_America English,French Canadian_dollar
BR Brazil Brasília Americas South_America Portuguese Brazilian_real
AU Australia Canberra Oceania Australia English Australian_dollar
EG Egypt Cairo Africa Northern Arabic Egyptian_pound
MX Mexico Mexico_City Americas North_America Spanish Mexican_peso
GR Greece Athens Europe Southern Greek Euro
PL Poland Warsaw Europe Central Polish Polish_złoty
AR Argentina Buenos_Aires Americas South_America Guaraní,Spanish Argentine_peso
SE Sweden Stockholm Europe Northern Swedish Swedish_krona
TR Türkiye Ankara Asia Western Turkish Turkish_lira
ZA South_Africa Pretoria,Bloemfontein,Cape_Town Africa Southern Afrikaans,English,Zulu rand"""
COUNT = len(FACTS.splitlines())


def entries() -> list[dict]:
    """The entries of `countries.json`."""
    found = []
    for line in FACTS.splitlines():
        code, name, capital, region, subregion, languages, currency = (
            field.replace("_", " ") for field in line.split(" ")
        )
        found.append(
            {
                "cca2": code,
                "name": {"common": name},
                "capital": capital.split(","),
                "region": region,
                "subregion": subregion,
                "languages": dict(enumerate(languages.split(","))),
                "currencies": {"XXX": {"name": currency, "symbol": "x"}},
            }
        )
    return found


def write_countries(folder: Path) -> Path:
    """Writes `countries.json` and a flag of three stripes for each country; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "countries.json").write_text(json.dumps(entries()))
    for number, entry in enumerate(entries()):
        flag = Image.new("RGB", (60, 40))
        pen = ImageDraw.Draw(flag)
        for stripe in range(3):
            colour = [(number * (7 + 4 * stripe + channel) * 53) % 256 for channel in range(3)]
            pen.rectangle((20 * stripe, 0, 20 * stripe + 19, 39), fill=tuple(colour))
        flag.save(folder / f"{entry['cca2'].lower()}.png")
    return folder
