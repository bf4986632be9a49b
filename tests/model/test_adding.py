"""What docs/adding-an-augmentation.md says works as it says."""

import re
from pathlib import Path

import torch

from raysd.model import augment
from raysd.model.draws import Draws

DOC = Path(__file__).resolve().parents[2] / "docs" / "adding-an-augmentation.md"


def test_the_documented_augmentation_works() -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    known = dict(vars(augment))
    exec(blocks[0], known)
    gain = known["Gain"]
    exec("class Extended(Augment):\n" + blocks[1], known)

    assert known["Extended"].model_validate({"gain": {"strength": 1.0}}).gain == gain(strength=1.0)
    spec_BFT, item_B = torch.zeros(4, 8, 5), torch.arange(4)
    batch = augment.AugmentBatch(Draws(0, 0, item_B), lambda stream: spec_BFT, torch.arange(8.0))
    changed_BFT = gain(strength=1.0)(spec_BFT, batch)
    assert changed_BFT.shape == spec_BFT.shape
    assert torch.equal(changed_BFT, changed_BFT[:, :1, :1].expand_as(changed_BFT))
    assert changed_BFT[:, 0, 0].unique().numel() == 4
    assert changed_BFT.abs().max() <= 1
