"""The report: it shows what a run holds, says what is missing, claims only what a test shows, and is harmless."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from mind_distill.corpus.read import Corpus
from mind_distill.errors import UserError
from mind_distill.report import palette
from mind_distill.report.curves import POINTS, spans_of
from mind_distill.report.paper import figure_8
from mind_distill.report.run import write_report
from mind_distill.report.source import Source
from mind_distill.report.words import duration, percent, visible
from mind_distill.runs import Run
from tests.report.pages import HOSTILE, assert_harmless, hostile_run, page_of
from tests.report.toy_run import write_evaluation, write_lines, write_run


@pytest.fixture
def toy_run(tmp_path: Path, toy_corpus: Corpus) -> Run:
    return write_run(tmp_path / "run", toy_corpus)


def test_page_holds_every_section_of_a_finished_run(toy_run: Run) -> None:
    text = page_of(toy_run).text
    for expected in (
        "SmolLM2-135M-Instruct, taught with MIND",
        "The student learned from 6 problems, each explained in up to 8 ways",
        "95 % interval (Wilson)",
        "5.7% to 51.0%",
        "Seed 3",
        "150 a second of training",
        "mind train recipe.yaml",
        "Loss of MetaNet",
        "Rank agreement",
        "Weight of each perspective (alpha)",
        "Loss on lessons never trained",
        "No warning was raised.",
        "Formal Symbolic: 3 and 2 more cups.",
        "same SHA-256 as recorded by the run",
        "What is 3 and 2?",
        "loss of unseen right rationales 2 1.5",
    ):
        assert expected in text
    assert "Not in this run" not in text


def test_a_gain_is_claimed_only_where_the_paired_test_shows_it(tmp_path: Path, toy_corpus: Corpus) -> None:
    clear = write_run(tmp_path / "clear", toy_corpus)
    unclear = write_run(tmp_path / "unclear", toy_corpus, labels=("before",))
    write_evaluation(unclear.path, "after", right=5)
    worse = write_run(tmp_path / "worse", toy_corpus, labels=("after",))
    write_evaluation(worse.path, "before", right=0)
    write_evaluation(worse.path, "final", right=0)
    assert "7 gained, 0 lost (exact McNemar test, p = 0.016). The test shows a gain." in page_of(clear).text
    text = page_of(unclear).text
    assert "3 gained, 0 lost (exact McNemar test, p = 0.25). The test shows no difference" in text
    assert "The test shows a gain" not in text
    assert "The test shows no difference" in page_of(worse).text


def test_gained_and_lost_answers_are_shown_in_turn(tmp_path: Path, toy_corpus: Corpus) -> None:
    run = write_run(tmp_path / "run", toy_corpus, labels=("after",))
    write_evaluation(run.path, "before", right=4)
    file = run.path / "evaluations" / "after" / "toy.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    write_lines(file, [row | {"correct": i in (0, 1, 6, 7)} for i, row in enumerate(rows)])
    rows_shown = re.findall(r'<tr class="(\w+)" data-row', page_of(run).source)
    assert rows_shown == ["gained", "lost", "gained", "lost", *["both", "neither"] * 2, "neither", "neither"]


def test_evaluations_of_other_questions_are_not_compared(tmp_path: Path, toy_corpus: Corpus) -> None:
    run = write_run(tmp_path / "run", toy_corpus, labels=("before",))
    write_evaluation(run.path, "after", right=9, n=12)
    text = page_of(run).text
    assert "cannot be compared item by item" in text
    assert "The test shows" not in text


def test_page_may_load_nothing_and_run_only_its_own_script(toy_run: Run) -> None:
    page = page_of(toy_run)
    policy = next(attrs["content"] or "" for tag, attrs in page.tags if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.raw[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"https?://(?!www\.w3\.org/)|@import|url\(|\beval\b|Function\(", page.source)
    assert_harmless(page)


def test_hostile_text_is_shown_and_does_nothing(tmp_path: Path) -> None:
    payload = " ".join(HOSTILE)
    page = page_of(hostile_run(tmp_path, payload))
    assert_harmless(page)
    assert page.text.count(" ".join(visible(payload).split())) > 20


def test_lone_surrogates_do_not_stop_the_page(toy_run: Run) -> None:
    (toy_run.path / "events.jsonl").write_text('{"step": 1, "event": "odd", "message": "\\ud800", "ids": []}\n')
    assert "⟨U+D800⟩" in page_of(toy_run).text


def test_long_texts_are_cut_and_say_so(tmp_path: Path, toy_corpus: Corpus) -> None:
    run = write_run(tmp_path / "run", toy_corpus, labels=())
    write_evaluation(run.path, "final", right=3, n=400, text="long " * 5_000)
    page = page_of(run)
    assert len(page.source) < 3_000_000
    assert "more characters]" in page.text
    assert "of 400 fit on this page" in page.text


def test_uniform_run_has_no_scores_and_says_what_is_not_recorded(tmp_path: Path, toy_corpus: Corpus) -> None:
    text = page_of(write_run(tmp_path / "run", toy_corpus, method="uniform")).text
    assert "Not recorded in this run: Consistency term, Loss of MetaNet, Rank agreement" in text
    assert "taught with uniform weights" in text
    assert "loss 1.00 weight 12%" in text


def test_one_step_is_drawn_as_a_point(tmp_path: Path, toy_corpus: Corpus) -> None:
    page = page_of(write_run(tmp_path / "run", toy_corpus, steps=1))
    assert "Only one step is recorded" in page.text
    assert page.source.count("mark-symbol role-mark") > 5


def test_many_steps_are_averaged_into_few_points(tmp_path: Path, toy_corpus: Corpus) -> None:
    page = page_of(write_run(tmp_path / "run", toy_corpus, steps=1000))
    assert "Each point is the mean over 9 steps." in page.text
    assert len(page.source) < 1_500_000
    spans = spans_of(1, 1000)
    assert len(spans) <= POINTS
    assert [(a.last + 1) for a in spans[:-1]] == [b.first for b in spans[1:]]


@pytest.mark.parametrize("name", ["metrics.jsonl", "visits.jsonl", "probe.jsonl", "timing.jsonl", "settings.yaml"])
@pytest.mark.parametrize("content", [None, '[1]\n"x"\n{"step": "one", "alpha": 3, "nll": "x"}\n\x00{'])
def test_damaged_file_gives_a_page_that_says_what_is_missing(toy_run: Run, name: str, content: str | None) -> None:
    file = toy_run.path / name
    file.unlink() if content is None else file.write_text(content)
    page = page_of(toy_run)
    assert_harmless(page)
    if content is None or name == "settings.yaml":
        assert "Not in this run" in page.text


def test_nan_and_null_are_left_out(toy_run: Run) -> None:
    line = '{"step": 1, "sft": NaN, "meta": Infinity, "alpha": [NaN, 1, 0, 0, 0, 0, 0, null], "grad_norm": null}\n'
    with (toy_run.path / "metrics.jsonl").open("a") as stream:
        stream.write(line)
    page = page_of(toy_run)
    assert not re.search(r"\b(NaN|nan|Infinity|inf|None|null)\b", page.text)


@pytest.mark.parametrize(
    "line", ['{"foo": 3, "sft": 1}', '{"step": 7, "sft": 1%s}' % ("0" * 400), '{"step": 7, "alpha": [1e308, 1e308]}']
)
def test_a_number_without_step_or_beyond_all_size_does_not_stop_the_page(toy_run: Run, line: str) -> None:
    with (toy_run.path / "metrics.jsonl").open("a") as stream:
        stream.write(line + "\n")
    assert "Loss of the student" in page_of(toy_run).text
    assert figure_8(Source(toy_run))


def test_stopped_run_without_evaluation_says_so(tmp_path: Path, toy_corpus: Corpus) -> None:
    run = write_run(tmp_path / "run", toy_corpus, steps=3, labels=())
    (run.path / "run.json").write_text(json.dumps(run.info() | {"status": "stopped"}))
    text = page_of(run).text
    assert "This run was stopped after step 3" in text
    assert "No evaluation was finished." in text


def test_run_that_never_took_a_step(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text('{"format": 1, "status": "failed"}')
    text = page_of(Run.load(folder)).text
    assert "This run failed before its first step" in text
    assert "No training step is recorded." in text


def test_broken_evaluation_is_named_and_the_rest_is_shown(toy_run: Run) -> None:
    (toy_run.path / "evaluations" / "after" / "scores.json").write_text('[{"benchmark": "toy"}]')
    (toy_run.path / "evaluations" / "before" / "toy.jsonl").write_text("{")
    text = page_of(toy_run).text
    assert "Evaluation 'after' cannot be read" in text
    assert "2 of 10" in text


def test_missing_corpus_leaves_numbers_without_texts(toy_run: Run) -> None:
    settings = toy_run.settings() | {"corpus": {"source": "gone/away"}}
    (toy_run.path / "settings.yaml").write_text(json.dumps(settings))
    text = page_of(toy_run).text
    assert "The corpus 'gone/away' is not on this machine" in text
    assert "The text of this problem is not at hand." in text


def test_changed_corpus_is_not_passed_off_as_the_one_learned_from(toy_run: Run) -> None:
    (toy_run.path / "run.json").write_text(json.dumps(toy_run.info() | {"hashes": {"corpus": "0" * 64}}))
    assert "could not be checked" in page_of(toy_run).text


def cut_slots(run: Run, columns: list[str]) -> Run:
    """The run as it would be with these columns, its lists cut to their number."""
    for name in ("metrics", "visits", "probe"):
        file = run.path / f"{name}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        k = len(columns)
        write_lines(file, [{key: v[:k] if isinstance(v, list) else v for key, v in row.items()} for row in rows])
    (run.path / "run.json").write_text(json.dumps(run.info() | {"columns": columns}))
    return Run(run.path)


def test_numbers_of_some_perspectives_stand_beside_their_own_texts(toy_run: Run) -> None:
    page = page_of(cut_slots(toy_run, ["Intuitive", "Planning"]))
    shelves = page.source.partition('class="room')[2]
    cards = re.findall(r"<strong>([^<]*)</strong>.*?<p class=\"text\"[^>]*>(\w+(?: \w+)*):", shelves, re.DOTALL)
    assert set(cards) == {("Intuitive", "Intuitive"), ("Planning", "Planning")}


def test_numbers_of_other_texts_stand_beside_none_of_the_corpus(toy_run: Run) -> None:
    text = page_of(cut_slots(toy_run, ["right twin", "wrong twin"])).text
    assert "(right twin, wrong twin) are no perspectives of its corpus" in text
    assert "more cups" not in text.rpartition("Reading room")[2].partition("Answers to held-out")[0]


def test_first_and_last_visit_stand_side_by_side(tmp_path: Path, toy_corpus: Corpus) -> None:
    text = page_of(write_run(tmp_path / "run", toy_corpus, steps=18)).text
    assert "visited 3 times" in text
    assert "step 1 step 13" in text


def test_events_are_listed_at_their_step(toy_run: Run) -> None:
    event = {"step": 4, "event": "consistency_inert", "message": "It is inert.", "ids": ["toy-001"]}
    write_lines(toy_run.path / "events.jsonl", [event])
    page = page_of(toy_run)
    assert "Step 4 , consistency inert: It is inert. (toy-001)" in page.text
    assert "stroke-dasharray" in page.source


def test_several_runs_stand_side_by_side_with_their_differences(tmp_path: Path, toy_corpus: Corpus) -> None:
    runs = [write_run(tmp_path / name, toy_corpus, method=name) for name in ("mind", "uniform")]
    page = page_of(*runs)
    assert "2 runs side by side" in page.text
    assert "method.name mind uniform" in page.text
    assert "Curves overlaid" in page.text
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    assert_harmless(page)


def test_report_is_quick_and_loads_no_torch(toy_run: Run) -> None:
    code = (
        "import sys; from pathlib import Path; from mind_distill.runs import Run\n"
        "from mind_distill.report.run import write_report\n"
        f"write_report([Run.load({str(toy_run.path)!r})], Path('out.html'))\n"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert time.perf_counter() - begun < 30  # the aim is 5 s; a busy test machine is given more
    assert Path("out.html").stat().st_size < 1_200_000


def test_a_folder_as_target_is_refused(toy_run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        write_report([toy_run], tmp_path)


def test_words() -> None:
    assert [percent(x) for x in (0, 0.25, 0.225, 1)] == ["0%", "25%", "22.5%", "100%"]
    assert [duration(x) for x in (12, 395.3, 7500)] == ["12 s", "6 min 35 s", "2 h 5 min"]
    assert visible("a\r\nb\u202e") == "a\nb⟨U+202E⟩"


# Severe dichromacy as linear maps of light (Machado, Oliveira and Fernandes 2009).
EYES = {
    "normal": np.eye(3),
    "deuteranope": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanope": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "tritanope": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
TO_LMS = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
TO_OKLAB = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]


def light_of(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    low, high = sorted(float(light_of(c) @ [0.2126, 0.7152, 0.0722]) + 0.05 for c in (a, b))
    return high / low


@pytest.mark.parametrize("eye", EYES)
def test_perspective_colours_stay_apart_for_every_eye(eye: str) -> None:
    seen = [np.clip(np.array(EYES[eye]) @ light_of(colour), 0, 1) for colour in palette.SLOTS]
    places = [np.array(TO_OKLAB) @ np.cbrt(np.array(TO_LMS) @ light) for light in seen]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(places, 2)) > 0.12


def test_colours_can_be_seen_and_texts_read() -> None:
    for theme in (palette.LIGHT, palette.DARK):
        for ground in (theme["paper"], theme["card"]):
            assert min(contrast(colour, ground) for colour in palette.SLOTS) >= 2
            assert min(contrast(theme[name], ground) for name in ("ink", "muted", "accent", "gain", "loss")) >= 4.5
        assert contrast(theme["ink"], theme["notice"]) >= 4.5
