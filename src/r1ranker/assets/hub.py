"""Models and data sets from the Hugging Face hub, with a quick answer where it cannot be reached."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from r1ranker.assets.wheels import Say
from r1ranker.errors import AssetError

_HUB_SECONDS = 5.0
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model"]


def fetch_snapshot(hub_id: str, say: Say) -> Path:
    """The folder with a model's safetensors, from the hub's own cache or else from the hub.

    Raises AssetError, with the reason and the remedy, where neither has it whole.
    """
    with _hub_errors(hub_id):
        if (folder := _snapshot(hub_id, local=True)) and _usable(folder):
            return folder
        _reach_hub()
        say(f"fetching {hub_id} from the model hub")
        if (folder := _snapshot(hub_id, local=False)) and _usable(folder):
            return folder
    raise AssetError(f"{hub_id} has no safetensors with a configuration: choose a model that has them")


def fetch_data_snapshot(hub_id: str, patterns: Sequence[str], say: Say) -> Path:
    """The folder with a data set's files (those that match a pattern) as the hub has them now.

    Where the hub cannot be reached, what its own cache holds of them. Raises AssetError, with the reason and
    the remedy, where it holds nothing.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with _hub_errors(hub_id):
        local = False
        try:
            _reach_hub()
            say(f"fetching the data set {hub_id} from the hub")
        except OSError as error:
            local, reason = True, error
        try:
            return Path(
                snapshot_download(
                    hub_id,
                    repo_type="dataset",
                    allow_patterns=list(patterns),
                    etag_timeout=_HUB_SECONDS,
                    local_files_only=local,
                )
            )
        except LocalEntryNotFoundError:
            if local:
                raise reason from None
            raise


def _snapshot(hub_id: str, *, local: bool) -> Path | None:
    """The snapshot's folder; None where only the hub's cache was to be asked, and it has none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(hub_id, allow_patterns=_HUB_FILES, etag_timeout=_HUB_SECONDS, local_files_only=local)
        )
    except LocalEntryNotFoundError:
        if local:
            return None
        raise


def _reach_hub() -> None:
    """A quick look whether the hub answers at all: the hub's client would try again for a minute and more."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=_HUB_SECONDS):
            pass
    except HTTPError:
        pass  # it answers; whatever it did not like about this request


@contextmanager
def _hub_errors(hub_id: str) -> Iterator[None]:
    """Turn what the hub's client raises into one AssetError with a remedy."""
    from huggingface_hub.errors import HfHubHTTPError

    # The HTTP library under the client has changed name; its own base error is the first base of this one.
    known: tuple[type[BaseException], ...] = (OSError, ValueError, *HfHubHTTPError.__bases__)
    try:
        yield
    except known as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise AssetError(
            f"could not fetch {hub_id} from the model hub ({reason}): connect to it and check the name, or give "
            "a local folder"
        ) from error


def _usable(folder: Path) -> bool:
    """Whether a model's folder has its configuration and all its safetensors (an interrupted snapshot may not)."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values())
    else:
        shards = {"model.safetensors"}
    return all((folder / name).is_file() for name in ("config.json", *shards))
