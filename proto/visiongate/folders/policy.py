"""Policies of moderation: what is not wanted on photos, how it is recognised, and what follows."""

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from visiongate.operations.arguments import shown

BLOCK = "block"
REVIEW = "review"
FINE = "fine"
NOT_JUDGED = "not judged"
VERDICTS = (BLOCK, REVIEW, NOT_JUDGED, FINE)
"""From the worst to the best. A photo that no model could read is not fine: nobody has seen it."""

ACTIONS = (BLOCK, REVIEW)
"""What a category can ask for: each is also the key of its threshold."""

DISCLAIMER = (
    "This is no safety guarantee: the models miss things, and see things that are not there. "
    "Let people decide what matters."
)

# Boxes of lower scores are not asked for. Thresholds above it can change without asking the model anew.
LEAST_SCORE = 0.1

_TOP_KEYS = ("template", "neutral", "model", "detection_model", "category", "detect")
_TABLES = {"category": "prompts", "detect": "phrases"}
"""The tables of a policy, and the key of the words in each."""


@dataclass(frozen=True, slots=True)
class Category:
    """What is not wanted. words: prompts for CLIP, or phrases for Grounding DINO, by which it is recognised.

    thresholds: the least score, over 0 to 1, of each action that the category asks for, the worst first.
    """

    name: str
    words: tuple[str, ...]
    thresholds: Mapping[str, float]

    def verdict(self, score: float) -> str:
        """Return what the category says about a photo with this score."""
        return next((action for action, least in self.thresholds.items() if score >= least), FINE)

    def risk(self, score: float) -> float:
        """Return how near a score is to the lowest threshold: 1 or more has reached it."""
        return score / min(self.thresholds.values())


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a policy says about a photo.

    verdict: one of VERDICTS. category: the name of the one that is most at risk. risk: its score as a
    multiple of its lowest threshold. scores: of every category, 0 to 1. Without scores there is an error.
    """

    verdict: str
    category: str = ""
    risk: float = 0
    scores: Mapping[str, float] | None = None
    error: str = ""

    @property
    def severity(self) -> tuple[int, float]:
        """What photos are sorted by, the worst first."""
        return VERDICTS.index(self.verdict), -self.risk

    def as_dict(self, photo: str) -> dict[str, Any]:
        """Return what JSON holds about the photo of this id."""
        return {
            "id": photo,
            "verdict": self.verdict,
            "category": self.category or None,
            "risk": None if self.scores is None else round(self.risk, 4),
            "scores": self.scores and {name: round(score, 6) for name, score in self.scores.items()},
            "error": self.error or None,
        }


@dataclass(frozen=True)
class Policy:
    """A policy. classified: categories by prompts; neutral: what else photos show. detected: by phrases.

    template: what CLIP is asked about a prompt, which takes the place of {}; None is the server's. model and
    detection_model: variants, "" for the server's.
    """

    classified: tuple[Category, ...]
    detected: tuple[Category, ...]
    neutral: tuple[str, ...] = ()
    template: str | None = None
    model: str = ""
    detection_model: str = ""

    @cached_property
    def labels(self) -> list[str]:
        """What CLIP is asked about: the prompts of all categories, then what is neutral."""
        return [*_words(self.classified), *self.neutral]

    @cached_property
    def phrases(self) -> list[str]:
        """What Grounding DINO is asked about."""
        return list(_words(self.detected))

    @cached_property
    def least_score(self) -> float:
        """The least score of a box that is asked for."""
        thresholds = (least for category in self.detected for least in category.thresholds.values())
        return min([LEAST_SCORE, *thresholds])

    def judge(
        self, probabilities: Iterable[tuple[str, float]], detections: Iterable[tuple[str, float]]
    ) -> Judgement:
        """Judge a photo by the probability of each label, and by the phrase and score of each detection.

        A prompt's probability is its share among all labels, which together have 1. Several prompts that fit
        divide it among them. So a category's score is the sum of its prompts'. Detections do not share: a
        category's score is that of its best one.
        """
        shares = dict(probabilities)
        best: dict[str, float] = {}
        for phrase, score in detections:
            best[phrase] = max(best.get(phrase, 0), score)
        scores = [
            (category, min(1.0, sum(shares.get(word, 0) for word in category.words)))
            for category in self.classified
        ]
        scores += [
            (category, max(best.get(word, 0) for word in category.words)) for category in self.detected
        ]
        judgements = [
            Judgement(category.verdict(score), category.name, category.risk(score))
            for category, score in scores
        ]
        worst = min(judgements, key=lambda judgement: judgement.severity)
        return replace(worst, scores={category.name: score for category, score in scores})


def example() -> str:
    """Return the text of the policy that ships with the package."""
    return (resources.files("visiongate.folders") / "examples" / "policy.toml").read_text(encoding="utf-8")


def read_policy(path: Path) -> Policy:
    """Read a policy's file. Raise ValueError, with file, table and key, for what is wrong in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no policy: it is not in UTF-8") from error
    return parse_policy(text, str(path))


def parse_policy(text: str, name: str) -> Policy:
    """Read a policy's text. `name` is how errors, which are ValueErrors, call it."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{name} is not TOML: {error}") from error
    top = _Table(name, values)
    top.check_keys(_TOP_KEYS)
    classified, detected = (_categories(top, table) for table in _TABLES)
    if not classified and not detected:
        raise ValueError(f"{name}: has no category: it needs [[category]] or [[detect]]")
    neutral = top.words("neutral") if classified or "neutral" in values else ()
    template = top.text("template", None)
    if template is not None and template.count("{}") != 1:
        raise top.error("template", f"is {shown(template)}: it must have one {{}}, for the prompt")
    for what, texts in (
        ("categories are called", [category.name for category in (*classified, *detected)]),
        ("prompts are", [*_words(classified), *neutral]),
        ("phrases are", [*_words(detected)]),
    ):
        twice = next((text for text, times in Counter(texts).items() if times > 1), None)
        if twice is not None:
            raise ValueError(f"{name}: two {what} {shown(twice)}")
    return Policy(
        classified,
        detected,
        neutral,
        template,
        top.text("model", "") or "",
        top.text("detection_model", "") or "",
    )


def _words(categories: Iterable[Category]) -> Iterable[str]:
    return (word for category in categories for word in category.words)


def _categories(top: "_Table", table: str) -> tuple[Category, ...]:
    rows = top.values.get(table, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise top.error(table, f"is not a list of tables: write [[{table}]]")
    return tuple(_category(top.name, table, number, row) for number, row in enumerate(rows, 1))


def _category(file: str, table: str, number: int, values: Mapping[str, Any]) -> Category:
    called = values.get("name")
    row = _Table(f"{file}: [[{table}]] {shown(called) if isinstance(called, str) else number}", values)
    words = _TABLES[table]
    row.check_keys(("name", words, *ACTIONS))
    name = row.text("name", "")
    if not name:
        raise row.error("name", "is missing")
    thresholds = {action: row.share(action) for action in ACTIONS if action in values}
    if not thresholds:
        raise row.error(" or ".join(ACTIONS), "is missing: the least score, over 0 to 1, for that")
    if thresholds.get(BLOCK, 1) <= thresholds.get(REVIEW, 0):
        raise row.error(REVIEW, f"is {thresholds[REVIEW]:g}: it must be less than {BLOCK}")
    return Category(name, row.words(words), thresholds)


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of a file. name: how errors call it."""

    name: str
    values: Mapping[str, Any]

    def error(self, key: str, what: str) -> ValueError:
        return ValueError(f"{self.name}: {key}: {what}")

    def check_keys(self, known: Sequence[str]) -> None:
        for key in self.values:
            if key not in known:
                raise self.error(key, f"is not a key here; those are {', '.join(known)}")

    def text(self, key: str, default: str | None) -> str | None:
        value = self.values.get(key, default)
        if value is not None and not isinstance(value, str):
            raise self.error(key, f"is {shown(value)}: it must be a string")
        return value

    def words(self, key: str) -> tuple[str, ...]:
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(word, str) and word.strip() for word in value):
            raise self.error(key, f"is {shown(value)}: it must be a list of strings that are not empty")
        if not value:
            why = " what else photos show: otherwise one of the categories always wins"
            raise self.error(key, f"is missing: it lists{why if key == 'neutral' else ' one string or more'}")
        return tuple(value)

    def share(self, key: str) -> float:
        value = self.values[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise self.error(key, f"is {shown(value)}: it must be a number over 0, to 1")
        return float(value)
