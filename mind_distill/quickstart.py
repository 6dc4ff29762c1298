"""`mind quickstart`: a recipe with a nice face. Measure, distil, measure again on the same questions, and show it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mind_distill.config import read_recipe, to_yaml
from mind_distill.errors import UserError
from mind_distill.evaluation.scoring import Paired, compare
from mind_distill.pipeline import Lessons, evaluate_run, prepare_lessons, resolved_settings, train_student
from mind_distill.records import Prediction
from mind_distill.runs import Run, RunDirectory, claim_output
from mind_distill.tasks.prompts import BRIEF_CUE
from mind_distill.terminal import Face

ROOT = Path("runs")


def next_folder() -> Path:
    """runs/quickstart-N, the first N that is free."""
    n = 1
    while (ROOT / f"quickstart-{n}").exists():
        n += 1
    return ROOT / f"quickstart-{n}"


def quickstart(output: Path | None, fast: bool, resume: bool, overrides: list[str], face: Face) -> Run:
    """Run the quickstart recipe into `output` (default: the next free folder) and print what changed."""
    folder = output or next_folder()
    face.say(
        "MIND quickstart: a 135M student learns from eight ways of thinking. Everything stays on this machine; "
        f"files go to {folder}."
    )
    face.say("Loading the libraries, the student and the sentence encoder ...")
    values = read_recipe("quickstart-fast" if fast else "quickstart", overrides)
    from mind_distill.training.settings import resolve_recipe

    recipe = resolve_recipe(values, "quickstart")
    if not recipe.corpus.probe or len(recipe.evaluation.benchmarks) != 1:
        raise UserError(
            "The quickstart needs corpus.probe of at least 1 and exactly one benchmark in evaluation.benchmarks."
        )
    lessons = prepare_lessons(recipe, None)
    resolved = resolved_settings(recipe, lessons)
    going_on = claim_output(folder, resume, resolved)
    with RunDirectory(folder, "quickstart", recipe.training.seed, going_on) as directory:
        directory.write_settings(to_yaml(values), to_yaml(resolved))
        face.watch(directory.path, [perspective.name for perspective in lessons.train.perspectives])
        _measure_and_train(recipe, lessons, directory, going_on, face)
    run = Run.load(folder)
    report = run.report()
    result = Outcome(run)
    face.result(result.values(), result.text(report))
    return run


def _measure_and_train(recipe: Any, lessons: Lessons, directory: RunDirectory, going_on: bool, face: Face) -> None:
    benchmark, limit = recipe.evaluation.benchmarks[0], recipe.evaluation.limit
    count = len(lessons.train)
    face.say(
        f"1/4  Asking the untouched student {limit} held-out questions ({benchmark}), with the usual prompt and a brief one."
    )
    evaluate_run(directory, "before", recipe, face)
    evaluate_run(directory, "before-brief", recipe, face, cue=BRIEF_CUE)
    face.say(
        f"2/4  Learning from {count} problems x {len(lessons.train.perspectives)} rationales: MetaNet warms up, then student "
        "and MetaNet learn together."
    )
    train_student(recipe, lessons, directory, face, going_on)
    face.say(f"3/4  Asking the trained student the same {limit} questions in the same way.")
    evaluate_run(directory, "after", recipe, face)
    face.say("4/4  Writing the report.")


class Outcome:
    """What a finished quickstart has to show, read from its run directory alone."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings = run.settings()
        self.benchmark = self.settings["evaluation"]["benchmarks"][0]
        self.before, self.brief, self.after = (run.scores(label)[0] for label in ("before", "before-brief", "after"))
        self.paired = compare(run.predictions("before", self.benchmark), run.predictions("after", self.benchmark))
        self.paired_brief = compare(
            run.predictions("before-brief", self.benchmark), run.predictions("after", self.benchmark)
        )
        probe = run.lines("probe.jsonl")
        self.loss_before, self.loss_after = (_mean(row["nll"]) for row in (probe[0], probe[-1]))
        self.probe_texts = probe[0]["lessons"] * len(probe[0]["nll"])

    def example(self) -> tuple[Prediction, Prediction]:
        """One question answered before and after: the first gained one, else the first."""
        before, after = (self.run.predictions(label, self.benchmark) for label in ("before", "after"))
        pairs = list(zip(before, after, strict=True))
        gained = [pair for pair in pairs if pair[1].correct and not pair[0].correct]
        return (gained or pairs)[0]

    def values(self) -> dict[str, object]:
        """The outcome for --json."""
        return {
            "run": str(self.run.path),
            "benchmark": self.benchmark,
            "n": self.after.n,
            "accuracy": {
                "before": self.before.accuracy,
                "before_brief": self.brief.accuracy,
                "after": self.after.accuracy,
            },
            "parsed": {"before": self.before.parsed, "before_brief": self.brief.parsed, "after": self.after.parsed},
            "gained": self.paired.gained,
            "lost": self.paired.lost,
            "p": self.paired.p,
            "gold_loss": {"before": self.loss_before, "after": self.loss_after},
            "seconds": self.run.info()["seconds"],
        }

    def text(self, report: Path) -> str:
        """The outcome for people."""
        before, after = self.example()
        path = self.run.path
        return "\n".join(
            [
                "",
                self.table(),
                "",
                verdict(self.paired, self.paired_brief),
                "",
                f"One of the questions: {after.question}  (right answer: {after.gold})",
                f"  before: {_short(before.text)}",
                f"  after:  {_short(after.text)}",
                "",
                f"Run directory: {path}",
                f"Report:        {report}   (one file; open it in a browser)",
                f'Try next:      mind ask {path} "Mia has 9 pens and buys 4 more. How many pens does she have?"',
                "Your own data: mind train quickstart corpus.source=my-lessons.jsonl corpus.slice= --output runs/mine",
            ]
        )

    def table(self) -> str:
        """Before and after on the same questions."""
        rows: list[tuple[str, ...]] = [("", "untouched", "untouched, brief prompt", "after MIND")]
        scores = (self.before, self.brief, self.after)
        rows.append((f"right answers, of {self.after.n}", *(f"{s.correct}  ({s.accuracy:.0%})" for s in scores)))
        rows.append(("  95 % interval", *(f"{s.low:.0%} to {s.high:.0%}" for s in scores)))
        rows.append(("answers that could be parsed", *(f"{s.parsed:.0%}" for s in scores)))
        rows.append(("answers that ended by themselves", *(f"{s.eos:.0%}" for s in scores)))
        rows.append(
            (f"loss of {self.probe_texts} unseen rationales", f"{self.loss_before:.2f}", "-", f"{self.loss_after:.2f}")
        )
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return "\n".join(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        )


def verdict(paired: Paired, brief: Paired) -> str:
    """What the paired tests show, and no more."""
    changed = f"{paired.gained} gained, {paired.lost} lost"
    first = f"On the same {paired.n} questions: {changed} (exact McNemar test, p = {paired.p:.2g})."
    second = f"Against the brief prompt: {brief.gained} gained, {brief.lost} lost (p = {brief.p:.2g})."
    better = [test.significant and test.gained > test.lost for test in (paired, brief)]
    if all(better):
        end = "The student got better, whichever of the two prompts it is compared with."
    elif better[0]:
        end = "It is better than with its usual prompt; against the brief one the test shows no difference: what it learned is form."
    elif paired.significant:
        end = "The student got worse."
    else:
        end = "The test shows no difference in accuracy."
    return "\n".join([first, second, end])


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def _short(text: str, limit: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 4] + " ..."
