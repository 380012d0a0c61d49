"""Cross-encoders: pairs, doubles, and models that are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from baseline_examples import example
from torch.nn import Identity

from r1ranker.baselines.cross_encoder import CrossEncoder, pairs_of
from r1ranker.errors import AssetError
from r1ranker.types import Candidate


def test_scores_are_the_models_for_query_and_text(cross_encoder_folder: Path) -> None:
    from sentence_transformers import CrossEncoder as Theirs

    theirs = Theirs(str(cross_encoder_folder), local_files_only=True)
    expected = [
        float(s) for s in theirs.predict([("red cat", "heat"), ("red cat", "star wars")], activation_fn=Identity())
    ]
    baseline = CrossEncoder(cross_encoder_folder)
    assert baseline.scores(example(["heat", "star wars"], query="red cat")) == pytest.approx(expected, rel=1e-4)
    assert len(set(expected)) == 2
    # A history is read as one text.
    history = [float(s) for s in theirs.predict([("red; cat", "heat")], activation_fn=Identity())]
    assert baseline.scores(example(["heat"], history=("red", "cat"))) == pytest.approx(history, rel=1e-4)


def test_high_scores_are_told_apart(cross_encoder_folder: Path) -> None:
    baseline = CrossEncoder(cross_encoder_folder)
    with torch.no_grad():
        baseline._model.model.classifier.bias += 20.0  # a sigmoid of that is 1 to eight digits
    low, high = sorted(baseline.scores(example(["heat", "star wars"], query="red cat")))
    assert 15 < low < high < 25


def test_a_name_that_the_text_does_not_say_is_read_too() -> None:
    shown = example(["", ""], query="q")
    candidates = (Candidate("a", "a large model", "coder-34b"), Candidate("b", "Coder-34b, a large model", "coder-34b"))
    assert [text for _, text in pairs_of(replace(shown, candidates=candidates))] == [
        "coder-34b: a large model",
        "Coder-34b, a large model",
    ]


def test_each_pair_is_computed_once_and_counted(cross_encoder_folder: Path) -> None:
    baseline = CrossEncoder(cross_encoder_folder)
    baseline.warm([example(["heat", "heat"], query="cat", id=str(k)) for k in range(3)])
    parameters = sum(p.numel() for p in baseline._model.parameters())
    assert baseline.flops == 2 * parameters * 5  # [CLS] cat [SEP] heat [SEP]
    baseline.scores(example(["heat"], query="cat"))
    assert baseline.flops == 2 * parameters * 5


def test_without_a_context_nothing_is_computed(cross_encoder_folder: Path) -> None:
    baseline = CrossEncoder(cross_encoder_folder)
    assert baseline.scores(example(["heat", "cat"])) == [0.0, 0.0]
    assert baseline.flops == 0


def test_a_model_without_one_score_is_refused(encoder_folder: Path, three_scores_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"holds no cross-encoder \(BertModel\): choose a model for sequence"):
        CrossEncoder(encoder_folder)
    with pytest.raises(AssetError, match="gives 3 scores a pair"):
        CrossEncoder(three_scores_folder)
    with pytest.raises(AssetError, match=r"config\.json cannot be read"):
        CrossEncoder(tmp_path)


def test_nothing_is_printed(cross_encoder_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    CrossEncoder(cross_encoder_folder).scores(example(["heat"], query="cat"))
    assert capfd.readouterr() == ("", "")
