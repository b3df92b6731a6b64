"""Every command that a page quotes in a ```bash block is one that works.

Long commands are checked without their work: `make` by its dry run, `dvc` by DVC's own parser and the parameters it
names, other tools by their help, which must know each option. A command of a form not known here fails.
"""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "data/README.md", "data/samples/README.md")
BLOCK = re.compile(r"^```(?:bash|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


def quoted(page: str) -> list[str]:
    """The commands in a page's blocks, continued lines joined, comments and prompts left out."""
    path = ROOT / page
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = "\n".join(BLOCK.findall(text)).replace("\\\n", " ").splitlines()
    return [line.strip().removeprefix("$ ") for line in lines if line.strip() and not line.strip().startswith("#")]


def check(command: str) -> None:
    """Raise `AssertionError` where a command would not work as quoted."""
    for part in re.split(r"\s(?:&&|;|\|)\s", command):
        words = shlex.split(part, comments=True)
        while words and ASSIGNMENT.match(words[0]):
            words.pop(0)
        if not words:
            continue
        name, arguments = Path(words[0]).name, words[1:]
        assert name in CHECKS, f"no check is known for `{part}`; add one to {Path(__file__).name}"
        CHECKS[name](arguments)


def _make(arguments: list[str]) -> None:
    _run("make", "-n", *arguments)


def _dvc(arguments: list[str]) -> None:
    from dvc.cli import parse_args
    from dvc.cli.parser import DvcParserError

    try:
        parsed = parse_args(arguments)
    except DvcParserError as error:
        raise AssertionError(f"dvc {shlex.join(arguments)}: DVC does not know this") from error
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for setting in getattr(parsed, "set_param", None) or []:
        if setting.startswith("+profiles="):
            assert (ROOT / "profiles" / f"{setting.partition('=')[2]}.yaml").exists(), f"there is no {setting}"
            continue
        node = params
        for key in setting.partition("=")[0].split("."):
            assert key in node, f"params.yaml has no {setting.partition('=')[0]}"
            node = node[key]
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for target in (getattr(parsed, "targets", None) or []) if arguments[0] in ("repro", "exp") else []:
        assert target.partition("@")[0] in stages, f"dvc.yaml has no stage {target}"


def _python(arguments: list[str]) -> None:
    assert arguments[:1] == ["-m"], "only modules are run with python here"
    module = arguments[1]
    assert importlib.util.find_spec(module), f"no module {module}"
    if arguments[2:]:
        _options(sys.executable, "-m", module, *arguments[2:])


def _tool(name: str) -> None:
    CHECKS[name] = lambda arguments: _options(str(Path(sys.executable).with_name(name)), *arguments)


def _options(*command: str) -> None:
    """The tool, or the command of it that is named, has a help page that knows each option quoted."""
    options = [word.partition("=")[0] for word in command if word.startswith("-") and word != "-m"]
    end = next((i for i, word in enumerate(command) if word.startswith("-") and word != "-m"), len(command))
    page = _run(*command[:end], "--help")
    for option in options:
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", page), f"{command[0]} does not know {option}"


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr}"
    return done.stdout


def _git(arguments: list[str]) -> None:
    assert arguments[0] in ("clone", "diff", "status", "add", "commit")


CHECKS = {"make": _make, "dvc": _dvc, "python": _python, "git": _git}
for tool in ("lapcvae", "mlflow", "prefect", "pytest", "ruff", "mypy"):
    _tool(tool)
for shell_word in ("cd", "source", ".", "export", "mkdir", "cp", "ls"):
    CHECKS[shell_word] = lambda arguments: None


@pytest.mark.parametrize(("page", "command"), [(page, command) for page in PAGES for command in quoted(page)])
def test_quoted_command_works(page: str, command: str) -> None:
    check(command)


def test_pages_quote_commands() -> None:
    assert any(command.startswith("make repro") for command in quoted("README.md"))
    assert any(command.startswith("make test") for command in quoted("README.md"))
    assert quoted("CONTRIBUTING.md")


@pytest.mark.parametrize(
    "wrong",
    [
        "frobnicate --now",
        "make repor",
        "dvc rerpo",
        "dvc repro trian@1",
        "dvc exp run --set-param levels.1.udpates=5",
        "python -m pipelines.closrue",
        "python -m pipelines.closure --wirte",
        "prefect server satrt",
        "prefect server start --prot 4200",
        "PORT=1 make ui && make repor",
        "lapcvae smaple models --out faces.png",
        "lapcvae sample models --out faces.png --tmeperature 0.5",
        "python -m pip instal torch",
    ],
)
def test_wrong_command_is_noticed(wrong: str) -> None:
    with pytest.raises(AssertionError):
        check(wrong)


@pytest.mark.parametrize(
    "right",
    [
        "dvc exp run --queue -S levels.1.updates=500 -n longer",
        "dvc repro train@1",
        "dvc plots diff HEAD~1",
        "python -m pipelines.closure --write  # a comment",
        "PREFECT_API_URL=http://127.0.0.1:4200/api make flow",
        ".venv/bin/prefect server start --host 127.0.0.1",
    ],
)
def test_right_command_is_let_through(right: str) -> None:
    check(right)
