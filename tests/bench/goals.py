# SPDX-License-Identifier: LGPL-2.1-or-later
"""The goals, and what the figures say of each: met or not, and what stands in the way.

Out of scope: measuring, and how it is shown.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median

from . import operations as op
from .operations import BARE, BUS, NETNS, OURS, PYTHON, UNSHARE, Key
from .sample import Samples
from .scale import LSNS, LSNS_NEW, Outcome

MIB = "MiB"
MS = "ms"


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes: operation; holder; namespaces: how many there are meanwhile; peer: what it is compared with, empty
        for nothing; ours, theirs: the figures; unit; goal: in words, empty where there is none; met: None where there
        is no goal or no figure; note: what the figure is made of; short: what the goal is about in one line with
        others, empty where that is the operation; case: which of these this is.
    """

    operation: str
    holder: str
    namespaces: int
    peer: str
    ours: float
    theirs: float | None
    unit: str = MS
    goal: str = ""
    met: bool | None = None
    note: str = ""
    short: str = ""
    case: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours by theirs."""
        return self.ours / self.theirs if self.theirs else None

    @property
    def whole_goal(self) -> str:
        """The goal with whom it is compared with."""
        return self.goal.replace("×", f"× {self.peer}", 1) if "×" in self.goal else self.goal


@dataclass(frozen=True)
class Growth:
    """An operation at few and at many namespaces, ms.

    Attributes: kernel: how much longer the bare system calls take for it, None where they are not in it; met: by the
        time without the kernel's part, None where there is no goal.
    """

    operation: str
    holder: str
    who: str
    few: float
    many: float
    kernel: float | None
    goal: str = ""
    met: bool | None = None

    @property
    def ratio(self) -> float:
        """How many times as long."""
        return self.many / self.few

    @property
    def apart(self) -> float:
        """How many times as long without the kernel's part, which is no more than all that it grew by."""
        return self.ratio - min(max(self.kernel or 0, 0), max(self.many - self.few, 0)) / self.few


GROWTH_GOAL = 1.5
_GROWING = (op.CREATE, op.ENTER, op.EXEC, op.DESTROY, op.OPEN, op.MOUNTS, op.OPEN_CHANGED, op.LIST_CHANGED)
# A List has as many lines as there are namespaces: its goal is another.
_GOALLESS = (op.LIST_CHANGED,)
# What of the bare system calls is in it.  Where the kernel tells of single mounts, a change has nobody read them all.
_KERNEL = {
    op.CREATE: op.CREATE,
    op.ENTER: op.ENTER,
    op.EXEC: op.ENTER,
    op.DESTROY: op.DESTROY,
    op.OPEN: op.OPEN,
    op.MOUNTS: op.MOUNTS,
    op.OPEN_CHANGED: op.OPEN,
    op.LIST_CHANGED: op.LIST,
}


def _at_most(ratio: float | None, most: float) -> bool | None:
    return None if ratio is None else ratio <= most


class _Judge:
    """Makes rows of the samples of one holder at one number of namespaces."""

    def __init__(self, outcome: Outcome, samples: Samples[Key], namespaces: int) -> None:
        self._outcome = outcome
        self._samples = samples
        self._namespaces = namespaces

    def ms(self, operation: str, who: str = OURS) -> float | None:
        return self._samples.median((operation, who))

    def need(self, operation: str, who: str = OURS) -> float:
        found = self.ms(operation, who)
        assert found is not None, (operation, who)
        return found

    def row(
        self, operation: str, peer: str, theirs: float | None, most: float | None = None, note: str = ""
    ) -> Row:
        """One with a goal for the ratio, or with none."""
        ours = self.need(operation)
        goal = "" if most is None else f"≤ {most:g} ×"
        met = None if most is None or not theirs else _at_most(ours / theirs, most)
        return Row(
            operation,
            self._outcome.holder,
            self._namespaces,
            peer,
            ours,
            theirs,
            goal=goal,
            met=met,
            note=note,
        )

    def operations(self, strict: bool) -> Iterator[Row]:
        """What is done one at a time.  Arguments: strict: there are as many namespaces as the goals are for."""
        floor, ping, bus = self.need(op.CREATE, BARE), self.need(op.PING), self.need(op.PING, BUS)
        nsenter, python = self.need(op.ENTER, UNSHARE), self.need(PYTHON, PYTHON)

        def goal(most: float) -> float | None:
            return most if strict else None

        parts = (
            f"system calls {floor:.2f}, round trip {ping:.2f} (bus alone {bus:.2f}), "
            f"metadata {self.need(op.KEEP, BARE):.2f} (no fsync)"
        )
        yield self.row(op.CREATE, "unshare --mount=FILE true", self.ms(op.CREATE, UNSHARE), goal(0.30), parts)
        bare = self.row(op.CREATE, BARE, floor, note=parts)
        met = bare.ours <= 4 * floor + ping
        yield replace(bare, goal="≤ 4 × + a round trip", met=met) if strict else bare
        yield from self._netns(op.CREATE, "ip netns add")
        parts = f"fork, setns, execve, wait {self.need(op.ENTER, BARE):.2f}, round trip {ping:.2f}"
        yield self.row(op.ENTER, "nsenter --mount=FILE /bin/true", nsenter, goal(1.2), parts)
        yield self.row(op.ENTER, BARE, self.need(op.ENTER, BARE))
        yield from self._netns(op.ENTER, "ip netns exec NAME true")
        parts = f"python3 -c pass {python:.1f}, mountnsctl --version {self.need(op.CTL_VERSION):.1f}"
        yield self.row(op.EXEC, "nsenter + python3 -c pass", nsenter + python, goal(1.5), parts)
        yield self.row(op.CTL_LIST, PYTHON, python, goal(3), parts)
        yield self.row(op.CTL_VERSION, PYTHON, python)
        parts = f"umount2, unlink {self.need(op.DESTROY, BARE):.2f}, round trip {ping:.2f}"
        yield self.row(op.DESTROY, "umount + rm", self.ms(op.DESTROY, UNSHARE), goal(0.5), parts)
        yield self.row(op.DESTROY, BARE, self.need(op.DESTROY, BARE))
        yield from self._netns(op.DESTROY, "ip netns delete")
        for operation in (op.OPEN, op.MOUNTS):
            yield self.row(operation, BARE, self.need(operation, BARE), note=f"round trip {ping:.2f}")
        yield self.row(op.PING, BUS, bus)

    def _shown(self, strict: bool, who: str) -> str:
        return f"it shows {self._outcome.shown.get(who, 0):,} of the pins" if strict else ""

    def _netns(self, operation: str, peer: str) -> Iterator[Row]:
        theirs = self.ms(operation, NETNS)
        if theirs is not None:
            yield self.row(operation, peer, theirs)

    def lists(self, strict: bool) -> Iterator[Row]:
        """List.  Arguments: strict: there are as many namespaces as its goals are for."""
        table = f"the mount table read, not parsed, {self.need(op.LIST, BARE):.2f}"
        yield self.row(op.LIST, LSNS, self.ms(op.LIST, LSNS), note=self._shown(strict, LSNS))
        newest = self.ms(op.LIST, LSNS_NEW)
        note = self._shown(strict, LSNS_NEW) if newest is not None else "it was not to be had"
        beside = self.row(op.LIST, LSNS_NEW, newest, 0.1 if strict else None, note)
        yield replace(beside, short=f"{op.LIST} of {self._namespaces:,}")
        if strict:
            ours = self.need(op.LIST)
            holder = self._outcome.holder
            yield Row(
                op.LIST,
                holder,
                self._namespaces,
                "",
                ours,
                None,
                goal="≤ 150 ms",
                met=ours <= 150,
                note=table,
                short=f"{op.LIST} of {self._namespaces:,}",
            )
        else:
            yield from self._netns(op.LIST, "ip netns list")
        yield self.row(op.LIST_CHANGED, BARE, self.need(op.LIST, BARE))


def rows(outcome: Outcome, few: int, many: int) -> Iterator[Row]:
    """The table of one holder."""
    judge = _Judge(outcome, outcome.few, few)
    yield from judge.operations(strict=True)
    yield from judge.lists(strict=False)
    yield from _throughput(outcome)
    yield from _Judge(outcome, outcome.many, many).operations(strict=False)
    yield from _Judge(outcome, outcome.many, many).lists(strict=True)
    yield from _starts(outcome)
    yield from _memory(outcome)


def _throughput(outcome: Outcome) -> Iterator[Row]:
    for rate in outcome.rates:
        case = f"{rate.connections} connection{'s' * (rate.connections > 1)}"
        row = Row(
            f"{rate.member}, 16 in flight, {case}",
            outcome.holder,
            0,
            "",
            rate.per_second,
            None,
            "a second",
            "≥ 1,000",
            rate.per_second >= 1000,
            rate.said(),
        )
        yield replace(row, short="Create and Destroy, 16 in flight", case=f"{rate.member}, {case}")


def _starts(outcome: Outcome) -> Iterator[Row]:
    holder = outcome.holder
    for namespaces, found in outcome.recovery.items():
        ours = median(found)
        strict = namespaces == max(outcome.recovery)
        goal, met = ("≤ 1 s", ours <= 1000) if strict else ("", None)
        short = f"recovery of {namespaces:,}, until ready"
        yield Row(
            "recovery, until ready", holder, namespaces, "", ours, None, goal=goal, met=met, short=short
        )
    cold = median(outcome.cold)
    python = outcome.few.median((PYTHON, PYTHON))
    note = "started by dbus-daemon, until List is answered"
    yield Row("cold start", holder, 0, PYTHON, cold, python, goal="≤ 200 ms", met=cold <= 200, note=note)


def _memory(outcome: Outcome) -> Iterator[Row]:
    holder, warm = outcome.holder, outcome.warm
    for case, found in (("just started", outcome.idle), ("one of each done", warm)):
        mib = found.rss / 1024
        row = Row(
            f"resident memory, idle, {case}",
            holder,
            0,
            "",
            mib,
            None,
            MIB,
            "≤ 25 MiB",
            mib <= 25,
            found.said(),
        )
        yield replace(row, short="resident memory, idle", case=case)
    for what, by_number in (("created", outcome.created), ("recovered", outcome.restarted)):
        for namespaces, found in by_number.items():
            each = 1024 * (found.rss - warm.rss) / namespaces
            said = f"RSS {found.rss / 1024:.1f}, {found.said()}"
            name = f"resident memory of each, {what}"
            row = Row(name, holder, namespaces, "", each, None, "bytes", "≤ 1 KiB", each <= 1024, said)
            yield replace(row, short="resident memory of each", case=f"of {namespaces:,}, {what}")
    for namespaces, rest in outcome.rests.items():
        said = f"others changed the host's mounts {rest.changes} times meanwhile" if rest.changes else ""
        met = None if rest.changes and rest.wakeups else rest.wakeups == 0
        yield Row("wakeups while idle", holder, namespaces, "", rest.wakeups, None, "", "none", met, said)


def growth(outcome: Outcome) -> Iterator[Growth]:
    """What grows with the number of namespaces: ours and the bare system calls, and beside them the peers."""
    for operation in _GROWING:
        alone = operation in op.ALONE
        for who in (OURS, UNSHARE, BARE):
            few, many = (
                (outcome.few_alone, outcome.many_alone)
                if alone and who != UNSHARE
                else (outcome.few, outcome.many)
            )
            early, late = few.median((operation, who)), many.median((operation, who))
            if early is None or late is None:
                continue
            kernel = _more(few, many, (_KERNEL[operation], BARE)) if who == OURS else None
            grown = Growth(operation, outcome.holder, who, early, late, kernel)
            judged = who == OURS and operation not in _GOALLESS
            met = grown.apart <= GROWTH_GOAL
            yield replace(grown, goal=f"≤ {GROWTH_GOAL:g} ×", met=met) if judged else grown


def _more(few: Samples[Key], many: Samples[Key], key: Key) -> float | None:
    early, late = few.median(key), many.median(key)
    return None if early is None or late is None else late - early
