"""What the statistics of a study say, in words: what is shown, what is not, and what the seeds at hand cannot show.

A difference is claimed only where the test shows it: its p, adjusted by Holm, is at most 0.05. Where the interval says
otherwise, that is said too. Differences are in points of percent.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raysd.detect.metrics import ALL_MACHINES
from raysd.paper.statistics import ALPHA, Comparison, seeds_to_reach, smallest_p
from raysd.paper.study_grids import TITLES
from raysd.paper.tables import StudyTable

if TYPE_CHECKING:
    from raysd.study.design import LoadedStudy, Variant

MOST_NAMED = 4
"""Variants that a sentence names; of more it gives the number."""


@dataclass(frozen=True)
class Finding:
    """One variant against the baseline."""

    variant: str
    """As the table names it."""
    subject: str
    """What it does, as a sentence names it; see `subject`."""
    comparison: Comparison
    by_machine: Mapping[str, Comparison] = field(default_factory=dict)
    """The same on each machine, where there are several."""

    @property
    def shown(self) -> bool:
        return self.comparison.p_holm <= ALPHA  # False where there is no test

    @property
    def excludes_zero(self) -> bool:
        """Whether its interval does."""
        return self.comparison.low > 0 or self.comparison.high < 0

    @property
    def least_p(self) -> float:
        """What the adjusted p of so many seeds cannot go below; 1 without a test."""
        return min(1.0, smallest_p(self.comparison.n) * max(self.comparison.family, 1))


@dataclass(frozen=True)
class Answer:
    """What one table says of one part of its corpus."""

    sentence: str
    """The answer to the study's question, as far as the test gives one."""
    more: Sequence[str]
    """What has to be known beside it."""
    variants: Sequence[str]
    """One sentence a variant."""


def answers(table: StudyTable, study: "LoadedStudy") -> dict[str, Answer]:
    """Part -> its answer, by the metric of comparison over all machines."""
    metric, last = table.metrics[0], table.machines[-1]
    variants = {variant.name: variant for variant in study.variants}
    found = {}
    for part in table.parts:
        findings = []
        for row in table.rows:
            comparison = table.comparison(row, part, last, metric)
            if comparison is not None:
                by_machine = {m: table.comparison(row, part, m, metric) for m in table.machines if m != last}
                findings.append(
                    Finding(
                        row.variant,
                        subject(variants[row.variant], study.baseline),
                        comparison,
                        {machine: one for machine, one in by_machine.items() if one is not None},
                    )
                )
        words = f"the {TITLES.get(metric, metric)}"
        more = [*asides(findings), *_main_effects(table, part, words), *_best(table, part), *_missing(table)]
        sentences = [sentence(finding, words) for finding in findings]
        found[part] = Answer(answer(findings, words), more, sentences)
    return found


def names_of(tables: Sequence[StudyTable]) -> list[str]:
    """The recordings of each table in a few words; with the fingerprint where words do not tell two apart."""
    names = []
    for table in tables:
        machines = [machine for machine in table.machines if machine != ALL_MACHINES]
        names.append(
            f"DCASE {table.year}, {', '.join(machines) if len(machines) <= 3 else f'{len(machines)} machines'}"
        )
    return [
        f"{name} ({table.fingerprint})" if names.count(name) > 1 else name
        for name, table in zip(names, tables, strict=True)
    ]


def subject(variant: "Variant", baseline: "Variant") -> str:
    """What a variant does, as the subject of a sentence: of the baseline's, something removed, kept alone or replaced.

    A variant that no design of factors made is told by its name.
    """
    name, levels = variant.name, variant.levels
    if not levels:
        return f"'{name}'"
    if name.startswith("without ") and name.removeprefix("without ") in levels:
        return f"removing {name.removeprefix('without ')}"
    if name.startswith("only "):
        return f"keeping {name.removeprefix('only ')} alone"
    if name == "none":
        return f"removing all {len(levels)} factors" if len(levels) > 1 else f"removing {next(iter(levels))}"
    changed = {factor: level for factor, level in levels.items() if baseline.levels.get(factor) != level}
    before = [baseline.levels[factor].removesuffix(".0") for factor in changed if factor in baseline.levels]
    now = _listed([f"{factor}={level}" for factor, level in changed.items()], len(changed))
    return f"{now} instead of {_listed(before, len(before))}" if len(before) == len(changed) else now


# --- one variant ------------------------------------------------------------------------------------------------------


def sentence(finding: Finding, metric: str) -> str:
    """What is known of one variant; `metric` with its article: `the official score`."""
    said, n = finding.comparison, finding.comparison.n
    what = _started(finding.subject)
    if n == 0:
        return f"{what}: nothing is known, as no finished seed is shared with the baseline."
    if n == 1:
        return f"{what}: {_points(said)} seen with one seed, for which there is no test."
    if finding.shown:
        text = f"{what} {_changes(finding, metric)}."
        if not finding.excludes_zero:
            text += " The interval holds 0 all the same: take it with care."
    elif finding.least_p > ALPHA:
        text = f"{what}: {_points(said)}, not testable {_too_few(finding)}."
    else:
        text = f"{what}: no evidence of a difference in {metric} ({_points(said)}, {_test(said)})."
    if finding.excludes_zero and not finding.shown:
        text += " The interval excludes 0, the test does not show it."
    return text + _by_machine(finding)


def _changes(finding: Finding, metric: str) -> str:
    """`lowers the official score by 1.2 points [0.4, 2.0], p = 0.03 (Holm over 4), 6 seeds`."""
    said = finding.comparison
    falls = said.difference < 0
    by, low, high = (-said.difference, -said.high, -said.low) if falls else (said.difference, said.low, said.high)
    digits = _digits(said)
    return (
        f"{'lowers' if falls else 'raises'} {metric} by {_number(by, digits)} points "
        f"[{_number(low, digits)}, {_number(high, digits)}], {_test(said)}"
    )


def _points(said: Comparison) -> str:
    """`+0.3 points [-0.8, 1.4]`."""
    digits = _digits(said)
    text = f"{_number(said.difference, digits, '+')} points"
    return text if said.n < 2 else f"{text} [{_number(said.low, digits)}, {_number(said.high, digits)}]"


def _test(said: Comparison) -> str:
    return f"{p_text(said.p_holm)}{_family(said)}, {_seeds([said.n])}"


def _family(said: Comparison) -> str:
    return f" (Holm over {said.family})" if said.family > 1 else ""


def _too_few(finding: Finding) -> str:
    n, family = finding.comparison.n, finding.comparison.family
    return f"with {n} seeds" if smallest_p(n) > ALPHA else f"with {n} seeds among {family} variants"


def _signs(finding: Finding) -> tuple[int, int]:
    """On how many machines the variant reads higher than the baseline, and on how many lower."""
    found = [said.difference for said in finding.by_machine.values() if said.n > 0]
    return sum(one > 0 for one in found), sum(one < 0 for one in found)


def _by_machine(finding: Finding) -> str:
    """Where machines differ in sign: what each of them says."""
    if not all(_signs(finding)):
        return ""
    found = sorted(finding.by_machine.items(), key=lambda item: -item[1].difference)
    parts = [
        f"{machine} {_number(said.difference, 1, '+')}{'*' * (said.p_holm <= ALPHA)}"
        for machine, said in found
        if said.n > 0
    ]
    shown = "*: the test shows it" if any("*" in part for part in parts) else "the test shows it on none of them"
    return f" The sign differs by machine: {', '.join(parts)} ({shown})."


# --- the whole study --------------------------------------------------------------------------------------------------


def answer(findings: Sequence[Finding], metric: str) -> str:
    """The answer of a study in one sentence: what its variants do to `metric`, given with its article."""
    known = [finding for finding in findings if finding.comparison.n > 0]
    if not findings:
        return "There is nothing to compare: the study has no variant beside its baseline."
    if len(findings) == 1 and known and (findings[0].shown or findings[0].least_p <= ALPHA):
        return sentence(findings[0], metric)
    if not known:
        return "Nothing can be said yet: no variant has a finished seed that the baseline has too."

    largest = max(known, key=lambda finding: abs(finding.comparison.difference))
    seen = "seen" if len(findings) == 1 else "the largest difference seen"
    seen = f"{seen}: {largest.subject}, {_points(largest.comparison)}"
    tested = [finding for finding in known if finding.comparison.n > 1]
    if not tested:
        return f"With one seed there is no test; {seen}."
    shown = [finding for finding in tested if finding.shown]
    if shown:
        most = max(shown, key=lambda finding: abs(finding.comparison.difference))
        told, (up, down) = _changes(most, metric), _signs(most)
        told += f"; the sign differs by machine ({up} up, {down} down)" if up and down else ""
        if len(shown) == 1:
            return f"1 of {len(findings)} variants differs from the baseline: {most.subject} {told}."
        return (
            f"{len(shown)} of {len(findings)} variants differ from the baseline in {metric}, most of all "
            f"{most.subject}, which {told.replace(metric, 'it', 1)}."
        )
    least = min(tested, key=lambda finding: finding.least_p)
    if least.least_p > ALPHA:
        return f"{_cannot(least, len(tested), metric)}; {seen}."
    smallest = min(tested, key=lambda finding: finding.comparison.p_holm).comparison
    return (
        f"No evidence of a difference in {metric}: none of {len(findings)} variants is told apart from the baseline "
        f"(least {p_text(smallest.p_holm)}{_family(smallest)}, {_seeds([one.comparison.n for one in tested])}); {seen}."
    )


def asides(findings: Sequence[Finding]) -> list[str]:
    """What a reader of the answer has to know beside it, where it says it not itself."""
    if len(findings) < 2:
        return []
    lines = []
    shown = sorted((one for one in findings if one.shown), key=lambda one: -abs(one.comparison.difference))
    if len(shown) > 1:
        others = [f"'{one.variant}' ({_number(one.comparison.difference, 1, '+')})" for one in shown[1:]]
        lines.append(f"The other{'s' * (len(others) > 1)} with a difference: {_listed(others, 2 * MOST_NAMED)}.")
    hints = [one.variant for one in findings if one.excludes_zero and not one.shown]
    if hints:
        few = all(one.least_p > ALPHA for one in findings if one.variant in hints)
        why = (
            "the seeds are too few for the test to show it"
            if few
            else "the test, corrected for all variants, does not show it"
        )
        lines.append(
            f"Interval and test disagree for {_quoted(hints)}: the interval excludes 0, but {why}. "
            "That is a hint to run more seeds, no result."
        )
    once = [one.variant for one in findings if one.comparison.n == 1]
    if once and len(once) < len(findings):
        lines.append(f"Not tested, with one seed only: {_quoted(once)}.")
    return lines


def _cannot(least: Finding, num_tests: int, metric: str) -> str:
    n, needed = least.comparison.n, seeds_to_reach(ALPHA / least.comparison.family)
    if smallest_p(n) > ALPHA:
        why = f"least p {p_number(smallest_p(n))}"
    else:
        why = f"least p {p_number(least.least_p)} after Holm's correction for {num_tests} tests"
    return f"With {n} seeds no test can show a difference in {metric} ({why}; it takes {needed} seeds)"


def _main_effects(table: StudyTable, part: str, metric: str) -> list[str]:
    """Of a factorial design: whether a factor matters, over all levels of the others."""
    mains = [
        effect
        for effect in table.effects(part, table.machines[-1], table.metrics[0])
        if len(effect.contrast.factors) == 1 and effect.comparison.n > 1
    ]
    findings = [
        Finding(one.contrast.label, f"{one.contrast.label} instead of {one.contrast.against[0]}", one.comparison)
        for one in mains
    ]
    if not findings:
        return []
    most = max(findings, key=lambda one: (one.shown, abs(one.comparison.difference)))
    over = "Over all levels of the other factors"
    if most.shown:
        num, told = sum(one.shown for one in findings), _changes(most, metric)
        return [f"{over}, {num} of {len(findings)} levels differ, most of all {most.subject}, which {told}."]
    return [
        f"{over}, none of {len(findings)} levels is told apart from the baseline's; the largest difference seen: "
        f"{most.subject}, {_points(most.comparison)}."
    ]


def _best(table: StudyTable, part: str) -> list[str]:
    """The row with the highest mean, those not told apart from it, and references that stand above it untested."""
    at = (part, table.machines[-1], table.metrics[0])
    best, tied = table.tied(*at)
    if best is None:
        return []
    highest = best.cell(*at).mean
    seeds = {row.variant: len(row.cell(*at).values) for row in table.compared}
    others = [
        row for row in table.compared if row is not best and seeds[row.variant] >= min(row.wanted, max(seeds.values()))
    ]
    those = "other row" + (" with as many seeds" if len(others) + 1 < len(seeds) else "")
    text = f"The highest mean is that of '{best.variant}', {_number(highest, 1)} %; "
    if len(tied) == len(others) > 1:
        text += f"no {those} is told apart from it."
    else:
        names = _quoted([row.variant for row in tied])
        text += f"not told apart from it: {names}." if tied else f"every {those} is told apart from it."
    above = [
        f"'{row.variant}' ({_number(row.cell(*at).mean, 1)} %)"
        for row in table.rows
        if row.role == "reference" and row.cell(*at).values and row.cell(*at).mean > highest
    ]
    if not above:
        return [text]
    kind = "references, which are" if len(above) > 1 else "a reference, which is"
    return [text, f"Above all rows that are compared: {_listed(above)}, {kind} not tested."]


def _missing(table: StudyTable) -> list[str]:
    lacking = [f"'{row.variant}' {row.found}/{row.wanted}" for row in table.rows if row.found < row.wanted]
    return [f"Not all trials are finished: {_listed(lacking)}."] if lacking else []


# --- numbers and words ------------------------------------------------------------------------------------------------


def p_text(p: float) -> str:
    """`p = 0.031`, `p < 0.001`."""
    return f"p {p_number(p)}" if p < 0.001 else f"p = {p_number(p)}"


def p_number(p: float) -> str:
    """Two significant digits, three where two would put it on the other side of 0.05, or on it."""
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3g}" if f"{p:.2g}" == "0.05" else f"{p:.2g}"


def _number(value: float, digits: int, sign: str = "") -> str:
    return f"{round(100 * value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no minus before a zero


def _digits(said: Comparison) -> int:
    """Of points: two where one would make a zero of a number that is none."""
    numbers = (said.difference, said.low, said.high)
    return 2 if any(0 < abs(number) < 0.0005 for number in numbers) else 1


def _seeds(counts: Collection[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low} to {high} seeds" if low < high else f"{low} seeds"


def _listed(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """`a, b and c`, or `a, b and 3 more`."""
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _quoted(names: Sequence[str]) -> str:
    return _listed([f"'{name}'" for name in names])


def _started(text: str) -> str:
    """As a sentence starts; the name of a setting stays as it is."""
    return text[0].upper() + text[1:] if text.startswith(("removing ", "keeping ")) else text
