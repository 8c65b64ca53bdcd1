# SPDX-License-Identifier: LGPL-2.1-or-later
"""The documents agree with the code: what there is is described, and what is described is there."""

import argparse
import ast
import importlib
import inspect
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import mountnsd
from mountnsd import config, daemon, declaration, errors, interface, options, standard
from mountnsd.authority import Action
from mountnsd.interface import MANAGER, NAMESPACE, Method
from mountnsd.namespace import Propagation

TREE = Path(__file__).resolve().parents[2]
DOCS = TREE / "docs"
PAGES = sorted(DOCS.glob("*.[1-9].md"))
DOCUMENTS = [*sorted(TREE.glob("*.md")), *sorted(DOCS.glob("*.md"))]
API = (DOCS / "org.mountnsd1.5.md").read_text()
SETTINGS = (DOCS / "mountnsd.toml.5.md").read_text()
DECLARED = (DOCS / "mountnsd.namespaces.5.md").read_text()
DAEMON = (DOCS / "mountnsd.8.md").read_text()
SECURITY = (TREE / "SECURITY.md").read_text()
HACKING = (TREE / "HACKING.md").read_text()
INTERFACES = interface.load_all()
HEADINGS = {MANAGER: "THE MANAGER OBJECT", NAMESPACE: "NAMESPACE OBJECTS"}


def section(page: str, title: str, level: int = 1) -> str:
    """The text below a heading."""
    mark = "#" * level
    text = re.split(rf"^{mark} {re.escape(title)}$", page, maxsplit=1, flags=re.MULTILINE)
    assert len(text) == 2, f"there is no section {title}"
    return re.split(rf"^#{{1,{level}}} ", text[1], maxsplit=1, flags=re.MULTILINE)[0]


def terms(text: str) -> dict[str, str]:
    """The definition lists' outermost terms, without markup, and what is said of each."""
    parts = re.split(r"^(\S.*)\n\n?:   ", text, flags=re.MULTILINE)
    return {re.sub(r"\*+|\\", "", term): said for term, said in zip(parts[1::2], parts[2::2], strict=True)}


def untyped(arguments: str) -> str:
    """`s name, a{sv} options` as a signature."""
    return "".join(argument.split(" ")[0] for argument in arguments.split(", ") if argument)


def described(owner: str, kind: str) -> dict[str, str]:
    """The methods, signals or properties of an interface of ours as the manual page has them."""
    return terms(section(section(API, HEADINGS[owner]), kind, 2))


# org.mountnsd1(5) and the interfaces


@pytest.mark.parametrize("owner", HEADINGS)
def test_methods(owner: str) -> None:
    found = {}
    for term in described(owner, "Methods"):
        match = re.fullmatch(r"(\w+)\((.*?)\)(?: → (.+))?", term)
        assert match, term
        found[match[1]] = Method(untyped(match[2]), untyped(match[3] or ""))
    assert found == INTERFACES[owner].methods


def test_signals() -> None:
    found = {}
    for term in described(MANAGER, "Signals"):
        match = re.fullmatch(r"(\w+)\((.*)\)", term)
        assert match, term
        found[match[1]] = untyped(match[2])
    assert found == INTERFACES[MANAGER].signals
    assert not INTERFACES[NAMESPACE].signals


@pytest.mark.parametrize("owner", HEADINGS)
def test_properties(owner: str) -> None:
    found, const = {}, set()
    for term in described(owner, "Properties"):
        match = re.fullmatch(r"(\w+) \(([^,]+)(, const)?\)", term)
        assert match, term
        found[match[1]] = match[2]
        const |= {match[1]} if match[3] else set()
    assert found == INTERFACES[owner].properties
    annotated = re.findall(
        r'<property name="(\w+)"[^>]*>\s*<annotation [^>]*EmitsChangedSignal" value="const"',
        INTERFACES[owner].xml,
    )
    assert const == set(annotated)


def test_standard_interfaces() -> None:
    text = section(API, "STANDARD INTERFACES")
    for name in set(interface.ALL) - set(HEADINGS):
        said = terms(text)[name].replace("\\", "")
        for method, signatures in INTERFACES[name].methods.items():
            takes = f"(*{signatures.takes}*)" if signatures.takes else "()"
            gives = f" → *{signatures.gives}*" if signatures.gives else ""
            assert f"*{method}*{takes}{gives}" in said
        for signal, signature in INTERFACES[name].signals.items():
            assert f"*{signal}*(*{signature}*)" in said


@pytest.mark.parametrize(
    ("method", "known"),
    [
        ("Create", options._CREATE),
        ("Enter", options._ENTER),
        ("Destroy", options._DESTROY),
    ],
)
def test_options(method: str, known: dict[str, str]) -> None:
    said = next(text for term, text in described(MANAGER, "Methods").items() if term.startswith(method + "("))
    found = dict(re.findall(r"^    `(\w+)` \(\*(.+)\*\)\n    :   ", said, re.MULTILINE))
    assert found == known


def test_options_of_unmount() -> None:
    said = next(text for term, text in described(NAMESPACE, "Methods").items() if term.startswith("Unmount("))
    assert dict(re.findall(r"`(\w+)` \(\*(\w+)\*\)", said)) == options._UNMOUNT


def test_propagations() -> None:
    create = next(said for term, said in described(MANAGER, "Methods").items() if term.startswith("Create("))
    for kind in Propagation:
        assert f"`{kind}`" in create
    concepts = terms(section((DOCS / "mountnsd.7.md").read_text(), "PROPAGATION"))
    assert set(concepts) == set(Propagation)


def test_features() -> None:
    said = described(MANAGER, "Properties")["Features (as, const)"]
    listed = re.findall(r"`(\w+)`", said)
    assert tuple(sorted(listed)) == tuple(sorted(standard.FEATURES))


def test_errors() -> None:
    found = set(re.findall(r"^`?(?:.*`)?(org\.[\w.]+\.Error\.\w+)`", section(API, "ERRORS"), re.MULTILINE))
    found |= set(re.findall(r"`(org\.[\w.]+\.Error\.\w+)`", section(API, "ERRORS")))
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert found == {kind.dbus_name for kind in classes if issubclass(kind, errors.Error)}


def test_the_errors_of_methods_are_errors() -> None:
    known = {name for name, kind in inspect.getmembers(errors, inspect.isclass)}
    for said in re.findall(r"Errors?: ([^.]*)\.", API):
        assert set(re.findall(r"\*(\w+)\*", said)) <= known, said


def test_actions() -> None:
    text = section(API, "AUTHORIZATION")
    listed = [term.strip("`") for term in terms(text) if term.startswith("`org.")]
    assert sorted(listed) == sorted(action.value for action in Action)


def test_actions_of_methods() -> None:
    known = {action.value for action in Action}
    assert set(re.findall(r"`(org\.mountnsd1\.[a-z-]+)`", API)) == known
    for term, said in described(MANAGER, "Methods").items():
        assert re.search(r"Action: `org\.mountnsd1\.[a-z-]+`", said), term


def test_the_rule_is_the_same_everywhere() -> None:
    def rule(text: str) -> list[str]:
        match = re.search(r"polkit\.addRule\(.*?\n *\}\);", text, re.DOTALL)
        assert match
        return match[0].split()

    assert rule(API) == rule((TREE / "README.md").read_text())
    assert '"' + Action.ENTER + '"' in rule(API)


# mountnsd.toml(5)


def test_settings() -> None:
    said = terms(section(SETTINGS, "SETTINGS"))
    assert list(said) == [*config._RANGES, *config._CHOICES]
    defaults = config.Config()
    for key, text in said.items():
        words = " ".join(text.split())
        default = getattr(defaults, key)
        if key in config._RANGES:
            low, high = config._RANGES[key]
            assert f"from {low} to {high}" in words
            assert f"The default is {default}." in words
        else:
            assert all(f'`"{choice}"`' in words for choice in config._CHOICES[key])
            assert f'The default is `"{default}"`.' in words


def test_settings_of_the_example(tmp_path: Path) -> None:
    lines = [line[4:] for line in section(SETTINGS, "EXAMPLES").splitlines() if line.startswith("    ")]
    (tmp_path / config.FILE).write_text("\n".join(lines))
    assert config.load(tmp_path) != config.Config()


def test_configuration_files() -> None:
    for name in (config.FILE, f"{config.DROP_INS}/*.toml"):
        assert f"`{config.DIRECTORY}/{name}`" in section(SETTINGS, "SYNOPSIS")
        assert f"`{config.DIRECTORY}/{name}`" in section(DAEMON, "FILES")


# mountnsd.namespaces(5)


def test_keys_of_declarations() -> None:
    assert set(terms(section(DECLARED, "KEYS"))) == set(declaration._KEYS)
    assert set(terms(section(DECLARED, "KEYS OF A MOUNT"))) == set(declaration._MOUNT_KEYS)
    assert f"at most {declaration.MAX_SIZE // 1024} KiB" in DECLARED
    assert f"{declaration.MAX_MOUNTS} at most" in DECLARED
    for kind in Propagation:
        assert f"`{kind}`" in terms(section(DECLARED, "KEYS"))["propagation"]


def test_directories_of_declarations() -> None:
    places = [f"`{directory}/`" for directory in declaration.DIRECTORIES]
    assert re.findall(r"^(`/.*/`)\*NAME", section(DECLARED, "SYNOPSIS"), re.MULTILINE) == places
    assert [f"`{config.DIRECTORY}/namespaces/`", f"`{daemon.VENDOR_DIRECTORY}/namespaces/`"] == places
    assert all(place in section(DAEMON, "FILES") for place in places)


def test_declarations_in_examples() -> None:
    lines = section(DECLARED, "EXAMPLES").split("Check it,")[0].splitlines()
    text = "\n".join(line[4:] for line in lines if line.startswith("    "))
    shown = re.search(r"```toml\n(.*?)```", (TREE / "README.md").read_text(), re.DOTALL)
    assert shown
    for example, mounts in ((text, 3), (shown[1], 2)):
        found, faults = declaration.examine("build", "FILE", example.encode())
        assert faults == []
        assert len(found.options.mounts) == mounts


# mountnsd(8)


class _Parsed(Exception):
    """The parser, before it parses."""


def parser_options(monkeypatch: pytest.MonkeyPatch) -> dict[str, argparse.Action]:
    """The daemon's options: its parser is made and not used."""
    found: list[argparse.ArgumentParser] = []

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        found.append(parser)
        raise _Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(_Parsed):
        daemon._parse([])
    actions = found[0]._actions
    return {", ".join(action.option_strings): action for action in actions}


def test_options_of_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    known = parser_options(monkeypatch)
    said = terms(section(DAEMON, "OPTIONS"))
    assert {term.split("=")[0] for term in said} == set(known)
    for term, text in said.items():
        action = known[term.split("=")[0]]
        takes_value = action.nargs != 0
        assert ("=" in term) == takes_value, term
        if takes_value:
            assert f"The default is `{action.default}`." in " ".join(text.split())
        for choice in action.choices or ():
            assert f"`{choice}`" in text


@pytest.mark.parametrize("variable", ["DBUS_SYSTEM_BUS_ADDRESS", "NOTIFY_SOCKET"])
def test_environment_of_the_daemon(variable: str) -> None:
    assert f"${variable}" in terms(section(DAEMON, "ENVIRONMENT"))


# All documents


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_titles(page: Path) -> None:
    name, number, _ = page.name.rsplit(".", 2)
    first = page.read_text().split("\n", 1)[0]
    if first.startswith("%"):
        assert first.startswith(f"% {name.upper()}({number}) mountnsd {mountnsd.__version__} | ")
    else:  # a metadata block, which may leave the version out
        block = page.read_text().split("---")[1]
        assert f"title: {name.upper()}\nsection: {number}\n" in block
        assert re.findall(r"\d+\.\d+\.\d+", block) in ([], [mountnsd.__version__])


def test_news_is_of_this_version() -> None:
    newest = re.search(r"^## mountnsd (\S+): ", (TREE / "NEWS.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == mountnsd.__version__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_pages_render(page: Path) -> None:
    if shutil.which("pandoc") is None:
        pytest.skip("pandoc is not installed")
    command = ["pandoc", "--fail-if-warnings", "-s", "-t", "man", str(page)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    heading = next(line for line in result.stdout.splitlines() if line.startswith(".TH"))
    name, number, _ = page.name.rsplit(".", 2)
    assert heading.replace('"', "").split()[1:3] == [name.upper(), number]


def links() -> Iterator[tuple[Path, str]]:
    """Every relative link of every document."""
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
            if not re.match(r"[a-z]+:", target):
                yield document, target


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    ("document", "target"), [pytest.param(*link, id=f"{link[0].name}-{link[1]}") for link in links()]
)
def test_links(document: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    there = document.parent / path if path else document
    assert there.exists()
    if anchor:
        assert anchor in anchors(there)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.name))
def test_what_is_named_is_there(document: Path) -> None:
    text = document.read_text()
    for path in re.findall(r"\b(?:tests|dbus|systemd|demo|mountnsd)/[\w/.]+\.\w+\b", text):
        if not re.search(rf"(?:/|\w){re.escape(path)}", text):  # not the end of a longer path
            assert (TREE / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.name))
def test_make_targets_are_there(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (TREE / "Makefile").read_text(), re.MULTILINE))
    code = re.findall(r"(?:`|^    |sudo )(?:sudo )?make ([a-z-]+)", document.read_text(), re.MULTILINE)
    assert set(code) <= targets


def test_the_readme_names_the_first_targets() -> None:
    first = (TREE / "README.md").read_text().split("\n## ")[0]
    assert re.findall(r"sudo make (\w+)", first) == ["demo", "test", "run"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.name))
def test_pages_that_are_referred_to_exist(document: Path) -> None:
    ours = {(name, number) for name, number, _ in (page.name.rsplit(".", 2) for page in PAGES)}
    found = re.findall(r"\b((?:org\.)?mountns[\w.]*)\*{0,2}\((\d)\)", document.read_text())
    assert set(found) <= ours


# HACKING.md and SECURITY.md


def modules() -> list[str]:
    """The daemon's modules in the order of HACKING.md, from the lowest."""
    return re.findall(r"^\| `(\w+)\.py` \| ", HACKING, re.MULTILINE)


def test_every_module_is_listed() -> None:
    assert sorted(modules()) == sorted(
        path.stem for path in (TREE / "mountnsd").glob("*.py") if not path.stem.startswith("__")
    )


@pytest.mark.parametrize("module", modules())
def test_imports_go_one_way(module: str) -> None:
    order = modules()
    tree = ast.parse((TREE / "mountnsd" / f"{module}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mountnsd":
            assert node.module
            below = node.module.split(".")[1:] or [alias.name for alias in node.names]
            for name in set(below) & set(order):
                assert order.index(name) < order.index(module), f"{module} imports {name}"


def test_what_the_command_imports() -> None:
    said = next(line for line in HACKING.splitlines() if line.startswith("`ctl/` imports"))
    allowed = set(re.findall(r"`(\w+)\.py`", said))
    for path in (TREE / "mountnsd" / "ctl").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mountnsd"):
                names = node.module.split(".")[1:2] or [alias.name for alias in node.names]
                assert {*names} - {"ctl", "__version__"} <= allowed, path


LIMITS = re.findall(r"^\| [^|]+ \| (\d+)( KiB)?[^|]*\| `(\w+)\.([\w.]+)` \|$", SECURITY, re.MULTILINE)


@pytest.mark.parametrize(
    ("number", "unit", "module", "constant"), [pytest.param(*limit, id=limit[3]) for limit in LIMITS]
)
def test_limits(number: str, unit: str, module: str, constant: str) -> None:
    value: object = importlib.import_module(f"mountnsd.{module}")
    for name in constant.split("."):
        value = value() if inspect.isclass(value) else value
        value = getattr(value, name)
    assert value == int(number) * (1024 if unit else 1)


def test_all_limits_are_checked() -> None:
    rows = [line for line in section(SECURITY, "Limits", 2).splitlines() if line.startswith("| ")]
    assert len(LIMITS) == len(rows) - 2  # the heading and its line


def test_the_simple_types_are_counted() -> None:
    from mountnsd import bus

    assert f"holds one of {len(bus._SIMPLE)} types" in SECURITY
    assert f"a cache of {bus._tree.cache_parameters()['maxsize']} " in SECURITY
