"""A cross-encoder that learns from training lists: what it learns, from which lists, and what it leaves alone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from baseline_examples import example

from r1ranker.baselines import trained_cross_encoder as module
from r1ranker.baselines.trained_cross_encoder import TrainedCrossEncoder
from r1ranker.errors import AssetError, InputError
from r1ranker.types import RankingExample

pytest.importorskip("sentence_transformers")
TEXTS = ["heat", "alien", "star wars", "star trek"]


def lists(relevant: str, n: int = 12) -> list[RankingExample]:
    words = ("cat", "dog", "red", "blue")
    return [example(TEXTS, query=f"what is {words[k % 4]}", id=f"t{k}", relevant=(relevant,)) for k in range(n)]


@pytest.mark.parametrize("relevant", ["c0", "c3"])
def test_it_learns_what_was_relevant(relevant: str, encoder_folder: Path) -> None:
    baseline = TrainedCrossEncoder(lists(relevant), encoder_folder, epochs=12, learning_rate=1e-2, lists=4)
    asked = example(TEXTS, query="what is rome")
    assert baseline.order(asked)[0] == relevant
    assert baseline.flops > 0


def test_it_tells_how_much_of_its_training_is_done(encoder_folder: Path) -> None:
    told: list[float] = []
    TrainedCrossEncoder(lists("c0", n=5), encoder_folder, epochs=2, lists=2, on_share=told.append)
    assert told == pytest.approx([k / 6 for k in range(1, 7)])  # three steps in each of two passes


def test_a_seed_gives_the_same_model_and_leaves_the_global_generator_alone(encoder_folder: Path) -> None:
    import torch

    asked = example(TEXTS, query="what is rome")
    state = torch.random.get_rng_state()
    scores = [TrainedCrossEncoder(lists("c1"), encoder_folder, seed=seed, epochs=1).scores(asked) for seed in (3, 3, 4)]
    assert scores[0] == scores[1] != scores[2]
    assert torch.equal(torch.random.get_rng_state(), state)


class Lengths:
    """Scores a pair by the length of its text, and notes what it read together."""

    def __init__(self) -> None:
        self.read: list[list[str]] = []

    def tokenize(self, queries: list[str], texts: list[str], **_: object) -> dict[str, object]:
        assert len(queries) == len(texts)
        return {"texts": texts}

    def __call__(self, texts: list[str]) -> object:
        import torch

        self.read.append(texts)
        return type("Output", (), {"logits": torch.tensor([[math.log(len(text))] for text in texts])})


def test_grades_are_shares_of_a_lists_target() -> None:
    model = Lengths()
    first, second = ([("q", "aaa"), ("q", "b")], [3.0, 1.0]), ([("r", "aa"), ("r", "bb")], [0.0, 1.0])
    found = [float(loss) for loss in module._losses(model, model.tokenize, [first, second])]
    # Softmax 3/4 and 1/4 against shares 3/4 and 1/4; then halves against one.
    assert found == pytest.approx([0.75 * math.log(4 / 3) + 0.25 * math.log(4), math.log(2)])
    assert model.read == [["b", "aa", "bb", "aaa"]]


def test_pairs_of_about_the_same_length_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 2)
    model = Lengths()
    texts = ["aaaa", "a", "aaaaa", "aa", "aaa"]
    scores = module._scores(model, model.tokenize, [("q", text) for text in texts])
    assert scores.exp().tolist() == pytest.approx([4, 1, 5, 2, 3])
    assert model.read == [["a", "aa"], ["aaa", "aaaa"], ["aaaaa"]]


def test_lists_that_teach_nothing_are_left_out(encoder_folder: Path) -> None:
    silent = [example(TEXTS, id="no query", relevant=("c0",)), example(TEXTS, query="what", id="nothing relevant")]
    with pytest.raises(InputError, match="needs training lists with a query and a relevant candidate"):
        TrainedCrossEncoder(silent, encoder_folder)
    asked = example(TEXTS, query="what is rome")
    alone = TrainedCrossEncoder(lists("c1", 4), encoder_folder, epochs=1).scores(asked)
    assert TrainedCrossEncoder([*lists("c1", 4), *silent], encoder_folder, epochs=1).scores(asked) == alone


@pytest.mark.parametrize("options", [{"epochs": 0}, {"lists": 0}])
def test_what_cannot_be_done_is_told(options: dict[str, int], encoder_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="both must be at least 1"):
        TrainedCrossEncoder(lists("c1"), encoder_folder, **options)  # type: ignore[arg-type]
    with pytest.raises(AssetError, match="the encoder cannot be loaded"):
        TrainedCrossEncoder(lists("c1"), tmp_path)


def test_nothing_is_printed(encoder_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    TrainedCrossEncoder(lists("c1", 2), encoder_folder, epochs=1)
    assert capfd.readouterr() == ("", "")
