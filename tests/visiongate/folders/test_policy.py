from pathlib import Path

import pytest

from visiongate.folders.policy import (
    BLOCK,
    FINE,
    NOT_JUDGED,
    REVIEW,
    Judgement,
    Policy,
    example,
    parse_policy,
    read_policy,
)

POLICY = """
template = "a photo of {}."
neutral = ["food"]
[[category]]
name = "weapons"
prompts = ["a gun", "a knife"]
review = 0.3
block = 0.7
[[category]]
name = "blood"
prompts = ["blood"]
review = 0.2
[[detect]]
name = "small"
phrases = ["pistol", "rifle"]
block = 0.5
"""


@pytest.fixture
def policy() -> Policy:
    return parse_policy(POLICY, "policy.toml")


def test_the_example_is_a_policy() -> None:
    policy = parse_policy(example(), "the example")
    assert policy.classified
    assert policy.detected
    assert policy.neutral


def test_what_the_models_are_asked(policy: Policy) -> None:
    assert policy.labels == ["a gun", "a knife", "blood", "food"]
    assert policy.phrases == ["pistol", "rifle"]
    assert policy.template == "a photo of {}."
    assert policy.least_score == 0.1
    assert parse_policy(POLICY.replace("block = 0.5", "block = 0.02"), "policy.toml").least_score == 0.02


@pytest.mark.parametrize(
    ("gun", "knife", "blood", "verdict", "category"),
    [
        (0.1, 0.1, 0.1, FINE, "weapons"),
        # Neither prompt alone reaches the threshold.
        (0.16, 0.16, 0.1, REVIEW, "weapons"),
        (0.4, 0.35, 0.2, BLOCK, "weapons"),
        # As a multiple of its threshold, 0.3 of blood is more than 0.35 of weapons.
        (0.35, 0.0, 0.3, REVIEW, "blood"),
        # A category that blocks nothing does not hide one that does, however much is there of it.
        (0.7, 0.0, 0.9, BLOCK, "weapons"),
    ],
)
def test_prompts_add_up(
    policy: Policy, gun: float, knife: float, blood: float, verdict: str, category: str
) -> None:
    judged = policy.judge([("a gun", gun), ("a knife", knife), ("blood", blood), ("food", 0.1)], [])
    assert (judged.verdict, judged.category) == (verdict, category)
    assert judged.scores == {"weapons": pytest.approx(gun + knife), "blood": blood, "small": 0}


def test_detections_do_not_add_up(policy: Policy) -> None:
    nothing = [("food", 1.0)]
    assert policy.judge(nothing, [("pistol", 0.3), ("pistol", 0.3), ("rifle", 0.4)]).verdict == FINE
    judged = policy.judge(nothing, [("pistol", 0.5), ("rifle", 0.2)])
    assert (judged.verdict, judged.category, judged.risk) == (BLOCK, "small", 1)


def test_the_worst_comes_first() -> None:
    judgements = [
        Judgement(FINE, "a", 0.2),
        Judgement(NOT_JUDGED, error="it is broken"),
        Judgement(REVIEW, "a", 3),
        Judgement(BLOCK, "a", 1),
        Judgement(FINE, "a", 0.9),
        Judgement(BLOCK, "b", 2),
    ]
    order = sorted(judgements, key=lambda judgement: judgement.severity)
    assert [(each.verdict, each.risk) for each in order] == [
        (BLOCK, 2),
        (BLOCK, 1),
        (REVIEW, 3),
        (NOT_JUDGED, 0),
        (FINE, 0.9),
        (FINE, 0.2),
    ]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('["food"]', "[", "p.toml is not TOML: .*line 4"),
        ('["food"]', "[]", "p.toml: neutral: is missing: it lists what else photos show"),
        ('["food"]', '["blood"]', "p.toml: two prompts are 'blood'"),
        ('"rifle"', '"pistol"', "p.toml: two phrases are 'pistol'"),
        ('"small"', '"blood"', "p.toml: two categories are called 'blood'"),
        ('name = "blood"', "", r"p.toml: \[\[category\]\] 2: name: is missing"),
        ("review = 0.2", "", r"p.toml: \[\[category\]\] 'blood': block or review: is missing"),
        ("review = 0.2", "review = 2", r"\[\[category\]\] 'blood': review: is 2: it must be a number over 0"),
        ("review = 0.2", "review = nan", "review: is nan"),
        ("review = 0.2", "review = true", "review: is True"),
        ("review = 0.2", "review = 0", "review: is 0"),
        ("review = 0.3", "review = 0.8", "'weapons': review: is 0.8: it must be less than block"),
        ("review = 0.2", "treshold = 0.2", "'blood': treshold: is not a key here; those are name, prompts"),
        (
            '["pistol", "rifle"]',
            '"pistol"',
            r"\[\[detect\]\] 'small': phrases: is 'pistol': it must be a list",
        ),
        ('["pistol", "rifle"]', '[""]', "phrases: is \\[''\\]"),
        ('"a photo of {}."', '"a photo"', r"p.toml: template: is 'a photo': it must have one {}"),
        ('"a photo of {}."', "7", "p.toml: template: is 7: it must be a string"),
        ("[[detect]]", "[detect]", r"p.toml: detect: is not a list of tables: write \[\[detect\]\]"),
        (POLICY, "", "p.toml: has no category"),
    ],
)
def test_errors_name_file_table_and_key(old: str, new: str, says: str) -> None:
    assert old in POLICY
    with pytest.raises(ValueError, match=says):
        parse_policy(POLICY.replace(old, new), "p.toml")


def test_files_that_are_no_policy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.toml cannot be read: No such file"):
        read_policy(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'template = "\xe9 {}"')
    with pytest.raises(ValueError, match=r"latin\.toml is no policy: it is not in UTF-8"):
        read_policy(tmp_path / "latin.toml")


def test_detections_alone_need_nothing_neutral() -> None:
    policy = parse_policy('[[detect]]\nname = "guns"\nphrases = ["gun"]\nreview = 0.4', "p.toml")
    assert policy.labels == []
    assert policy.judge([], [("gun", 0.41)]).verdict == REVIEW
    assert policy.judge([], []).verdict == FINE
