"""Raw files -> ranking examples. Every builder splits by user or query first and expands after."""

from r1ranker.datasets.base import Dataset, split_groups
from r1ranker.datasets.catalogue import DATASETS, DatasetInfo, built_as
from r1ranker.datasets.documents import build_documents
from r1ranker.datasets.jsonl import (
    BadLine,
    example_from_dict,
    example_to_dict,
    read_examples,
    write_examples,
)
from r1ranker.datasets.neighbours import Neighbours
from r1ranker.datasets.passage import build_passage
from r1ranker.datasets.ranking_bench import build_ranking_bench
from r1ranker.datasets.recommendation import build_recommendation, read_recbole
from r1ranker.datasets.registry import load_dataset
from r1ranker.datasets.routing import build_routing
from r1ranker.datasets.trec import build_trec
from r1ranker.datasets.trec_files import read_qrels, read_run, write_qrels, write_run

__all__ = [
    "DATASETS",
    "BadLine",
    "Dataset",
    "DatasetInfo",
    "Neighbours",
    "build_documents",
    "build_passage",
    "build_ranking_bench",
    "build_recommendation",
    "build_routing",
    "build_trec",
    "built_as",
    "example_from_dict",
    "example_to_dict",
    "load_dataset",
    "read_examples",
    "read_qrels",
    "read_recbole",
    "read_run",
    "split_groups",
    "write_examples",
    "write_qrels",
    "write_run",
]
