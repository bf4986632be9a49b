"""Which clips a model of a trial is trained on, and what their classes are.

N training clips, M test clips, C classes.
"""

import pandas as pd

from raysd.recipe import Recipe
from raysd.settings import with_changes
from raysd.trial import clip_classes, model_groups


def test_groups_of_clips() -> None:
    clips = pd.DataFrame({"machine": ["fan", "pump", "fan"]})
    per_machine = with_changes(Recipe(), {"data.model_per": "machine"}, "test")
    assert [(name, rows.tolist()) for name, rows in model_groups(Recipe(), clips)] == [("all", [0, 1, 2])]
    assert [(name, rows.tolist()) for name, rows in model_groups(per_machine, clips)] == [
        ("fan", [0, 2]),
        ("pump", [1]),
    ]


def test_classes_by_hand() -> None:
    """Two settings of section 00 and one of section 01; a test clip's own setting is not looked at."""
    slow, fast, unheard = (("spd", "1"),), (("spd", "2"),), (("spd", "9"),)
    rows = [
        ("fan", "00", "train", fast),
        ("fan", "01", "train", slow),
        ("fan", "00", "test", unheard),
        ("fan", "00", "train", slow),
        ("pump", "00", "test", slow),
    ]
    clips = pd.DataFrame(rows, columns=["machine", "section", "split", "attributes"])
    class_N, own_MC = clip_classes(Recipe(), clips)
    assert class_N.tolist() == [0, 1, 0]
    assert own_MC.tolist() == [[True, False], [False, True], [True, False], [True, False], [False, False]]
    class_N, own_MC = clip_classes(with_changes(Recipe(), {"loss.classes": "section_attributes"}, "test"), clips)
    assert class_N.tolist() == [1, 2, 0]
    first, second, nothing = [True, True, False], [False, False, True], [False, False, False]
    assert own_MC.tolist() == [first, second, first, first, nothing]
