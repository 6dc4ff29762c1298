"""geometry.json, inclination.json and preference.json written by hand, for tests of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mind_distill.corpus.perspectives import STANDARD

NAMES = [perspective.name for perspective in STANDARD]
K = len(NAMES)


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def geometry(word: str = "") -> dict[str, Any]:
    """Two spaces of two measures, and a verdict of each kind."""
    measures = [
        {"name": "ari_perspective", "label": f"ARI, perspective{word}", **interval(0.6), "null": 0.01, "null_high": 0.03, "p": 0.005},
        {"name": "ari_subject", "label": "ARI, subject", **interval(0.02), "null": 0.01, "null_high": 0.03, "p": 0.4},
    ]  # fmt: skip
    space = {"points": 320, "models": [*NAMES, word], "active": 9, "converged": False, "held_out": -3.2}
    verdicts = [{"claim": f"Claim {holds}{word}", "holds": holds, "because": word} for holds in (True, False, None)]
    spaces = {"states": space | {"measures": measures}, "seed": space | {"converged": True, "measures": measures[:1]}}
    return {"format": 1, "spaces": spaces, "verdicts": verdicts}


def inclination(word: str = "") -> dict[str, Any]:
    """Two students on a benchmark, and one of them on a subject."""
    summed = {key: interval(0.5) for key in ("coverage", "sharpness", "outside", "entropy", "collapse")}
    rows = []
    for model, subject in (("sbs", None), ("mind" + word, None), ("mind" + word, "number_theory")):
        weights = [0.3] + [0.1] * (K - 1)
        lists = {"inclination": weights, "low": [w - 0.05 for w in weights], "high": [w + 0.05 for w in weights]}
        rows.append({"model": model, "benchmark": "starter-easy", "subject": subject, "n": 40, **lists, **summed})
    return {"format": 1, "perspectives": [NAMES[0] + word, *NAMES[1:]], "rows": rows}


def preference(word: str = "") -> dict[str, Any]:
    """One run with everything that `examine` can say."""
    shared = {**interval(0.9), "p": 0.001}
    claim = {"by": None, "strength": 0.4, "p": 0.001, "student": 0.3, "student_p": 0.001, "agreement": shared}
    claim["kept"] = {"own": 0.4, "shuffled": 0.05, "shuffled_most": 0.1, "p": 0.05}
    group = {"of": "alpha", "by": "subject", "phase": "last third", "names": ["algebra", "geometry" + word]}
    group |= {"counts": [4, 5], "cells": [[1 / K] * K] * 2, "marked": [[True] + [False] * (K - 1)] * 2, "p": 0.01}
    lists = {"value": [1 / K] * K, "low": [0.1] * K, "high": [0.2] * K}
    run = {
        "run": "mind-s0" + word,
        "uniform": "uniform-s0" + word,
        "perspectives": [NAMES[0] + word, *NAMES[1:]],
        "problems": 9,
        "visits": 18,
        "tau": 0.25,
        "series": {"steps": [[1, 2], [3, 4], [5, 6]], "student": [2, 1.5, 1], "metanet": [0.1, 0.2, None], "rank": [0.5, 0.6, 0.7]},
        "steadiness": {"first": 0.2, "last": 0.1, "jump_first": 0.05, "jump_last": 0.01},
        "agreement": {"whole": shared, "exchanged": 0.6, "first_third": 0.5, "last_third": 0.7},
        "lag": {"steps": 2, "low": 0, "high": 4, "correlation": 0.7, "p": 0.01, "within_problems": True,
                "steps_per_point": 2, "shifts": [-2, 0, 2], "correlations": [0.1, 0.4, 0.7]},
        "means": [{"of": "alpha", "phase": "all", **lists}, {"of": "student", "phase": "last third", **lists}],
        "groups": [group],
        "replay": {"scores": 0.99, "alpha": 0.98, "shuffles": 19},
        "reinforcement": {"mind": 0.5, "uniform": 0.1, "difference": {**interval(0.4), "p": None}},
        "claims": [claim],
        "answers": [{"question": f"a preference{word}", "answer": "intrinsic", "because": f"Because.{word}"}],
        "notes": [f"A note.{word}"],
    }  # fmt: skip
    return {"format": 1, "runs": [run]}


def write_latent(folder: Path, word: str = "") -> None:
    """The three files; `word` stands wherever a text can."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in (("geometry", geometry), ("inclination", inclination), ("preference", preference)):
        (folder / f"{name}.json").write_text(json.dumps(values(word)))
