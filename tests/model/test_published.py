"""The table of published checkpoints: every row is whole, and names an encoder and a front end that there are."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter

from raysd.model.encoders import Encoder, EncoderModule
from raysd.model.features import Features, num_bands
from raysd.model.published import PUBLISHED, Published

CLASSES = 527


def build(row: Published) -> EncoderModule:
    settings = TypeAdapter[Encoder](Encoder).validate_python(row.encoder)
    with torch.device("meta"):
        return settings.build(num_bands(Features.model_validate(row.features)))


@pytest.mark.parametrize("row", PUBLISHED.values(), ids=list(PUBLISHED))
def test_a_row_says_what_a_user_has_to_know(row: Published) -> None:
    for text in (row.licence, row.source, row.expected_input, row.figures):
        assert text
        assert "\n" not in text
    assert row.licence_url.startswith("https://")
    assert row.url is None or (row.url.startswith("https://") and row.url.endswith(f"/{row.file_name}"))
    assert row.sha256 is None or (len(row.sha256) == 64 and int(row.sha256, 16))
    assert row.num_bytes is None or row.num_bytes > 4 * row.num_parameters


@pytest.mark.parametrize("row", PUBLISHED.values(), ids=list(PUBLISHED))
def test_the_encoder_of_a_row_has_the_size_that_its_authors_state(row: Published) -> None:
    encoder = build(row)
    count = sum(parameter.numel() for parameter in encoder.parameters())
    if row.head:  # an MLP of one hidden layer that takes the embedding; its width is that of the network
        hidden = round(1280 * row.encoder["width"])
        count += encoder.embedding_dim * hidden + hidden + hidden * CLASSES + CLASSES
    assert count == pytest.approx(row.num_parameters, rel=2e-3)


@pytest.mark.parametrize("row", PUBLISHED.values(), ids=list(PUBLISHED))
def test_the_documentation_says_the_same(row: Published) -> None:
    text = " ".join((Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8").split())
    for said in (row.name, row.url, row.sha256, row.licence_url if row.url is None else row.licence):
        assert said is None or said in text
    assert row.expected_input.removesuffix("mean 0 and sd 1") in text


def test_weights_whose_licence_is_for_evaluation_only_have_no_address() -> None:
    assert {name for name, row in PUBLISHED.items() if "evaluation" in row.licence} == {
        name for name, row in PUBLISHED.items() if row.url is None
    }


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, raysd.model.published; sys.exit(any(name in sys.modules for name in ('torch', 'pydantic')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
