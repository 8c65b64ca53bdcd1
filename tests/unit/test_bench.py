# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `make bench` makes of its figures, with figures that are made up."""

import json
import xml.etree.ElementTree as ET

import pytest
from bench import goals, memory, operations, page, plot, table
from bench.goals import Row
from bench.host import model
from bench.lists import Lsns
from bench.marshal import Marshalling
from bench.memory import Memory, Rest
from bench.operations import BARE, BUS, NETNS, OURS, PYTHON, UNSHARE, Key
from bench.page import Report
from bench.plot import Line
from bench.sample import Samples
from bench.scale import LSNS, LSNS_NEW, Outcome, Plan
from bench.throughput import Rate

FEW, MANY = 10, 10_000
PLAN = Plan(FEW, 1000, MANY, 5, 3, 100, 1, 1.0, lambda _said: None)
EVERY = (
    operations.CREATE,
    operations.ENTER,
    operations.DESTROY,
    operations.OPEN,
    operations.MOUNTS,
    operations.LIST,
)


def samples(factor: float) -> Samples[Key]:
    """Ours 1 ms, theirs 2 ms, of everything; ours times a factor."""
    found: Samples[Key] = Samples()
    for operation in operations.SERVED:
        found.add((operation, OURS), factor)
    for operation in EVERY:
        for who in (UNSHARE, NETNS, BARE, LSNS, LSNS_NEW):
            found.add((operation, who), 2.0)
    found.add((operations.PING, BUS), 0.1)
    found.add((operations.KEEP, BARE), 0.05)
    found.add((PYTHON, PYTHON), 10.0)
    return found


def outcome(holder: str = "host", growth: float = 1.0) -> Outcome:
    """What a run could bring."""
    return Outcome(
        holder,
        samples(1.0),
        samples(growth),
        samples(1.0),
        samples(growth),
        rates=[Rate("Create", 1, 1200.0, 0.1, 0.9, 0.2), Rate("Destroy", 16, 900.0, 0.1, 0.9, 0.2)],
        idle=Memory(20_000, 18_000, 16_000),
        warm=Memory(21_000, 19_000, 17_000),
        created={MANY: Memory(41_000, 39_000, 37_000)},
        restarted={MANY: Memory(25_000, 23_000, 21_000)},
        recovery={1000: [100.0], MANY: [900.0, 1100.0, 800.0]},
        cold=[150.0, 190.0, 900.0],
        rests={0: Rest(0, 0), 1000: Rest(7, 2), MANY: Rest(3, 0)},
        shown={LSNS_NEW: MANY},
    )


def report(*outcomes: Outcome) -> Report:
    booted = {
        "operation": "Enter in a unit",
        "release": "trixie",
        "holder": "host",
        "peer": "systemd-run",
        "ours_ms": 20.0,
        "peer_ms": 30.0,
        "ratio": 0.67,
        "goal": "≤ 0.8 ×",
        "met": True,
        "note": "<measured>",
    }
    libraries = {"dbus_next": Marshalling("0.2.3", 100.0, 0.1), "dbus_fast": Marshalling("2.0", 40.0, 0.05)}
    machine = {"processor": "of none", "load before": "0.00"}
    return Report("sudo make bench", PLAN, machine, outcomes or (outcome(),), libraries, [booted])


class TestSamples:
    def test_the_median_is_no_mean(self) -> None:
        found: Samples[str] = Samples()
        for figure in (1.0, 2.0, 99.0):
            found.add("one", figure)
        assert found.median("one") == 2.0
        assert found.spread("one") == (1.5, 50.5)
        assert found.count("one") == 3

    def test_of_nothing(self) -> None:
        found: Samples[str] = Samples()
        assert found.median("none") is None
        assert found.count("none") == 0
        assert "none" not in found
        with pytest.raises(KeyError):
            found.spread("none")

    def test_of_one(self) -> None:
        found: Samples[str] = Samples()
        found.add("one", 3.0)
        assert found.spread("one") == (3.0, 3.0)
        assert list(found) == ["one"]


def row_of(found: Outcome, operation: str, goal: str, namespaces: int = FEW) -> Row:
    """The row with that goal."""
    rows = goals.rows(found, FEW, MANY)
    fitting = [
        row for row in rows if (row.operation, row.goal, row.namespaces) == (operation, goal, namespaces)
    ]
    assert len(fitting) == 1, fitting
    return fitting[0]


class TestGoals:
    def test_a_ratio_that_is_missed(self) -> None:
        row = row_of(outcome(), operations.CREATE, "≤ 0.3 ×")
        assert (row.ours, row.theirs, row.ratio, row.met) == (1.0, 2.0, 0.5, False)
        assert "system calls 2.00" in row.note

    def test_a_ratio_that_is_met_exactly(self) -> None:
        row = row_of(outcome(), operations.DESTROY, "≤ 0.5 ×")
        assert row.theirs == 2.0
        assert row.met is True

    def test_four_times_the_floor_and_a_round_trip(self) -> None:
        row = row_of(outcome(), operations.CREATE, "≤ 4 × + a round trip")
        assert (row.theirs, row.met) == (2.0, True)
        assert row.whole_goal == "≤ 4 × bare system calls + a round trip"

    def test_two_programs_are_added(self) -> None:
        row = row_of(outcome(), operations.EXEC, "≤ 1.5 ×")
        assert row.theirs == 12.0

    def test_what_was_not_to_be_had_is_neither_met_nor_missed(self) -> None:
        found = outcome()
        found.many = Samples()
        whole = samples(1.0)
        for key in whole:
            if key != (operations.LIST, LSNS_NEW):
                found.many.add(key, whole.median(key) or 0.0)
        row = row_of(found, operations.LIST, "≤ 0.1 ×", MANY)
        assert (row.theirs, row.ratio, row.met) == (None, None, None)
        assert "not measured" in "\n".join(page.summary(report(found)))

    def test_rates(self) -> None:
        found = [row.met for row in goals.rows(outcome(), FEW, MANY) if row.goal == "≥ 1,000"]
        assert found == [True, False]

    def test_starts_and_memory(self) -> None:
        found = outcome()
        assert row_of(found, "recovery, until ready", "≤ 1 s", MANY).ours == 900.0
        assert row_of(found, "cold start", "≤ 200 ms", 0).met is True
        started = row_of(found, "resident memory, idle, just started", "≤ 25 MiB", 0)
        assert started.ours == pytest.approx(19.53, abs=0.01)
        warm = row_of(found, "resident memory, idle, one of each done", "≤ 25 MiB", 0)
        assert warm.ours == pytest.approx(20.51, abs=0.01)
        created = row_of(found, "resident memory of each, created", "≤ 1 KiB", MANY)
        assert (created.ours, created.met) == (2048.0, False)  # beside the one that has done one of each
        assert row_of(found, "resident memory of each, recovered", "≤ 1 KiB", MANY).met is True
        assert row_of(found, "wakeups while idle", "none", 0).met is True
        assert row_of(found, "wakeups while idle", "none", MANY).met is False
        assert row_of(found, "wakeups while idle", "none", 1000).met is None  # others woke it

    @pytest.mark.parametrize(("times", "met"), [(1.0, True), (1.5, True), (1.6, False)])
    def test_growth(self, times: float, met: bool) -> None:
        found = [row for row in goals.growth(outcome(growth=times)) if row.operation == operations.CREATE]
        assert [row.who for row in found] == [OURS, UNSHARE, BARE]
        assert (found[0].ratio, found[0].met, found[0].kernel) == (times, met, 0.0)
        assert found[1].met is None

    def test_the_kernel_s_part_is_apart(self) -> None:
        found = outcome(growth=4.0)
        found.many_alone.add((operations.CREATE, BARE), 6.0)  # with the 2.0 that is there: 4.0
        grown = next(row for row in goals.growth(found) if row.operation == operations.CREATE)
        assert (grown.ratio, grown.kernel, grown.apart, grown.met) == (4.0, 2.0, 2.0, False)
        assert table.outcome_of_growth(grown) == "4.00 ×, without 2.00 ×"
        found.many_alone.add((operations.CREATE, BARE), 6.0)
        grown = next(row for row in goals.growth(found) if row.operation == operations.CREATE)
        assert (grown.kernel, grown.apart, grown.met) == (4.0, 1.0, True)  # it grew by no more than that
        assert table.verdict_of(grown) == "met without the kernel's part"

    def test_what_got_shorter_is_no_part_of_the_kernel_s(self) -> None:
        found = outcome(growth=0.5)
        found.many_alone.add((operations.CREATE, BARE), 9.0)
        grown = next(row for row in goals.growth(found) if row.operation == operations.CREATE)
        assert (grown.ratio, grown.apart, table.outcome_of_growth(grown)) == (0.5, 0.5, "0.50 ×")

    def test_growth_is_measured_without_the_peers(self) -> None:
        found = outcome()
        found.many = samples(9.0)
        assert {row.ratio for row in goals.growth(found) if row.who == OURS and row.goal} == {1.0}

    def test_a_list_of_more_takes_longer(self) -> None:
        found = [row for row in goals.growth(outcome(growth=9.0)) if row.operation == operations.LIST_CHANGED]
        assert [row.met for row in found] == [None]


class TestTable:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, ""),
            (0, "0"),
            (0.0123, "0.012"),
            (0.5, "0.50"),
            (9.876, "9.88"),
            (45.67, "45.7"),
            (12345.6, "12,346"),
        ],
    )
    def test_figures(self, value: float | None, text: str) -> None:
        assert table.figure(value) == text

    def test_the_columns_are_even(self) -> None:
        lines = list(table.markdown(("a", "bb"), [("long one", "1"), ("x", "10")], frozenset({1})))
        assert lines == [
            "| a        | bb |",
            "| -------- | -: |",
            "| long one |  1 |",
            "| x        | 10 |",
        ]

    def test_all_rows_are_shown(self) -> None:
        rows = list(goals.rows(outcome(), FEW, MANY))
        assert len(list(table.of_rows(rows))) == len(rows) + 2
        assert len({line.count("|") for line in table.of_rows(rows)}) == 1


class TestPlot:
    def test_it_is_well_formed(self) -> None:
        root = ET.fromstring(page.picture(report(outcome(), outcome("hidden", 3.0))))
        texts = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
        assert {"Create", "mountnsd, host holder", "mountnsd, hidden holder", "1.00 → 3.00 ms"} <= set(texts)

    def test_names_are_escaped(self) -> None:
        root = ET.fromstring(plot.svg("<a>", [("b & c", [Line("<d>", "ours", 1.0, 2.0)])], 1, 2))
        texts = {element.text for element in root.iter()}
        assert {"<a>", "b & c", "<d>"} <= texts

    def test_it_is_on_the_picture(self) -> None:
        lines = [
            Line("one", "ours", 0.004, 3000.0),
            Line("other", "peer", None, 5.0),
            Line("none", "bare", None, None),
        ]
        root = ET.fromstring(plot.svg("title", [("group", lines), ("empty", lines[2:])], 1, 2))
        width = float(root.attrib["viewBox"].split()[2])
        circles = [element for element in root.iter() if element.tag.endswith("circle")]
        assert all(0 < float(circle.attrib["cx"]) < width for circle in circles)
        assert len(circles) == 2 + 3  # the legend's, and those that were measured
        assert "empty" not in {element.text for element in root.iter()}


class TestPage:
    def test_it_has_everything(self) -> None:
        text = page.page(report(outcome(), outcome("hidden")), "performance.svg")
        for words in (
            "    sudo make bench\n",
            "(performance.svg)",
            "## The host holder",
            "## The hidden holder",
            "## In booted systems",
            "dbus-fast needs 0.40 × the time for the long one, 0.50 × for the short.",
            "* processor: of none",
        ):
            assert words in text
        assert "{" not in text

    def test_each_missed_goal_has_its_limit(self) -> None:
        found = report(outcome(growth=9.0))
        missed = page.unmet(found)
        judged = [row.met for row in found.rows()] + [row.met for row in found.growth()]
        assert len(missed) == judged.count(False)
        assert any(line.startswith("Create at 10,000, host holder: 9.00 × as long") for line in missed)

    def test_booted_systems(self) -> None:
        found = report()
        found.booted = [{**found.booted[0], "met": False}]
        assert any(
            line.startswith("Enter in a unit, trixie, host holder: 0.67 ×; the") for line in page.unmet(found)
        )
        judged = [[cell.strip() for cell in line.split("|")] for line in page.judged(found)]
        assert [
            "",
            "Enter in a unit",
            "",
            "host, trixie",
            "≤ 0.8 × systemd-run",
            "0.67 ×",
            "**not met**",
            "",
        ] in judged

    def test_all_met(self) -> None:
        found = Report("make bench", PLAN, {}, [])
        assert "\n* None.\n" in page.page(found, "x.svg")

    def test_figures(self) -> None:
        content = json.loads(page.figures(report()))
        assert {row["operation"] for row in content["rows"]} >= set(EVERY)
        assert content["booted"][0]["note"] == "<measured>"
        sample = content["samples"][0]
        assert sample["median_ms"] == 1.0
        assert sample["quartiles_ms"] == [1.0, 1.0]


def cells(found: Report, operation: str) -> list[list[str]]:
    """The lines of the short table that begin with that."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.summary(found)]
    return [line for line in lines if line[0] == operation]


class TestShort:
    """The table that a newcomer reads."""

    def test_a_line_for_a_goal_with_the_holders_beside_each_other(self) -> None:
        found = report(outcome(), outcome("hidden"))
        assert cells(found, operations.CREATE) == [
            [
                operations.CREATE,
                "≤ 0.3 × unshare --mount=FILE true",
                "**0.50 ×**",
                "**0.50 ×**",
                "**not met**",
            ],
            [operations.CREATE, "≤ 4 × bare system calls + a round trip", "0.50 ×", "0.50 ×", "met"],
        ]
        assert len(page.summary(found)) < len(page.judged(found)) / 2

    def test_the_worst_of_what_a_goal_is_about(self) -> None:
        found = report(outcome())
        assert cells(found, "Create and Destroy, 16 in flight") == [
            [
                "Create and Destroy, 16 in flight",
                "≥ 1,000",
                "**900 a second (Destroy, 16 connections)**",
                "",
                "**not met**",
            ]
        ]
        (line,) = cells(found, "resident memory of each")
        assert line[2:] == ["**2,048 bytes (of 10,000, created)**", "", "**not met**"]
        (line,) = cells(found, "resident memory, idle")
        assert line[2:] == ["20.5 MiB (one of each done)", "", "met"]

    def test_what_grows_is_one_line(self) -> None:
        found = outcome(growth=1.2)
        found.many_alone.add((operations.OPEN, OURS), 9.0)
        (line,) = cells(report(found, outcome("hidden")), "Each with 10,000")
        assert line[1:] == [
            "≤ 1.5 × with 10, without the kernel's part",
            "**5.10 × (Open)**",
            "1.00 × (Create)",
            "**not met**",
        ]

    def test_one_holder_that_misses_is_enough(self) -> None:
        hidden = outcome("hidden")
        hidden.cold = [300.0]
        (line,) = cells(report(outcome(), hidden), "cold start")
        assert line[2:] == ["190 ms", "**300 ms**", "**not met**"]

    def test_booted_systems(self) -> None:
        found = report()
        first = {**found.booted[0], "operation": "PID 1's CPU, of 100", "peer": "", "goal": "", "met": None}
        hidden = {"holder": "hidden", "peer": "host holder", "goal": "≤ 0.05 ms"}
        found.booted = [
            first,
            {**first, "operation": "PID 1's CPU, of 5000", "ours_ms": 150.0},
            {**first, **hidden, "ours_ms": 0.01, "met": True},
            {**first, **hidden, "release": "bookworm", "ours_ms": 0.1, "met": False},
            {**first, "operation": "no goal at all"},
        ]
        assert cells(found, "PID 1's CPU") == [
            ["PID 1's CPU", "≤ 0.05 ms", "150 ms (trixie), no goal", "**0.10 ms (bookworm)**", "**not met**"]
        ]
        assert not cells(found, "no goal at all")

    def test_not_measured(self) -> None:
        found = report()
        found.booted = [{**found.booted[0], "ratio": None, "met": None}]
        (line,) = cells(found, "Enter in a unit")
        assert line[-1] == "not measured"


class TestMachine:
    def test_memory(self) -> None:
        kib = {"Rss": 100, "Pss": 80, "Private_Clean": 10, "Private_Dirty": 20}
        text = "\n".join(
            ["55d-7ff ---p 0 00:00 0 [rollup]", *(f"{key}: {value} kB" for key, value in kib.items())]
        )
        assert memory.parse(text) == Memory(100, 80, 30)

    def test_processor(self) -> None:
        assert model("processor\t: 0\nmodel name\t: AMD EPYC\n") == "AMD EPYC"
        assert model("CPU implementer : 0x41\n") == ""

    @pytest.mark.parametrize(
        ("version", "new"), [("2.38.1", False), ("2.41", True), ("2.41.1", True), ("3.0", True)]
    )
    def test_lsns(self, version: str, new: bool) -> None:
        assert Lsns(version, ("lsns",)).is_new is new
