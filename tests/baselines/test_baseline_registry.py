"""Names, options and scenarios of baselines, and what is said where one cannot be had."""

from __future__ import annotations

import inspect
import sys

import pytest
from baseline_examples import dataset, example

from r1ranker.baselines import BASELINES, BM25, Baseline, baseline_names, fit_baseline
from r1ranker.baselines.recommenders import BPR, SASRec
from r1ranker.baselines.routers import KNNRouter, LogisticRouter
from r1ranker.baselines.trained_cross_encoder import TrainedCrossEncoder
from r1ranker.datasets import Dataset
from r1ranker.errors import ConfigError, InputError, MissingExtraError

PASSAGES = dataset("passage", (example(["a", "b"], query="a"),))


def test_each_scenario_has_its_baselines() -> None:
    texts = ("bm25", "embeddings", "cross-encoder", "trained-cross-encoder")
    assert baseline_names("recommendation") == ("popularity", *texts, "item-knn", "bpr", "sasrec")
    assert baseline_names("passage") == texts
    assert baseline_names("routing") == ("label-prior", *texts, "knn-router", "logistic-router")
    assert list(BASELINES) == [info.name for info in BASELINES.values()]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bm52", {}, r"unknown baseline 'bm52' \(did you mean 'bm25'\?\); there are popularity, label-prior, bm25"),
        ("bm25", {"k": 2}, r"baseline 'bm25' has no option 'k' \(did you mean 'k1'\?\); it has k1, b"),
        ("popularity", {"k": 2}, "baseline 'popularity' has no option 'k'; it has none"),
        ("bpr", {}, "is for recommendation, and 'tiny' is passage: use one of bm25, embeddings, cross-encoder"),
        ("cross-encoder", {}, "baseline 'cross-encoder' has no model of its own: give model = a folder, or a name"),
    ],
)
def test_what_cannot_be_had_is_told(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit_baseline(name, PASSAGES, PASSAGES.test, **options)


def test_only_those_that_take_long_are_asked_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def made(*_: object, **options: object) -> BM25:
        given.update(options)
        return BM25()

    monkeypatch.setattr("r1ranker.baselines.registry.TrainedCrossEncoder", made)
    told: list[float] = []
    for name in ("bm25", "trained-cross-encoder"):
        assert isinstance(fit_baseline(name, PASSAGES, PASSAGES.test, on_share=told.append), BM25)
    assert given == {"seed": 0, "on_share": told.append}
    fit_baseline("trained-cross-encoder", PASSAGES, PASSAGES.test)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bm25", BM25),
        ("trained-cross-encoder", TrainedCrossEncoder),
        ("knn-router", KNNRouter),
        ("logistic-router", LogisticRouter),
        ("bpr", BPR),
        ("sasrec", SASRec),
    ],
)
def test_every_option_is_one_of_the_baseline(name: str, kind: type[Baseline]) -> None:
    parameters = inspect.signature(kind).parameters.values()
    own = {p.name for p in parameters if p.default is not p.empty} - {"name", "seed", "model", "on_share"}
    assert set(BASELINES[name].options) - {"model"} == own


def test_options_arrive() -> None:
    baseline = fit_baseline("bm25", PASSAGES, PASSAGES.test, k1=0.5, b=0.0)
    assert baseline == type(baseline)(k1=0.5, b=0.0)  # type: ignore[call-arg]


def test_counts_come_from_the_data_set() -> None:
    routing = dataset("routing", (example(["a", "b"], query="a", scenario="routing"),))
    prior = fit_baseline("label-prior", routing, routing.test)
    assert (prior.name, prior.scores(routing.test[0])) == ("label prior", [3, 1])
    with pytest.raises(InputError, match="data set 'none' has no counts on its train side"):
        fit_baseline("label-prior", Dataset("none", (), routing.test), routing.test)


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [
        ("sentence_transformers", "embeddings", "embeddings"),
        ("sentence_transformers", "knn-router", "embeddings"),
        ("sentence_transformers", "cross-encoder", "embeddings"),
        ("sentence_transformers", "trained-cross-encoder", "embeddings"),
        ("sklearn.linear_model", "logistic-router", "embeddings"),
        ("cornac", "bpr", "recommenders"),
        ("cornac", "sasrec", "recommenders"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    package: str, name: str, extra: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if package.startswith("sklearn"):
        options = {"model": request.getfixturevalue("encoder_folder")}
    else:
        options = {"model": "nowhere"} if name == "cross-encoder" else {}
    monkeypatch.setitem(sys.modules, package, None)
    data = dataset(BASELINES[name].scenarios[0])
    with pytest.raises(MissingExtraError, match=rf"r1ranker\[{extra}\]"):
        fit_baseline(name, data, (), **options)
