# SPDX-License-Identifier: LGPL-2.1-or-later
"""Units: what they are called."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountnsd import names

NUMBER = "0123456789abcdef"
NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", fullmatch=True).filter(names.is_valid)


def test_a_namespace_has_a_slice_and_its_processes_are_in_units_of_its_name() -> None:
    assert names.slice_of("build") == "mountns-build.slice"
    assert names.service_in("build", NUMBER) == f"mountns-build-{NUMBER}.service"
    assert names.keeper_of("build") == "mountns@build.service"


def test_a_dash_is_escaped_because_it_would_mean_a_slice_in_a_slice() -> None:
    assert names.slice_of("a-b") == r"mountns-a\x2db.slice"
    assert names.keeper_of("a-b") == "mountns@a-b.service"  # %i, not %I


@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="systemd is not installed")
def test_as_systemd_escapes() -> None:
    told = subprocess.run(
        ["systemd-escape", "a-b_c.d-"], capture_output=True, text=True, check=True, timeout=10
    )
    assert names.slice_of("a-b_c.d-") == f"mountns-{told.stdout.strip()}.slice"


@given(NAMES)
def test_every_namespace_has_units_whose_names_systemd_takes(name: str) -> None:
    for unit in (names.slice_of(name), names.service_in(name, NUMBER), names.keeper_of(name)):
        assert len(unit) <= 255
        assert re.fullmatch(r"[A-Za-z0-9:_.\\@-]+\.(slice|service)", unit)
    stem = names.slice_of(name).removeprefix("mountns-").removesuffix(".slice")
    assert "-" not in stem
    assert not re.search(r"\\(?!x2d)", stem)  # no escape is cut in two


@given(st.sets(NAMES, min_size=2, max_size=2))
def test_no_two_share_one(pair: set[str]) -> None:
    one, other = pair
    assert names.slice_of(one) != names.slice_of(other)
    assert names.service_in(one, NUMBER) != names.service_in(other, NUMBER)


def test_long_ones_with_many_dashes_are_told_apart_by_a_hash() -> None:
    alike = ["a" + "-" * 62 + last for last in "ab"]
    slices = [names.slice_of(name) for name in alike]
    assert slices[0] != slices[1]
    assert all(re.search(r"_[0-9a-f]{16}\.slice$", name) for name in slices)
