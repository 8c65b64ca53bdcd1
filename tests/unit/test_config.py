# SPDX-License-Identifier: LGPL-2.1-or-later
"""The configuration: defaults, drop-ins in their order, and errors that name the file and the key or line."""

from pathlib import Path

import pytest

from mountnsd import config
from mountnsd.config import Config, ConfigError


def refusal(directory: Path) -> str:
    """The message with which a configuration is refused: one line."""
    with pytest.raises(ConfigError) as error:
        config.load(directory)
    return str(error.value)


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    assert config.load(tmp_path / "nowhere") == Config()
    assert config.load(tmp_path) == Config(16384, 256, 0)


def test_everything_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "mountnsd.toml").write_text(
        "# comment\nmax_namespaces = 10\nmax_namespaces_per_user = 0\nidle_timeout_sec = 60\n"
        'holder = "hidden"\n'
    )
    assert config.load(tmp_path) == Config(10, 0, 60, "hidden")


def test_the_last_drop_in_has_its_way(tmp_path: Path) -> None:
    (tmp_path / "mountnsd.toml").write_text("max_namespaces = 1\nidle_timeout_sec = 1\n")
    drop_ins = tmp_path / "mountnsd.toml.d"
    drop_ins.mkdir()
    (drop_ins / "90-site.toml").write_text("max_namespaces = 90\n")
    (drop_ins / "10-vendor.toml").write_text("max_namespaces = 10\nmax_namespaces_per_user = 10\n")
    (drop_ins / "99-not.conf").write_text("max_namespaces = 99\n")
    assert config.load(tmp_path) == Config(90, 10, 1)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("max_namespace = 1", "max_namespace'"),
        ("[limits]\nmax_namespaces = 1", "limits"),
        ('max_namespaces = "many"', "max_namespaces"),
        ("max_namespaces = 1.0", "max_namespaces"),
        ("max_namespaces = true", "max_namespaces"),
        ("max_namespaces = 0", "max_namespaces"),
        ("max_namespaces = 100001", "max_namespaces"),
        ("max_namespaces_per_user = -1", "max_namespaces_per_user"),
        ("idle_timeout_sec = []", "idle_timeout_sec"),
        ('holder = "elsewhere"', 'holder is "host" or "hidden"'),
        ("holder = 1", "holder"),
        ('holder = ["host"]', "holder"),
        ("idle_timeout_sec = 99999999999999999999", "idle_timeout_sec"),
        ("max_namespaces = 1\nidle_timeout_sec = = 2", "line 2"),
        ("max_namespaces = 1\n\nmax_namespaces = 2", "line 3"),
    ],
)
@pytest.mark.parametrize("file", ["mountnsd.toml", "mountnsd.toml.d/50-bad.toml"])
def test_what_is_wrong_is_named(tmp_path: Path, file: str, text: str, named: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n")
    message = refusal(tmp_path)
    assert message.startswith(f"{path}: ")
    assert named in message


def test_an_unknown_key_tells_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "mountnsd.toml").write_text("idle = 1\n")
    assert "max_namespaces, max_namespaces_per_user, idle_timeout_sec" in refusal(tmp_path)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "mountnsd.toml").write_bytes(b"\xff\xfe\x00")
    assert "mountnsd.toml" in refusal(tmp_path)


def test_a_directory_instead_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "mountnsd.toml").mkdir()
    assert "mountnsd.toml" in refusal(tmp_path)


def test_a_file_that_nests_too_deeply(tmp_path: Path) -> None:
    (tmp_path / "mountnsd.toml").write_text("max_namespaces = " + "[" * 50_000)
    assert "mountnsd.toml" in refusal(tmp_path)
