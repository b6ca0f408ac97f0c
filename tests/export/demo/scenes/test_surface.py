import numpy as np

from export.demo.scenes import Plan, draw

PLAIN = Plan(words=(0, 0), faces=(0, 0), degraded=False)


def test_degrading_changes_pixels_but_not_what_is_seen() -> None:
    clean, degraded = draw(5, 160, 120, PLAIN), draw(5, 160, 120, Plan(words=(0, 0), faces=(0, 0)))
    assert [thing.phrase for thing in clean.things] == [thing.phrase for thing in degraded.things]
    differences = np.abs(clean.image.astype(int) - degraded.image)
    assert 0 < differences.mean() < 12
