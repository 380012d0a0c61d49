"""Raw files -> ranking examples. Every builder splits by user or query first and expands after."""

from r1ranker.datasets.base import Dataset, split_groups
from r1ranker.datasets.jsonl import (
    BadLine,
    example_from_dict,
    example_to_dict,
    read_examples,
    write_examples,
)
from r1ranker.datasets.passage import build_passage
from r1ranker.datasets.recommendation import build_recommendation, read_recbole
from r1ranker.datasets.registry import DATASETS, DatasetInfo, load_dataset
from r1ranker.datasets.routing import build_routing

__all__ = [
    "DATASETS",
    "BadLine",
    "Dataset",
    "DatasetInfo",
    "build_passage",
    "build_recommendation",
    "build_routing",
    "example_from_dict",
    "example_to_dict",
    "load_dataset",
    "read_examples",
    "read_recbole",
    "split_groups",
    "write_examples",
]
