"""`mind corpus push`: put a finished corpus on the hub, where `Corpus.load("owner/name")` and `load_dataset` read it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mind_distill.corpus.read import Corpus
from mind_distill.errors import Stopped, UserError
from mind_distill.tasks.hub import hub_is_reachable
from mind_distill.terminal import Face

FILES = ("corpus.jsonl", "corpus.parquet", "manifest.json", "README.md", "left_out.jsonl")
_NAME = re.compile(r"[\w][\w.-]{0,95}/[\w][\w.-]{0,95}")


def push(folder: Path, name: str, private: bool, face: Face) -> str:
    """Upload the folder's files (not the journal) and return the address. The corpus is checked first."""
    if not _NAME.fullmatch(name):
        raise UserError(f"--to: '{name}' is not of the form owner/name.")
    missing = [file for file in FILES[:4] if not (folder / file).is_file()]
    if missing:
        raise UserError(
            f"{folder} is not a finished corpus: {', '.join(missing)} missing. Finish it with `mind corpus build`."
        )
    corpus = Corpus.load(folder)
    wanted = json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("hash")
    if wanted != corpus.content_hash():
        raise UserError(
            f"{folder}: corpus.jsonl is not what manifest.json describes (its hash differs). Build it again."
        )
    face.say(f"Uploading {len(corpus):,} lessons to {name} ...")
    return _upload(folder, name, private)


def _upload(folder: Path, name: str, private: bool) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    if not hub_is_reachable():
        raise _no_connection(folder, "its host does not answer")
    api = HfApi()
    try:
        address = api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            folder_path=folder,
            repo_id=name,
            repo_type="dataset",
            allow_patterns=list(FILES),
            commit_message="Corpus built with mind corpus build",
        )
    except (LocalTokenNotFoundError, HfHubHTTPError) as problem:
        status = getattr(getattr(problem, "response", None), "status_code", None)
        if isinstance(problem, LocalTokenNotFoundError) or status in (401, 403):
            raise UserError(
                f"The hub refuses to write {name}: log in with `hf auth login`, or set HF_TOKEN to a token that may write."
            ) from None
        raise Stopped(f"The hub answered {status} ({_first(problem)}). Nothing is lost; push again later.") from None
    except (OfflineModeIsEnabled, OSError) as problem:
        raise _no_connection(folder, _first(problem)) from None
    return str(address)


def _no_connection(folder: Path, reason: str) -> Stopped:
    return Stopped(
        f"The hub cannot be reached: {reason}. The corpus in {folder} is whole; push again when there is a connection."
    )


def _first(problem: BaseException) -> str:
    return " ".join(str(problem).split())[:200]
