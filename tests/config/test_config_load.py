from __future__ import annotations

import json
from pathlib import Path

import pytest

import r1ranker
from r1ranker.config import RunConfig, dump_config, load_config, parse_config
from r1ranker.errors import ConfigError

RECIPES = sorted((Path(r1ranker.__file__).parent / "recipes").glob("*.toml"))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(
        """
name = "small"
[model]
frozen_layers = 3
[data]
names = ["rec-movie"]
[ranker]
thinking = false
[train]
algorithm = "all_actions"
steps = 7
learning_rate = 1e-4
"""
    )
    return path


# Where values come from


def test_defaults_are_the_papers() -> None:
    config = load_config()
    assert config == RunConfig()
    assert (config.name, config.seed) == ("run", 0)
    assert config.train.algorithm == "ppo"
    assert (config.ranker.kind, config.ranker.thinking) == ("iterative", True)
    # Actor 1e-6, critic 2e-6 and separate, KL 0.001, sampling at temperature 1, 1,024 new tokens.
    train = config.train
    assert (train.learning_rate, train.critic_learning_rate, train.critic) == (1e-6, 2e-6, "separate")
    assert (train.kl_coef, train.temperature, config.ranker.max_tokens) == (0.001, 1.0, 1024)


def test_a_file_overrides_defaults_and_leaves_the_rest(recipe: Path) -> None:
    config = load_config(recipe)
    assert (config.name, config.model.frozen_layers, config.train.steps) == ("small", 3, 7)
    assert config.train.learning_rate == 1e-4
    assert config.train.states_per_step == RunConfig().train.states_per_step
    assert config.model.path == RunConfig().model.path


def test_set_overrides_the_file_and_the_last_one_wins(recipe: Path) -> None:
    config = load_config(recipe, ["train.steps=9", "name=other", "train.steps=11", "seed = 5"])
    assert (config.train.steps, config.name, config.seed) == (11, "other", 5)
    assert config.train.learning_rate == 1e-4  # the file's, in the same table
    assert load_config(None, ["train.steps=9"]).train.steps == 9


@pytest.mark.parametrize(
    ("setting", "section", "key", "value"),
    [
        ("train.learning_rate=3e-5", "train", "learning_rate", 3e-5),
        ("train.minibatch_states=4", "train", "minibatch_states", 4),
        ("ranker.thinking=true", "ranker", "thinking", True),
        ("ranker.answer_form=quote", "ranker", "answer_form", "quote"),
        ('ranker.answer_form="id"', "ranker", "answer_form", "id"),
        ("model.path=./models/a=b", "model", "path", "./models/a=b"),
        ("model.path=HuggingFaceTB/SmolLM2-135M", "model", "path", "HuggingFaceTB/SmolLM2-135M"),
        ('data.names=["rec-movie", "passage-5"]', "data", "names", ("rec-movie", "passage-5")),
        ("train.gamma=1", "train", "gamma", 1.0),
    ],
)
def test_set_reads_values_as_toml_and_bare_words_as_text(setting: str, section: str, key: str, value: object) -> None:
    got = getattr(getattr(load_config(None, [setting]), section), key)
    assert got == value
    assert type(got) is type(value)


def test_set_reaches_tables_in_tables() -> None:
    config = load_config(None, ["data.options.rec-movie.history=5", "data.options.rec-movie.target=random"])
    assert config.data.options == {"rec-movie": {"history": 5, "target": "random"}}


def test_the_dumped_config_is_the_config() -> None:
    config = load_config(None, ["train.steps=3", "data.options.rec-movie.history=5", "ranker.answer_form=id"])
    assert RunConfig.model_validate(json.loads(dump_config(config))) == config


def test_a_config_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().seed = 1  # type: ignore[misc]


# Mistakes


@pytest.mark.parametrize(
    ("setting", "near"),
    [
        ("train.step=3", "train.steps"),
        ("train.learning_rat=1", "train.learning_rate"),
        ("ranker.thinkng=true", "ranker.thinking"),
        ("trian.steps=3", "train"),
        ("sed=1", "seed"),
    ],
)
def test_an_unknown_key_names_the_nearest(setting: str, near: str) -> None:
    key = setting.partition("=")[0]
    with pytest.raises(ConfigError) as caught:
        load_config(None, [setting])
    message = str(caught.value)
    assert message.startswith(f"--set: there is no key '{key if '.' in near else key.partition('.')[0]}'")
    assert f"did you mean '{near}" in message


def test_an_unknown_key_with_no_neighbour_has_no_hint() -> None:
    with pytest.raises(ConfigError, match=r"there is no key 'qqqqqqqq'$"):
        load_config(None, ["qqqqqqqq=1"])


def test_an_unknown_key_in_a_file_names_the_file(recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + "batchsize = 4\n")
    with pytest.raises(ConfigError) as caught:
        load_config(recipe)
    assert f"{recipe}: there is no key 'train.batchsize'" in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("train.steps=0", "train.steps"),
        ("train.steps=many", "train.steps"),
        ("train.steps=1.5", "train.steps"),
        ("train.learning_rate=-1", "train.learning_rate"),
        ("train.learning_rate=nan", "train.learning_rate"),
        ("train.gamma=1.1", "train.gamma"),
        ("train.algorithm=reinforce", "train.algorithm"),
        ("train.critic=none", "train.critic"),
        ("train.temperature=0", "train.temperature"),
        ("ranker.kind=both", "ranker.kind"),
        ("ranker.thinking=perhaps", "ranker.thinking"),
        ("model.precision=int4", "model.precision"),
        ("data.names=[]", "data.names"),
        ("train=3", "train"),
    ],
)
def test_a_bad_value_names_its_key(setting: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [setting])
    assert str(caught.value).startswith(f"--set: {key}: ")
    assert len(str(caught.value)) > len(f"--set: {key}: ") + 5


@pytest.mark.parametrize("setting", ["train.steps", "=3", " =3", ""])
def test_set_needs_a_key_and_a_value(setting: str) -> None:
    with pytest.raises(ConfigError, match="write it as key=value"):
        load_config(None, [setting])


def test_set_cannot_go_into_a_value(recipe: Path) -> None:
    with pytest.raises(ConfigError, match=r"--set name\.first=1: 'name' is a value, not a table"):
        load_config(recipe, ["name.first=1"])


@pytest.mark.parametrize("content", [b"name = ", b"[train\nsteps = 1", b"a = 1\na = 2", b"name = '\xff'"])
def test_a_file_that_is_not_toml_is_an_error(recipe: Path, content: bytes) -> None:
    recipe.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(recipe)
    assert str(caught.value).startswith(f"{recipe}: cannot be read as TOML (")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_a_missing_file_names_the_near_one(recipe: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe.with_name("smal.toml"))
    message = str(caught.value)
    assert f"there is no recipe '{recipe.with_name('smal.toml')}'" in message
    assert f"did you mean '{recipe}'?" in message


def test_a_missing_file_in_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no recipe '.*none\.toml'$"):
        load_config(tmp_path / "nowhere" / "none.toml")


# The recipes that ship


def test_recipes_ship_with_the_package() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_shipped_recipe_loads(path: Path) -> None:
    config = load_config(path)
    assert config != RunConfig()
    assert config.ranker.build(135_000_000).thinking == config.ranker.thinking
    assert parse_config(json.loads(dump_config(config)), "again") == config
