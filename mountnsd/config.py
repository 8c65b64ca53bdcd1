# SPDX-License-Identifier: LGPL-2.1-or-later
"""The configuration: mountnsd.toml and then its drop-ins, in the order of their names.

Source: mountnsd.toml(5).
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIRECTORY = Path("/etc/mountnsd")
FILE = "mountnsd.toml"
DROP_INS = "mountnsd.toml.d"


HOST, HIDDEN = "host", "hidden"


class ConfigError(Exception):
    """A file that cannot be used.  The message names the file and the line or the key."""


@dataclass(frozen=True, slots=True)
class Config:
    """What can be set, with its defaults."""

    max_namespaces: int = 16384
    max_namespaces_per_user: int = 256
    idle_timeout_sec: int = 0  # 0: stay
    holder: str = HOST


_RANGES = {
    "max_namespaces": (1, 100_000),
    "max_namespaces_per_user": (0, 100_000),
    "idle_timeout_sec": (0, 86_400 * 365),
}
_CHOICES = {"holder": (HOST, HIDDEN)}


def load(directory: Path = DIRECTORY) -> Config:
    """Read the configuration below `directory`; what is not there is left at its default.

    Raises: ConfigError.
    """
    files = [directory / FILE, *sorted((directory / DROP_INS).glob("*.toml"))]
    values: dict[str, Any] = {}
    for path in files:
        values |= _read(path)
    return Config(**values)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, RecursionError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return {key: _checked(path, key, value) for key, value in content.items()}


def _checked(path: Path, key: str, value: Any) -> Any:
    choices = _CHOICES.get(key)
    if choices is not None:
        if value not in choices:
            wanted = " or ".join(f'"{choice}"' for choice in choices)
            raise ConfigError(f"{path}: {key} is {wanted}, not {value!r}")
        return value
    if key not in _RANGES:
        known = ", ".join((*_RANGES, *_CHOICES))
        raise ConfigError(f"{path}: there is no setting {key!r}; there are {known}")
    low, high = _RANGES[key]
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{path}: {key} is a whole number from {low} to {high}, not {value!r}")
    return value
