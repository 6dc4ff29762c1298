"""`mind latent`."""

from __future__ import annotations

import argparse
import shlex

from mind_distill.commands.base import Verbs, add_overrides, add_resume
from mind_distill.commands.compare import default_output
from mind_distill.terminal import Face


def add(verbs: Verbs) -> None:
    """The verb about what students hold inside."""
    sub = verbs.add("latent", _latent, "see whether ways of thinking differ inside the student", output=True)
    sub.add_argument("study", metavar="STUDY", help="a latent study file, or a packaged one such as small/latent")
    sub.add_argument("--redo", action="store_true", help="measure and draw again from stored states; load no student")
    add_overrides(sub)
    add_resume(sub)


def _latent(options: argparse.Namespace, shown: Face) -> None:
    from mind_distill.comparison.latent import study_latent_space, write_page

    output = options.output or default_output(options.study)
    words = ["mind", "latent", options.study, *options.overrides, "--output", str(output)]
    options.resume_line = shlex.join([*words, "--redo" if options.redo else "--resume"])
    found = study_latent_space(
        options.study,
        options.overrides,
        output,
        shown,
        resume=options.resume,
        force=options.force,
        redo=options.redo,
    )
    page = write_page(output)
    values: dict[str, object] = {"geometry": found.geometry, "inclination": found.inclination, "report": str(page)}
    shown.result(values, f"{found.text}\n\nReport: {page}. Maps and figures: {output}, {output / 'figures'}.")
