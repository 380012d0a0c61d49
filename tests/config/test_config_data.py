from __future__ import annotations

import pytest

from r1ranker.config import load_config
from r1ranker.errors import ConfigError


def test_options_are_of_a_data_set_that_is_used() -> None:
    with pytest.raises(ConfigError, match=r"\[data\.options\] names 'passage-5', which is not among data\.names"):
        load_config(None, ["data.options.passage-5.limit=3"])
