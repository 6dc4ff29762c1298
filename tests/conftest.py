"""Shared toys: a tiny real Llama with a byte tokenizer, lessons by hand, and one torch thread."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from mind_distill.corpus.perspectives import STANDARD
from mind_distill.corpus.read import Corpus
from mind_distill.records import Lesson, Problem, Rationale

CHAT_TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`slow` runs where CI=true or when asked for with -m; `gpu` and `network` only when asked for."""
    asked = config.getoption("-m") or ""
    for name, reason in (
        ("slow", "slow: run with CI=true or -m slow"),
        ("gpu", "needs -m gpu"),
        ("network", "needs -m network"),
    ):
        if name in asked or (name == "slow" and os.environ.get("CI") == "true"):
            continue
        for item in items:
            if name in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)  # files with slow tests first: two workers then end together


@pytest.fixture(autouse=True)
def one_thread_and_one_seed() -> None:
    """What a test itself draws does not depend on the tests before it in its process."""
    import random

    import numpy as np
    import torch

    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing a test runs writes into the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def toy_tokenizer() -> Any:
    """Bytes as tokens, with the special tokens and the chat template of a chat model."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {c: i + 3 for i, c in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def toy_model(seed: int = 0, hidden: int = 32) -> Any:
    """A two-layer Llama with random weights in float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=259,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
        return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory, toy_tokenizer: Any) -> Path:
    """The toy student as a model folder."""
    folder = tmp_path_factory.mktemp("toy-student")
    toy_model().save_pretrained(folder)
    toy_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def toy_student(toy_tokenizer: Any) -> Any:
    """The toy student with LoRA, in float32."""
    from mind_distill.student.load import LoraSettings, Student, add_lora

    model = add_lora(toy_model(), LoraSettings(rank=4, alpha=8), seed=0, base="toy")
    return Student(model, toy_tokenizer, "sentence", slots=8, micro_batch=3, max_tokens=1024)


def make_lesson(n: int, keys: list[str] | None = None) -> Lesson:
    """Problem n (n + 2) with a rationale for each of the perspectives."""
    answer = str(n + 2)
    problem = Problem(
        f"toy-{n:03d}", f"Ann has {n} cups and gets 2. How many?", answer, "number", subject="algebra", level=1
    )
    rationales = []
    for i, perspective in enumerate(STANDARD):
        if keys is None or perspective.key in keys:
            body = f"{perspective.name}: {n} and 2 " + "more " * (i + 1) + "cups."
            text = f"{body}\n\nThe answer is {answer}."
            rationales.append(
                Rationale(
                    f"{problem.id}#{perspective.key}#0", perspective.key, 0, text, len(body), answer, True, "human"
                )
            )
    return Lesson(problem, tuple(rationales))


@pytest.fixture
def toy_corpus() -> Corpus:
    return Corpus([make_lesson(n) for n in range(1, 7)], STANDARD, "toy")


class HashEncoder:
    """A stand-in for the sentence encoder where a test is not about it: vectors from character counts."""

    name = "hash"
    width = 16

    def __init__(self, source: str = "hash") -> None: ...

    def encode(self, texts: Any, advance: Any = None) -> Any:
        import numpy as np

        rows = np.zeros((len(texts), self.width), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for i, byte in enumerate(text.encode()):
                row[(byte + i) % self.width] += 1.0
            row /= np.linalg.norm(row) + 1e-6
        if advance:
            advance(len(texts))
        return rows


@pytest.fixture
def hash_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MIND without loading MiniLM, and with a cache of its own."""
    monkeypatch.setattr("mind_distill.metanet.teaching.SentenceEncoder", HashEncoder)
    monkeypatch.setenv("MIND_CACHE", str(tmp_path / "cache"))
