"""The other clients of corpus_throughput.py; imports nothing of ours, so that each can run in an environment of its own.

    PYTHON benchmarks/peer_legs.py CLIENT URL SLOTS N

Each client is made ready (imports, connections' objects) before its clock starts. Telemetry and caches are off, their files go to a
temporary folder, logs below warnings are off, and no limit of theirs lies below the slots.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

Run = Callable[[], int]
"""Asks everything; returns how many were answered."""

PROMPT = "Ann has {} cups and gets 2. " + "word " * 200
NO_LIMIT = 10**12  # a minute
KEY = "none"


def openai_client(url: str, slots: int, n: int) -> Run:
    from openai import AsyncOpenAI

    async def all_of_them() -> int:
        client, room = AsyncOpenAI(base_url=url, api_key=KEY), asyncio.Semaphore(slots)

        async def one(i: int) -> int:
            async with room:
                messages: Any = [{"role": "user", "content": PROMPT.format(i)}]
                found = await client.chat.completions.create(model="toy", messages=messages)
                return int(found.choices[0].finish_reason == "stop")

        return sum(await asyncio.gather(*(one(i) for i in range(n))))

    return lambda: asyncio.run(all_of_them())


def curator(url: str, slots: int, n: int) -> Run:
    """The backend that talks HTTP itself; its others go through litellm, which is slower."""
    import litellm.litellm_core_utils.default_encoding  # noqa: F401  (its copy of the encoding, which is downloaded otherwise)
    from bespokelabs import curator

    class Asker(curator.LLM):  # type: ignore[misc]
        def prompt(self, row: dict[str, Any]) -> str:
            return str(row["prompt"])

        def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
            return {"prompt": row["prompt"], "response": response}

    limits = dict.fromkeys(("max_requests_per_minute", "max_tokens_per_minute"), NO_LIMIT)
    parameters = {"base_url": url, "api_key": KEY, "max_concurrent_requests": slots, **limits}
    asker = Asker(model_name="toy", backend="openai", backend_params=parameters)

    def run() -> int:
        found = asker([{"prompt": PROMPT.format(i)} for i in range(n)])
        return sum(bool(text) for text in found.dataset["response"])

    return run


def _distilabel_llm(url: str) -> Any:
    from distilabel.models import OpenAILLM

    # Its default of 128 tokens would cut the answers.
    return OpenAILLM(model="toy", base_url=url, api_key=KEY, generation_kwargs={"max_new_tokens": 4096})


def distilabel(url: str, slots: int, n: int) -> Run:
    """A batch is asked at once and waited for whole, so two replicas of the step share the slots: one, three and four were slower."""
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts, StepResources
    from distilabel.steps.tasks import TextGeneration

    with Pipeline("throughput") as pipeline:
        # All rows in one batch of the first step: in smaller ones its rows come so late that only one replica works at a time.
        rows = LoadDataFromDicts(data=[{"instruction": PROMPT.format(i)} for i in range(n)], batch_size=n)
        ask = TextGeneration(llm=_distilabel_llm(url), input_batch_size=slots // 2, resources=StepResources(replicas=2))
        rows >> ask

    def run() -> int:
        found = pipeline.run(use_cache=False)
        return sum(bool(text) for text in found["default"]["train"]["generation"])

    return run


def distilabel_alone(url: str, slots: int, n: int) -> Run:
    """Its model class without the pipeline: no processes to start, nothing kept, a batch of the slots at a time."""
    llm = _distilabel_llm(url)
    llm.load()

    def run() -> int:
        answered = 0
        for start in range(0, n, slots):
            batch = [[{"role": "user", "content": PROMPT.format(i)}] for i in range(start, min(n, start + slots))]
            found = llm.generate_outputs(inputs=batch, **llm.get_generation_kwargs())
            answered += sum(bool(one["generations"][0]) for one in found)
        return answered

    return run


PEERS = {
    "openai + semaphore": openai_client,
    "curator": curator,
    "distilabel": distilabel,
    "distilabel, LLM only": distilabel_alone,
}


def settle(folder: str) -> None:
    """What the peers read from the environment."""
    os.environ |= {
        "HOME": folder,
        "HF_HOME": folder,
        "CURATOR_CACHE_DIR": folder,
        "DISTILABEL_CACHE_DIR": folder,
        "CURATOR_DISABLE_CACHE": "true",
        "TELEMETRY_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "DISTILABEL_LOG_LEVEL": "WARNING",
    }
    logging.disable(logging.INFO)


def processor_seconds() -> float:
    """Of this process and its children that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def leg(run: Run) -> None:
    """One client in this process; prints its figures as JSON."""
    cpu, begun = processor_seconds(), time.perf_counter()
    answered = run()
    seconds, cpu = time.perf_counter() - begun, processor_seconds() - cpu
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("\n" + json.dumps({"answered": answered, "seconds": seconds, "cpu": cpu, "rss_mib": rss}))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=os.getcwd()) as folder:
        settle(folder)
        leg(PEERS[sys.argv[1]](sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
