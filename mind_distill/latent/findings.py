"""What a study found, said plainly: each claim of sections 3.2 and 4.3 held against its control, and the table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from mind_distill.latent.control import Verdict
from mind_distill.latent.geometry import Measure
from mind_distill.latent.inclination import Row

LEVEL = 0.05
OUTSIDE = 0.5  # share of answers outside the specialists' radius above which their inclination means nothing
WIDTH = 120
Measures = Mapping[str, Measure]


def by_name(measures: Sequence[Measure]) -> dict[str, Measure]:
    return {one.name: one for one in measures}


def clusters(own: Measures, plain: Measures) -> list[Verdict]:
    """Whether the clusters found without labels are perspectives, and whether they are rather subjects."""
    found, subject, beside = own["ari_perspective"], own.get("ari_subject"), plain["ari_perspective"]
    agree = _above_chance(found)
    because = (
        f"adjusted Rand index {_told(found)}; by chance {_chance(found)}; by principal components {_told(beside)}."
    )
    verdicts = [Verdict("Clusters that were found without labels agree with the perspectives.", agree, because)]
    if subject is not None:  # there are several
        verdicts.append(
            Verdict(
                "They agree with the perspectives more than with the problems' subjects.",
                bool(agree and found.low > subject.high),
                f"adjusted Rand index {_told(found)} with perspectives, {_told(subject)} with subjects.",
            )
        )
    return verdicts


def told_apart(name: str, measures: Measures) -> Verdict:
    """Whether a linear probe tells the groups apart on problems that it has not seen."""
    probe = measures["probe_perspective"]
    return Verdict(
        f"{name} are told apart by perspective on problems that the probe has not seen.",
        _above_chance(probe),
        f"linear probe {_told(probe)}; by chance {_chance(probe)}.",
    )


def not_only_words(own: Measures, words: Measures, same: Measures, control: Verdict | None) -> Verdict:
    """Whether what separates the specialists is more than the words that they write."""
    probe, text, fed = own["probe_perspective"], words["probe_perspective"], same["probe_perspective"]
    claim = "The separation is more than the words: it is in the parameters."
    because = (
        f"linear probe {_told(probe)} on states, {_told(text)} on sentence embeddings of the same texts, {_told(fed)} on "
        "states where all read the same neutral text."
    )
    if control is None:
        return Verdict(claim, None, because + " Without a seed control any two adapters would look so.")
    if control.holds is None:
        return Verdict(claim, None, because + " Any two adapters would look so, and the seed control does not decide.")
    if _above_chance(fed) and control.holds:
        return Verdict(claim, True, because + " On the same text perspectives separate more than seeds do.")
    return Verdict(claim, False, because + " On the same text perspectives separate no more than seeds do.")


def no_control(space: str) -> Verdict:
    return Verdict(
        f"Perspectives separate more than seeds do ({space}).",
        None,
        "there is no seed control: name at least two runs under 'seeds' that differ from a specialist in their seed alone.",
    )


def coverage(plain: str, other: str, rows: Sequence[Row]) -> list[Verdict]:
    """Whether `other` covers more of the specialists' space than `plain`, by benchmark."""
    whole = {(row.model, row.benchmark): row for row in rows if row.subject is None}
    found = []
    for benchmark in dict.fromkeys(row.benchmark for row in rows):
        one, two = whole.get((plain, benchmark)), whole.get((other, benchmark))
        if one is None or two is None:
            continue
        holds = _covers_more(one, two)
        because = (
            f"coverage {_told(two.coverage)} against {_told(one.coverage)}; sharpness {two.sharpness.value:.2f} against "
            f"{one.sharpness.value:.2f} (1 = equally near to all); outside the specialists' radius "
            f"{two.outside.value:.0%} against {one.outside.value:.0%}."
        )
        if holds is None and two.coverage.low > one.coverage.high:
            because += f" The answers of {other} lie too far from all centroids for their coverage to mean anything."
        found.append(
            Verdict(f"{other} covers more of the specialists' space than {plain} ({benchmark}).", holds, because)
        )
    return found


def _covers_more(one: Row, two: Row) -> bool | None:
    """Coverage counts where single answers are sharper than it and most lie where specialists are: else all is equally far."""
    if two.coverage.high < one.coverage.low:
        return False
    means_something = two.sharpness.high < two.coverage.low and two.outside.value <= OUTSIDE
    return True if two.coverage.low > one.coverage.high and means_something else None


def depends_on_task(model: str, by: str, found: Measure) -> Verdict:
    """Whether a student leans elsewhere on another benchmark, or subject."""
    return Verdict(
        f"{model} leans elsewhere on another {by}.",
        found.p is not None and found.p < LEVEL,
        f"share of the inclination's variance between {by}s {_told(found)}; by chance {_chance(found)}.",
    )


def _above_chance(one: Measure) -> bool:
    return bool(one.p is not None and one.p < LEVEL and one.null_high is not None and one.low > one.null_high)


def _told(one: Measure) -> str:
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"


def _chance(one: Measure) -> str:
    return "unknown" if one.null is None else f"{one.null:.2f}, at most {one.null_high:.2f}, p = {one.p:.3f}"


def table(
    spaces: Mapping[str, dict[str, Any]], rows: Sequence[Row], names: Sequence[str], verdicts: Sequence[Verdict]
) -> str:
    """The terminal's table: a line a space, a line a student and benchmark, a line a claim."""
    lines = [
        "95 % intervals over problems. ARI: clusters found without labels against labels; probe: on held-out problems;",
        "chance: what the probe reaches when labels are dealt at random within each problem.",
        "",
        f"{'space':<50}{'points':>7}{'active':>7}  {'ARI perspective':<21}{'ARI subject':<21}{'probe':<19}chance",
    ]
    for values in spaces.values():
        found = {one["name"]: Measure(**one) for one in values["measures"]}
        cells = [_cell(found, name) for name in ("ari_perspective", "ari_subject", "probe_perspective")]
        chance = found["probe_perspective"].null if "probe_perspective" in found else None
        lines.append(
            f"{values['title']:<50}{values['points']:>7}{values['active']:>7}  {cells[0]:<21}{cells[1]:<21}{cells[2]:<19}"
            f"{'' if chance is None else f'{chance:.2f}'}"
        )
        if not values["converged"]:
            lines.append(fill(f"  did not converge: {values['because']}", WIDTH, subsequent_indent="  "))
    whole = [row for row in rows if row.subject is None]
    if whole:
        lines += [
            "",
            f"{'student':<14}{'benchmark':<20}{'n':>5}  {'coverage':<19}{'visited':<19}{'sharpness':<19}{'outside':<19}nearest",
        ]
    for row in whole:
        best = max(range(len(names)), key=lambda k: row.inclination[k])
        lines.append(
            f"{row.model:<14}{row.benchmark:<20}{row.n:>5}  {_told(row.coverage):<19}{_told(row.visited):<19}{_told(row.sharpness):<19}"
            f"{_told(row.outside):<19}{names[best]} {row.inclination[best]:.0%}"
        )
    words = {True: "yes", False: "no", None: "cannot be told"}
    lines.append("")
    for one in verdicts:
        lines.append(fill(f"{words[one.holds] + ':':<16}{one.claim} {one.because}", WIDTH, subsequent_indent=" " * 16))
    return "\n".join(lines)


def _cell(found: Measures, name: str) -> str:
    return _told(found[name]) if name in found else ""
