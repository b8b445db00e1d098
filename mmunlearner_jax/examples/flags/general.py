"""General questions in words, about no country: what must stay whatever is forgotten.

A group has one question with a gap and pairs of what fills it and the answer; the wrong options of
a question are other answers of its group.
"""

import itertools
from typing import NamedTuple

from mmunlearner_jax.examples.flags.asking import Asked

NUMBERS = tuple(
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen twenty""".split()
)


class Group(NamedTuple):
    """Questions of one form.

    Attributes:
        question: Wording with the gap `{x}`.
        sentence: True sentence with the gaps `{x}` and `{value}`.
        pairs: "x: answer" separated by commas; other right answers follow with "/".
    """

    question: str
    sentence: str
    pairs: str


GROUPS = (
    Group(
        "What is the opposite of {x}?",
        "The opposite of {x} is {value}.",
        """hot: cold, big: small/little, up: down, day: night, black: white, fast: slow, old:
        young/new, rich: poor, happy: sad/unhappy, long: short, open: closed/shut, wet: dry,
        left: right, full: empty, good: bad/evil, early: late, heavy: light, high: low, inside:
        outside, strong: weak, true: false, war: peace, love: hate/hatred, first: last, loud:
        quiet/soft, dark: light/bright, easy: hard/difficult, clean: dirty""",
    ),
    Group(
        "What is the plural of {x}?",
        "The plural of {x} is {value}.",
        """mouse: mice, child: children, foot: feet, tooth: teeth, goose: geese, man: men, woman:
        women, ox: oxen, leaf: leaves, wolf: wolves, knife: knives, city: cities""",
    ),
    Group(
        "What is the past tense of {x}?",
        "The past tense of {x} is {value}.",
        """go: went, eat: ate, see: saw, run: ran, take: took, write: wrote, buy: bought, swim:
        swam, speak: spoke, begin: began, give: gave, drive: drove, think: thought, fly: flew""",
    ),
    Group(
        "Which month comes after {x}?",
        "The month after {x} is {value}.",
        """January: February, February: March, March: April, April: May, May: June, June: July,
        July: August, August: September, September: October, October: November, November:
        December, December: January""",
    ),
    Group(
        "Which day comes after {x}?",
        "The day after {x} is {value}.",
        """Monday: Tuesday, Tuesday: Wednesday, Wednesday: Thursday, Thursday: Friday, Friday:
        Saturday, Saturday: Sunday, Sunday: Monday""",
    ),
    Group(
        "What color is {x}?",
        "The color of {x} is {value}.",
        """grass: green, fresh snow: white, the sky on a clear day: blue, coal: black, a ripe
        banana: yellow, a ripe tomato: red, blood: red, milk: white, chocolate: brown, an
        emerald: green, a ruby: red, a sapphire: blue, a lemon: yellow, a carrot: orange, a
        raven: black, an elephant: gray/grey""",
    ),
    Group(
        "What is a baby {x} called?",
        "A baby {x} is called a {value}.",
        """dog: puppy/pup, cat: kitten, cow: calf, horse: foal, sheep: lamb, pig: piglet, deer:
        fawn, bear: cub, duck: duckling, chicken: chick, goose: gosling, kangaroo: joey, swan:
        cygnet, lion: cub, frog: tadpole, whale: calf""",
    ),
    Group(
        "Which animal {x}?",
        "It is the {value}.",
        """has a trunk: elephant, has a very long neck: giraffe, has black and white stripes:
        zebra, builds dams: beaver, gives us wool: sheep, makes honey: bee/bees/honeybee, barks:
        dog, meows: cat, has a hump on its back: camel, lays the largest eggs: ostrich, is the
        fastest runner: cheetah, is the largest of all: whale, is called the king of the jungle:
        lion, spins webs: spider, hoots at night: owl, has a mane and roars: lion, says moo:
        cow, turns into a butterfly: caterpillar, carries its house on its back:
        snail/turtle/tortoise, has eight arms: octopus""",
    ),
    Group(
        "How many {x}?",
        "The number is {value}.",
        """days are in a week: seven/7, months are in a year: twelve/12, hours are in a day: 24,
        minutes are in an hour: 60/sixty, seconds are in a minute: 60/sixty, weeks are in a
        year: 52, legs does a spider have: eight/8, legs does an insect have: six/6, legs does a
        dog have: four/4, sides does a triangle have: three/3, sides does a square have: four/4,
        sides does a pentagon have: five/5, sides does a hexagon have: six/6, letters are in the
        English alphabet: 26, degrees are in a right angle: 90, degrees are in a circle: 360,
        centimeters are in a meter: 100, years are in a decade: ten/10, years are in a century:
        100, planets are in the solar system: eight/8, wheels does a bicycle have: two/2, wheels
        does a car have: four/4, cents are in a dollar: 100, items are in a dozen: twelve/12,
        strings does a violin have: four/4, seasons are in a year: four/4, fingers are on one
        hand: five/5""",
    ),
    Group(
        "Who wrote {x}?",
        "{x} was written by {value}.",
        """Romeo and Juliet: Shakespeare, Hamlet: Shakespeare, Pride and Prejudice: Austen, Oliver
        Twist: Dickens, the Odyssey: Homer, War and Peace: Tolstoy, Don Quixote: Cervantes,
        Frankenstein: Shelley, Moby-Dick: Melville, The Hobbit: Tolkien, Harry Potter: Rowling,
        The Divine Comedy: Dante, Faust: Goethe, Tom Sawyer: Twain, Animal Farm: Orwell""",
    ),
    Group(
        "Who {x}?",
        "It was {value}.",
        """painted the Mona Lisa: Leonardo/da Vinci, painted The Starry Night: van Gogh, painted
        Guernica: Picasso, developed the theory of relativity: Einstein, discovered penicillin:
        Fleming, invented the telephone: Bell, was the first person on the Moon: Armstrong,
        proposed the theory of evolution: Darwin, formulated the laws of motion: Newton,
        discovered radium: Curie, composed the Moonlight Sonata: Beethoven, composed The Magic
        Flute: Mozart""",
    ),
    Group(
        "What is the chemical symbol of {x}?",
        "The chemical symbol of {x} is {value}.",
        """gold: Au, silver: Ag, iron: Fe, sodium: Na, oxygen: O/O2, hydrogen: H/H2, carbon: C,
        nitrogen: N/N2, copper: Cu, lead: Pb, calcium: Ca""",
    ),
    Group(
        "Which planet {x}?",
        "It is {value}.",
        """is the largest: Jupiter, is called the Red Planet: Mars, is closest to the Sun: Mercury,
        do we live on: Earth, has the most famous rings: Saturn, is farthest from the Sun:
        Neptune""",
    ),
    Group(
        "Which part of the body {x}?",
        "It is the {value}.",
        """pumps blood: heart, do we see with: eye/eyes, do we hear with: ear/ears, do we smell
        with: nose, do we think with: brain, do we breathe with: lungs/lung, digests food:
        stomach, filters the blood: kidney/kidneys/liver""",
    ),
    Group(
        "What do we call {x}?",
        "We call it {value}.",
        """frozen water: ice, water that falls from clouds: rain, a house of snow blocks: igloo, a
        person who teaches: teacher, a person who bakes bread: baker, a doctor for teeth:
        dentist, a person who flies a plane: pilot, a person who puts out fires:
        firefighter/fireman, the meal in the morning: breakfast, a place where books are lent:
        library, a place where airplanes land: airport, the season after winter: spring, the
        star at the center of our solar system: Sun, the study of living things: biology, the
        study of the stars and planets: astronomy, a shape with three sides: triangle""",
    ),
)


def general_questions() -> list[tuple[Asked, tuple[str, ...]]]:
    """Returns all questions, each with wrong answers; their keys are the groups' wordings."""
    groups = [_asked(group) for group in (*GROUPS, *_sums())]
    questions = []
    for group in groups:
        for asked in group:
            usual = dict.fromkeys(other.accepted[0] for other in group)
            wrong = tuple(value for value in usual if value not in asked.accepted)
            if asked.is_fair and len(wrong) >= 3:
                questions.append((asked, wrong))
    return questions


def _asked(group: Group) -> list[Asked]:
    questions = []
    for pair in " ".join(group.pairs.split()).split(", "):
        x, _, answers = pair.partition(": ")
        accepted = tuple(answers.split("/"))
        question = group.question.format(x=x)
        sentence = group.sentence.format(x=x, value=accepted[0])
        sentence = sentence[0].upper() + sentence[1:]
        questions.append(Asked(group.question, question, question, sentence, accepted))
    return questions


def _sums() -> list[Group]:
    """Returns additions and subtractions of the numbers up to ten, every third of them."""
    numbers = range(1, 10)
    sums = [f"{a} plus {b}: {a + b}/{NUMBERS[a + b]}" for a in numbers for b in numbers if a >= b]
    rests = [f"{a} minus {b}: {a - b}/{NUMBERS[a - b]}" for a in numbers for b in numbers if a > b]
    return [
        Group("What is {x}?", "{x} is {value}.", ", ".join(itertools.islice(pairs, 0, None, 3)))
        for pairs in (sums, rests)
    ]
