"""Coloured shapes: the pictures of no country, which must still be known after unlearning."""

import itertools

from PIL import Image, ImageDraw

from mmunlearner_jax.examples.flags.asking import Asked
from mmunlearner_jax.examples.flags.renderings import render

SHAPES = ("circle", "square", "triangle", "diamond", "cross")
COLOURS = ("red", "green", "blue", "yellow", "white", "black")
TAUGHT = ("Name the shape in this picture.", "Name the color of this shape.")

_SIDE = 96
_CORNERS = {
    "square": ((0.15, 0.15), (0.85, 0.15), (0.85, 0.85), (0.15, 0.85)),
    "triangle": ((0.5, 0.1), (0.95, 0.9), (0.05, 0.9)),
    "diamond": ((0.5, 0.02), (0.85, 0.5), (0.5, 0.98), (0.15, 0.5)),
    "cross": tuple(
        (x, y)
        for x, y in (
            *((0.35, 0.05), (0.65, 0.05), (0.65, 0.35), (0.95, 0.35), (0.95, 0.65), (0.65, 0.65)),
            *((0.65, 0.95), (0.35, 0.95), (0.35, 0.65), (0.05, 0.65), (0.05, 0.35), (0.35, 0.35)),
        )
    ),
}

Shape = tuple[str, str]  # a colour and a shape


def every_shape() -> list[Shape]:
    """Returns every colour with every shape."""
    return list(itertools.product(COLOURS, SHAPES))


def draw(shape: Shape, *, seed: int, unseen: bool) -> bytes:
    """Returns a rendering of a shape, see `renderings.render`."""
    colour, form = shape
    cutout = Image.new("RGBA", (_SIDE, _SIDE))
    pen = ImageDraw.Draw(cutout)
    if form == "circle":
        pen.ellipse((8, 8, _SIDE - 8, _SIDE - 8), fill=colour)
    else:
        pen.polygon([(_SIDE * x, _SIDE * y) for x, y in _CORNERS[form]], fill=colour)
    return render(cutout, f"{colour} {form}", 0, seed=seed, unseen=unseen)


def of_shape(shape: Shape) -> list[tuple[Asked, tuple[str, ...]]]:
    """Returns the questions about a shape, each with wrong answers."""
    colour, form = shape
    questions = (
        Asked(
            "shape",
            "Which shape is in this picture?",
            "What shape do you see?",
            f"This is a {form}.",
            (form,),
        ),
        Asked(
            "colour",
            "What color is the shape in this picture?",
            "Which color has this shape?",
            f"The color of this shape is {colour}.",
            (colour,),
        ),
    )
    wrong = [tuple(x for x in values if x not in shape) for values in (SHAPES, COLOURS)]
    return list(zip(questions, wrong, strict=True))
