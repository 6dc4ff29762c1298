"""`mind latent`: the runs that a study describes are trained, every model answers and is read, and the states are measured."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mind_distill.comparison.specialists import perspectives_of, run_folder, train_runs, wanted_runs
from mind_distill.config import to_yaml
from mind_distill.errors import UserError
from mind_distill.latent.collect import collect, load_questions
from mind_distill.latent.models import Model, Roster, muster
from mind_distill.latent.run import JOB, Analysis, Found, TextEmbedder, claim, stored_roster
from mind_distill.latent.study import LatentSettings, read_latent_study
from mind_distill.runs import Run, RunDirectory, read_settings
from mind_distill.terminal import Face


def study_latent_space(
    name: str, overrides: list[str], output: Path, face: Face, *, resume: bool, force: bool, redo: bool
) -> Found:
    """Everything that the study says, into `output`; what is there is kept. `redo` measures the stored states alone."""
    study, values = read_latent_study(name, overrides)
    claim(output, study, resume or redo, force and not redo)
    if redo:
        roster = stored_roster(output)
        with RunDirectory(output, JOB, study.seed, True) as directory:
            directory.write_settings(to_yaml(values), to_yaml(study.model_dump(mode="json")))
            return _measure(study, roster, output, face)
    known = perspectives_of(study)
    questions = load_questions(study, name)
    wanted = wanted_runs(study, known)
    planned = {str(output / "runs" / one.name): one.resolved for one in wanted}
    roster = muster(study, name, known, partial(run_folder, output), planned)
    with RunDirectory(output, JOB, study.seed, resume) as directory:
        directory.write_settings(to_yaml(values), to_yaml(study.model_dump(mode="json")))
        train_runs(wanted, output, face, force)
        collect(study, roster, questions, output, face)
        _probe(study, roster, output, face)
        return _measure(study, roster, output, face)


def _measure(study: LatentSettings, roster: Roster, output: Path, face: Face) -> Found:
    embed = TextEmbedder(study.sentence_encoder, face)
    try:
        return Analysis(study, roster, output, embed, face).run()
    finally:
        embed.close()


def _probe(study: LatentSettings, roster: Roster, output: Path, face: Face) -> None:
    """MetaNet as a probe (section 5) in every compared run of method mind, beside a compared uniform one: preference.json."""
    from mind_distill.latent.preference import examine, write_preferences

    minds = _of_method(roster.of("compare"), "mind")
    uniform = next(iter(_of_method(roster.of("compare"), "uniform")), None)
    found: list[Any] = []
    for model in minds:
        beside = Path(uniform.source) if uniform else None
        try:
            found.append(examine(Path(model.source), beside, study.seed, track=face.track))
        except UserError as problem:
            face.say(f"MetaNet is not examined as a probe: {problem}")
    if found:
        write_preferences(output, found)
    else:
        (output / "preference.json").unlink(missing_ok=True)  # of an earlier form of the study


def _of_method(models: Sequence[Model], name: str) -> list[Model]:
    from mind_distill.latent.trace import method_of

    return [
        model
        for model in models
        if (Path(model.source) / "settings.yaml").is_file() and method_of(read_settings(Path(model.source))) == name
    ]


def write_page(output: Path) -> Path:
    """The report of a finished study."""
    return Run.load(output).report()
