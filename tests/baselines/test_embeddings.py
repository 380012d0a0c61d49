"""Dense embeddings: what is embedded, how often, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from baseline_examples import example

from r1ranker.baselines.base import steady
from r1ranker.baselines.embeddings import Embeddings, Encoder
from r1ranker.errors import AssetError


@pytest.fixture
def encoder(encoder_folder: Path) -> Encoder:
    return Encoder(encoder_folder)


def test_vectors_have_length_one_and_come_in_order(encoder: Encoder) -> None:
    found = encoder.vectors(["the cat", "heat", "the cat", ""])
    assert found.shape == (4, 16)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0)
    assert (found[0] == found[2]).all()
    assert abs(found[0] @ found[1]) < 0.999


def test_the_history_is_the_mean_of_its_items(encoder: Encoder) -> None:
    one, two = encoder.vectors(["heat", "star wars"])
    mean = (one + two) / 2
    found = encoder.context(example(["x"], history=("heat", "star wars")))
    assert found == pytest.approx(mean / np.linalg.norm(mean))
    # A query counts as much as a whole history, and a text is nearest to itself.
    both = (two + mean) / 2
    found = encoder.context(example(["x"], query="star wars", history=("heat", "star wars")))
    assert found == pytest.approx(both / np.linalg.norm(both))
    assert encoder.context(example(["x"])) is None
    ranked = Embeddings(encoder).scores(example(["star wars", "heat"], query="heat"))
    assert ranked == steady([float(one @ two), 1.0])


def test_each_text_is_computed_once_and_counted(encoder: Encoder) -> None:
    baseline = Embeddings(encoder)
    baseline.warm([example(["heat", "star wars"], query="heat", id=str(k)) for k in range(3)])
    parameters = sum(p.numel() for p in encoder._model.parameters())
    assert baseline.flops == 2 * parameters * (3 + 4)  # [CLS] heat [SEP], [CLS] star wars [SEP]
    baseline.scores(example(["heat"], query="star wars"))
    assert baseline.flops == 2 * parameters * 7
    baseline.scores(example(["the " * 100], query="heat"))
    assert baseline.flops == 2 * parameters * (7 + 32)  # the model reads 32 tokens at most


def test_steady_knows_no_difference_that_a_batch_makes_near_zero() -> None:
    assert steady([-0.0047939]) == steady([-0.004794]) == [-0.00479]  # 1e-7 off, as sums of numbers near 1 are


def test_steady_keeps_five_digits() -> None:
    assert steady([0.1234567, -1234567.0, 0.0, float("-inf")]) == [0.12346, -1234600.0, 0.0, float("-inf")]


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="the encoder cannot be loaded"):
        Encoder(tmp_path)


def test_nothing_is_printed(encoder_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Encoder(encoder_folder).vectors(["heat"] * 3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.assets
def test_the_default_model_knows_what_a_kitten_is() -> None:
    pytest.importorskip("sentence_transformers")
    ranked = Embeddings(Encoder()).order(example(["stock market crash", "a kitten sat"], query="the cat sat"))
    assert ranked == ("c1", "c0")
