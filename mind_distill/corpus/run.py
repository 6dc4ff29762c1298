"""`mind corpus stats`: measure a corpus and render its card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mind_distill.corpus.card import figures, starter_card
from mind_distill.corpus.read import Corpus
from mind_distill.corpus.separability import nearest_held_out, nearest_problems, separability
from mind_distill.corpus.stats import against_held_out, text_stats
from mind_distill.student.packages import cache_folder
from mind_distill.tasks.base import OFFLINE, load_benchmark
from mind_distill.terminal import Face


def corpus_stats(source: str, face: Face, embeddings: bool = True, encoder: str = "embedded") -> dict[str, Any]:
    """All figures of a corpus. Without `embeddings` nothing is loaded but the texts."""
    corpus = Corpus.load(source)
    stats = text_stats(corpus)
    held_out: dict[str, dict[str, Any]] = {
        name: dict(against_held_out(corpus, load_benchmark(name))) for name in OFFLINE
    }
    if embeddings:
        from mind_distill.metanet.features import FeatureCache, SentenceEncoder

        cache = FeatureCache(SentenceEncoder(encoder), cache_folder() / "features.sqlite")

        def embed(texts: Sequence[str]) -> np.ndarray:
            with face.track("Embedding", len(texts)) as advance:
                vectors: np.ndarray = cache.embed(list(texts), advance).numpy()
            return vectors

        stats["nearest"] = nearest_problems(corpus, embed)
        for name, found in held_out.items():
            found["nearest"] = nearest_held_out(corpus, load_benchmark(name), embed)
        if all(len(lesson.rationales) == len(corpus.perspectives) for lesson in corpus) and len(corpus) >= 10:
            face.say("Fitting the regression that tells the perspectives apart ...")
            stats["separability"] = separability(corpus, embed)
        cache.close()
    return stats | {"held_out": held_out}


def card(source: str, stats: dict[str, Any]) -> str:
    """The corpus's card; the starter corpus has a text of its own around the figures."""
    return starter_card(stats) if source == "starter" else f"# {source}\n\n" + figures(stats)
