"""The name of a published model on the Hugging Face hub to a folder on this machine that holds its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monitor.errors import ModelError


def snapshot(name: str, files: Sequence[str], revision: str | None = None, *, fetch: bool = True) -> Path:
    """The folder in the hub's cache with those files of `name` that match one of the patterns `files`.

    What is not in the cache yet is fetched; with `fetch` off nothing is asked of the network. `revision` is a commit, a tag or a
    branch; None: the newest. Raises ModelError that says why there is none.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files), local_files_only=not fetch))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        asked = "on this machine" if not fetch else "to be had from the hub"
        raise ModelError(f"{name} is not {asked} ({type(error).__name__})") from error
