"""What was checked and what came of it, as data and as a report for a bug report."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["printed", "peer", "model"]
Status = Literal["equal", "different", "not run"]
Verdict = Literal["VERIFIED", "DIFFERENT", "NOTHING TO COMPARE WITH"]
Matrix = tuple[tuple[float, ...], ...]

_OF_MODEL: dict[Status, str] = {"equal": "passed", "different": "FAILED", "not run": "not run"}
_OTHERS: dict[Status, str] = {"equal": "equal", "different": "DIFFERENT", "not run": "not run"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison.

    Attributes:
        kind: With "printed" numbers, with a "peer" (sentence-transformers), or of the "model"
            with itself.
        name: What was compared.
        status: What came of it.
        words: What was found, or why the check was not run.
        deviation: Largest deviation, of cosines, or of vectors as a share of their length; None =
            none known.
        tolerance: The largest that is allowed.
        printed: Cosines that the authors printed, `[queries, documents]`.
        found: Cosines found here.
        decides: Whether the verdict is DIFFERENT if this differs.
    """

    kind: Kind
    name: str
    status: Status
    words: str = ""
    deviation: float | None = None
    tolerance: float | None = None
    printed: Matrix = ()
    found: Matrix = ()
    decides: bool = True

    def lines(self) -> list[str]:
        """The check in a report."""
        mark = (_OF_MODEL if self.kind == "model" else _OTHERS)[self.status]
        remark = "" if self.decides else " (decides nothing)"
        head = f"{mark:9}  {self.name}{remark}"
        if self.deviation is not None and self.tolerance is not None:
            head += f": largest deviation {self.deviation:.2g}, allowed {self.tolerance:.2g}"
            lines = [head, *([f"{'':11}{self.words}"] if self.words else [])]
        else:
            lines = [f"{head}: {self.words}" if self.words else head]
        for label, matrix in (("printed", self.printed), ("found", self.found)):
            if matrix:
                rows = " | ".join(" ".join(f"{value:.4f}" for value in row) for row in matrix)
                lines.append(f"{'':11}{label:8} {rows}")
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """All checks of a model; `str()` is a report to paste into a bug report.

    Attributes:
        facts: What was checked, where and with which versions, by name.
        checks: In the order they ran.
    """

    facts: dict[str, str]
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """DIFFERENT if a check that decides differs, VERIFIED if others' numbers were met."""
        if any(check.status == "different" and check.decides for check in self.checks):
            return "DIFFERENT"
        if any(check.status == "equal" and check.kind != "model" for check in self.checks):
            return "VERIFIED"
        return "NOTHING TO COMPARE WITH"

    @property
    def ok(self) -> bool:
        """Whether the verdict is VERIFIED."""
        return self.verdict == "VERIFIED"

    def with_checks(self, *checks: Check) -> Verification:
        """A copy with more checks."""
        return dataclasses.replace(self, checks=(*self.checks, *checks))

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values, the verdict among them."""
        checks = [dataclasses.asdict(check) for check in self.checks]
        return {"verdict": self.verdict, "facts": dict(self.facts), "checks": checks}

    def __str__(self) -> str:
        width = max(map(len, self.facts), default=0) + 2
        lines = [f"{name:{width}}{value}" for name, value in self.facts.items()]
        lines.append("")
        for check in self.checks:
            lines += check.lines()
        return "\n".join([*lines, "", self.verdict])
