from __future__ import annotations

from pathlib import Path

import pytest

from r1ranker.config import load_config
from r1ranker.errors import ConfigError


def test_options_are_of_a_data_set_that_is_used() -> None:
    with pytest.raises(ConfigError, match=r"\[data\.options\] names 'passage-5', which is not among data\.names"):
        load_config(None, ["data.options.passage-5.limit=3"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ['data.names=["rec-movie", "rec-movie"]'],
            "data.names lists 'rec-movie' twice: data.weights gives it a larger",
        ),
        (["data.weights.passage-5=2"], "[data.weights] names 'passage-5', which is not among data.names ['rec-movie']"),
        (["data.weights.rec-movie=2", "data.mix=proportional"], "data.weights are shares of a balanced mix"),
        (["data.weights.rec-movie=0"], "--set: data.weights.rec-movie: "),
    ],
)
def test_weights_are_shares_of_data_sets_in_balance(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, settings)
    assert said in str(caught.value)


def test_other_names_forget_what_is_said_of_data_sets_that_are_left_out(tmp_path: Path) -> None:
    recipe = tmp_path / "mixed.toml"
    recipe.write_text(
        """
[data]
names = ["rec-movie", "passage-5"]
sources = { rec-movie = "a", passage-5 = "b" }
options = { rec-movie = { history = 5 }, passage-5 = { exact = true } }
weights = { rec-movie = 2, passage-5 = 3 }
first_stage = { rec-movie = "popularity", passage-5 = "bm25" }
"""
    )
    assert load_config(recipe).data.weights == {"rec-movie": 2, "passage-5": 3}
    data = load_config(recipe, ['data.names=["passage-5", "rec-game"]', "data.weights.rec-game=4"]).data
    assert data.sources == {"passage-5": "b"}
    assert data.options == {"passage-5": {"exact": True}}
    assert data.weights == {"passage-5": 3, "rec-game": 4}
    assert data.first_stage == {"passage-5": "bm25"}
