"""Whether what is installed is what Troupe was made for, and whether something is known against it."""

from collections.abc import Iterator

from packaging.specifiers import SpecifierSet

from api.health.check import Check, CheckStatus, Finding, together
from api.health.installed import Surroundings
from api.health.known_issues import KNOWN_ISSUES, KnownIssue


def versions_check(here: Surroundings) -> Check:
    issues = known_issues(here)
    figures = {
        "python": ".".join(map(str, here.python)),
        "platform": f"{here.system} {here.processor}",
        "packages": {
            name: {"installed": here.packages.get(name), "wanted": wanted}
            for name, wanted in sorted(here.wanted.items())
        },
        "known_issues": [{"detail": issue.detail, "source": issue.source} for issue in issues],
    }
    findings = [*package_findings(here), *(Finding(each.status, each.detail, each.mend) for each in issues)]
    if not here.wanted and not findings:
        return Check(CheckStatus.UNKNOWN, "What Troupe asks for cannot be found here.", None, figures)
    fine = f"All {len(here.wanted)} packages are in the ranges that Troupe asks for, and nothing is known against them."
    return together(findings, fine=fine, figures=figures)


def known_issues(here: Surroundings) -> list[KnownIssue]:
    """Those of KNOWN_ISSUES that apply."""
    return [issue for issue in KNOWN_ISSUES if issue.applies(here)]


def package_findings(here: Surroundings) -> Iterator[Finding]:
    """A missing package, or one of a version that nobody has tried."""
    for name, wanted in sorted(here.wanted.items()):
        installed = here.packages.get(name)
        line = f"pip install '{name}{wanted}'"
        if installed is None:
            yield Finding(CheckStatus.ERROR, f"{name} is not installed.", line)
        elif not SpecifierSet(wanted).contains(installed, prereleases=True):
            detail = f"{name} {installed} is installed, and Troupe is made for {wanted}."
            yield Finding(CheckStatus.WARNING, detail, line)
