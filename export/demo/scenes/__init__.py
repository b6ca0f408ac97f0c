"""Drawn scenes with exact truth: coloured shapes, printed words, faces that look somewhere.

They teach the demo models and test them. Everything follows from the seed: the same seed, size and plan make
the same scene, bit for bit. The shipped weights were trained on these scenes.
"""

from export.demo.scenes.painter import OVERSAMPLING, Painter
from export.demo.scenes.plan import FIRST_UNSEEN_SEED, Plan, draw
from export.demo.scenes.scene import COLOURS, PHRASES, SHAPES, DrawnFace, Pixels, Scene, Thing, Word
from export.demo.scenes.words import ALPHABET, FONTS, PILLOW_FONT, font, word

__all__ = [
    "ALPHABET",
    "COLOURS",
    "FIRST_UNSEEN_SEED",
    "FONTS",
    "OVERSAMPLING",
    "PHRASES",
    "PILLOW_FONT",
    "SHAPES",
    "DrawnFace",
    "Painter",
    "Pixels",
    "Plan",
    "Scene",
    "Thing",
    "Word",
    "draw",
    "font",
    "word",
]
