"""README.md and docs/: command lines parse, links lead somewhere, Python imports names that exist.

Each command line goes through the program's own dispatch and parser; the verbs themselves do not run.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import io
import itertools
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from helpers import ROOT

from emotion_tf import cli, folders
from emotion_tf.config import Config, to_json
from emotion_tf.errors import UserError

README_LINES = 150
NAMES = ("README", "CONTRIBUTING", "SECURITY", "saved_models/README", "tfrecords/README")
PAGES = [ROOT / f"{name}.md" for name in NAMES]
PAGES += sorted((ROOT / "docs").glob("*.md"))
PROGRAM = ("python main.py", "emotion-tf")
OPTION = re.compile(r"--[a-z][a-z\d_.-]*")


class Snippet(NamedTuple):
    """Code of a page: the line where it begins, its text, and the language of its block (`inline` outside blocks)."""

    line: int
    text: str
    language: str


# Reading a page


def blocks(page: str) -> Iterator[Snippet]:
    """Yields the fenced blocks of a page."""
    for match in re.finditer(r"^ *```(\w*)\n(.*?)^ *```$", page, re.DOTALL | re.MULTILINE):
        yield Snippet(page.count("\n", 0, match.start(2)) + 1, match[2], match[1])


def without_blocks(page: str) -> str:
    """Returns a page whose fenced blocks are empty lines, so that line numbers stay."""
    return re.sub(r"^ *```.*?^ *```$", lambda block: "\n" * block[0].count("\n"), page, flags=re.DOTALL | re.MULTILINE)


def inline(page: str) -> Iterator[Snippet]:
    """Yields the inline code of a page; a span may cross a line end, but no empty line."""
    prose = without_blocks(page)
    for match in re.finditer(r"(`+)((?:(?!\n\s*\n).)+?)\1", prose, re.DOTALL):
        text = " ".join(match[2].replace("\\|", "|").split())
        yield Snippet(prose.count("\n", 0, match.start()) + 1, text, "inline")


def command_lines(page: str) -> Iterator[Snippet]:
    """Yields every command line: the lines of blocks without a language or of a shell, and inline code."""
    for block in blocks(page):
        if block.language in ("", "sh", "bash", "console"):
            joined = block.text.replace("\\\n", "\0\n")
            line, number = "", block.line
            for i, text in enumerate(joined.splitlines(), block.line):
                line, number = (line + text, number) if line else (text, i)
                if line.endswith("\0"):
                    line = line.replace("\0", " ")
                    continue
                yield Snippet(number, line, block.language)
                line = ""
    yield from inline(page)


def words_of(text: str) -> list[str]:
    """Returns the words of a command up to a comment, a pipe, a redirection or the next command."""
    lexer = shlex.shlex(text.split(" #")[0], posix=True, punctuation_chars="|;<>&")
    lexer.whitespace_split, lexer.commenters = True, ""
    return list(itertools.takewhile(lambda word: word[0] not in "|;<>&", lexer))


def anchors(page: str) -> set[str]:
    """Returns the anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.*?)\s*#*$", without_blocks(page), re.MULTILINE)
    titles = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for title in titles]
    slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
    repeats = [slugs[:i].count(slug) for i, slug in enumerate(slugs)]
    return {f"{slug}-{n}" if n else slug for slug, n in zip(slugs, repeats, strict=True)}


# The checks: each returns the fault of one item, or nothing


@functools.cache
def fault_of_command(text: str) -> str:
    """Returns why a command line of the project is wrong."""
    try:
        words = words_of(text)
    except ValueError as error:
        return str(error)
    for program in PROGRAM:
        if words[: len(program.split())] == program.split():
            return fault_of_verb(words[len(program.split()) :])
    if words[:1] == ["make"]:
        return fault_of_make(words[1:])
    if words[:2] == ["python", "-m"] and words[2].startswith("benchmarks"):
        return fault_of_benchmark(words[2], words[3:])
    return ""


def is_command(text: str) -> bool:
    return bool(re.match(rf"({'|'.join(PROGRAM)}|make|python -m benchmarks\S*)(?=\s|$)", text.strip()))


def fault_of_verb(words: list[str]) -> str:
    """Parses the words as the program does, without running the verb."""
    try:
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
            patch.setattr(cli, "load", load_without_running)
            patch.setattr(folders, "find_run", lambda path: path)  # the runs of the examples do not exist
            patch.setattr(folders, "fetch_run", lambda name: folders.RUNS / Path(name).name)  # nor do their stores
            cli.dispatch(words)
    except UserError as error:
        return str(error)
    except SystemExit as end:  # --help
        return f"exit code {end.code}" if end.code else ""
    return ""


LOAD = cli.load
PARSERS = {verb.arguments for verb in cli.VERBS}


def load_without_running(reference: str):
    """Returns a parser as it is, and a verb as a function of the same signature that does nothing."""
    function = LOAD(reference)
    if reference in PARSERS:
        return function

    @functools.wraps(function)
    def nothing(*args, **options):
        return None

    return nothing


def fault_of_make(words: list[str]) -> str:
    """Checks that the Makefile, or the file after -f, has the targets."""
    file, words = (words[1], words[2:]) if words[:1] == ["-f"] else ("Makefile", words)
    if not (ROOT / file).is_file():
        return f"no file {file}"
    targets = re.findall(r"^([a-z][\w-]*):", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    unknown = [word for word in words if "=" not in word and word not in targets]
    return f"no target {unknown[0]} in the {file}" if unknown else ""


def fault_of_benchmark(module: str, words: list[str]) -> str:
    """Parses the words as a benchmark does."""
    if not (ROOT / f"{module.replace('.', '/')}.py").is_file():
        return f"no module {module}"
    parser = importlib.import_module(module).parser()
    try:
        with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
            parser.parse_args(words)
    except SystemExit as end:
        return said.getvalue().strip().splitlines()[-1] if end.code else ""
    return ""


@functools.cache
def options_of(verb: str) -> frozenset[str]:
    """Returns the options that the help of a verb lists."""
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        cli.dispatch([*verb.split(), "--help"])
    pairs = re.sub(r"(--\w+\.)\[no-\](\S+)", r"\1\2 \1no-\2", said.getvalue())
    return frozenset(OPTION.findall(pairs))


def fault_of_mention(text: str) -> str:
    """Checks the options of inline code that begins with a verb, or with an option (of any verb)."""
    words = text.split()
    names = [verb.name for verb in cli.VERBS]
    full = [name for name in names if words[: len(name.split())] == name.split()]
    group = [name for name in names if name.split()[0] == words[0]]
    if text.startswith("--"):
        verbs = names
    elif len(words) > 1 and group:
        verbs = full or group
    else:
        return ""
    unknown = set(OPTION.findall(text)) - set().union(*map(options_of, verbs))
    return (
        f"no option {sorted(unknown)[0]} of {' or '.join(verbs) if verbs != names else 'any verb'}" if unknown else ""
    )


def fault_of_link(target: str, page: Path) -> str:
    """Checks that the file and the anchor of a relative link exist."""
    if re.match(r"[a-z]+:", target):
        return ""
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists():
        return f"{target}: there is no {path}"
    if anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
        return f"{target}: there is no heading #{anchor}"
    return ""


def faults_of_python(source: str) -> Iterator[str]:
    """Checks the syntax, and that what is imported from the project is defined there."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        yield f"Python: {error.msg}"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("emotion_tf", "tuning"):
            for alias in node.names:
                if alias.name not in defined_names(node.module or ""):
                    yield f"{node.module} has no {alias.name}"


def defined_names(module: str) -> set[str]:
    """Returns the names at the top level of a module of the project, read from its source; none: no such module."""
    path = ROOT / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.is_file():
        return set()
    found = {module.stem for module in path.glob("*")}  # modules of a package
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        else:
            found |= {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return found


def faults(path: Path) -> list[str]:
    """Returns every fault of a page, each with its line."""
    page = path.read_text(encoding="utf-8")
    found = [(s.line, fault_of_command(s.text)) for s in command_lines(page) if is_command(s.text)]
    found += [(s.line, fault_of_mention(s.text)) for s in inline(page) if not is_command(s.text) and s.text.strip()]
    found += [(s.line, fault) for s in blocks(page) if s.language == "python" for fault in faults_of_python(s.text)]
    prose = re.sub(r"`[^`\n]*`", lambda code: " " * len(code[0]), without_blocks(page))
    for match in re.finditer(r"\]\(<?([^)\s>]+)>?[^)]*\)|<(?:img|a)\s[^>]*(?:src|href)=\"([^\"]+)\"", prose):
        found.append((prose.count("\n", 0, match.start()) + 1, fault_of_link(match[1] or match[2], path)))
    if path.name == "README.md" and page.count("\n") > README_LINES:
        found.append((README_LINES, f"{page.count(chr(10))} lines. Expected at most {README_LINES}."))
    return [f"{path.name}:{line}: {fault}" for line, fault in sorted(found) if fault]


# The tests


@pytest.fixture(autouse=True)
def folder_with_files_that_options_name(tmp_path, monkeypatch):
    """An empty folder, but for the configurations that --config and --resume read while they are parsed."""
    monkeypatch.chdir(tmp_path)
    for config in ("saved_models/mine/config.json", "saved_models/x/config.json", "tuning/results/mine/best.json"):
        Path(config).parent.mkdir(parents=True)
        Path(config).write_text(to_json(Config()), encoding="utf-8")
    (tmp_path / "saved_models" / "mine" / "checkpoint").mkdir()
    search = {"config": json.loads(to_json(Config())), "search": [], "fix": [], "algorithm": "random", "folds": 0}
    search |= {"data_sha256": "", "trials": 30, "command": "", "smoke": False}
    (tmp_path / "tuning" / "results" / "mine" / "search.json").write_text(json.dumps(search), encoding="utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_page(path):
    assert faults(path) == []


def test_the_commands_that_measure_the_results_again(tmp_path):
    for name in ("trials", "folds"):
        shutil.copytree(tmp_path / "tuning" / "results" / "mine", tmp_path / "tuning" / "results" / name)
    words = ["make", "-n", "-f", str(ROOT / "benchmarks" / "results.mk"), "DATA=data"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.replace("\\\n", " ")
    commands = re.findall(r"\.venv/bin/(python (?:main\.py|-m benchmarks)[^;|\n]*)", lines)
    assert len(commands) > 50
    faults = {command: fault_of_command(command) for command in commands if "--resume" not in command}
    assert {command: fault for command, fault in faults.items() if fault} == {}


@pytest.mark.parametrize(
    ("name", "count"),
    [("train.sbatch", 3), ("train.yaml", 3), ("prepare.sbatch", 1), ("prepare.yaml", 1), ("tune.sbatch", 2)],
)
def test_the_files_of_clusters_hold_commands_of_the_program(name, count):
    text = (ROOT / "deploy" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(rf"(?:^|srun (?:--\S+ )*|exec ) *((?:{'|'.join(PROGRAM)}) [^;|\n]*)", text, re.MULTILINE)
    assert len(commands) == count
    assert [fault for fault in map(fault_of_command, commands) if fault] == []
    assert f"](../deploy/{name})" in (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def test_the_scripts_of_clusters_are_scripts():
    job = list(yaml.safe_load_all((ROOT / "deploy" / "train.yaml").read_text(encoding="utf-8")))[1]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    for script in (container["command"][-1], (ROOT / "deploy" / "train.sbatch").read_text(encoding="utf-8")):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    for name in ("prepare.sbatch", "tune.sbatch"):
        subprocess.run(["bash", "-n", ROOT / "deploy" / name], check=True)
    assert container["env"][0]["value"].count(":15000") == job["spec"]["completions"] == job["spec"]["parallelism"]


def test_every_page_is_reached_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"](docs/{page.name}" not in readme] == []


def test_every_test_that_a_page_names_exists():
    for page in PAGES:
        for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text(encoding="utf-8")):
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{page}: {file}::{name}"


def test_every_picture_is_used():
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [picture.name for picture in (ROOT / "docs").glob("*.png") if picture.name not in pages] == []


GOOD = """# A page

A [link](other.md#two-words), [another](other.md#two-words-1),
a ![picture](picture.png), [elsewhere](https://example.org/x.md), [itself](#a-page).
`train --resume`, `--text.branches gru`, `make train`, `predict`, `some other --thing`, `tar --no-such x`.

```
make train PYTHON=python3.11    # a comment with 'half a quote
python main.py train --data tfrecords/mine --fusion.kind gated | tee log > file
python main.py tune --resume && ls
emotion-tf train --config saved_models/x/config.json --train.epochs \\
    3
python main.py prepare table manifest.csv --out tfrecords/mine
python -m benchmarks.explain RUN
docker run --no-such-option x
```

```python
from emotion_tf.errors import UserError
from emotion_tf.data import pipeline
```
"""
PLANTED = [
    ("emotion-tf train", "emotion-tf trian", "'trian'"),
    ("prepare table manifest.csv", "prepare tabel manifest.csv", "'tabel'"),
    ("--fusion.kind gated", "--fusion.knd gated", "--fusion.knd"),
    ("--fusion.kind gated", "--fusion.kind gatd", "'gatd'"),
    ("    3\n", "    x\n", "--train.epochs"),
    ("--out tfrecords/mine", "", "--out"),
    ("`train --resume`", "`train --resum`", "no option --resum of train"),
    ("`--text.branches gru`", "`--text.branchs gru`", "no option --text.branchs of any verb"),
    ("`train --resume`", "`python main.py train\n--fuison.kind sum`", "--fuison.kind"),
    ("make train PYTHON", "make trian PYTHON", "no target trian"),
    ("`make train`", "`make trains`", "no target trains"),
    ("benchmarks.explain", "benchmarks.explains", "no module benchmarks.explains"),
    ("benchmarks.explain RUN", "benchmarks.explain RUN --seeds 3", "--seeds"),
    ("(other.md#two-words)", "(others.md)", "there is no others.md"),
    ("(other.md#two-words)", "(other.md#two-word)", "there is no heading #two-word"),
    ("(#a-page)", "(#pages)", "there is no heading #pages"),
    ("(picture.png)", "(pictures.png)", "there is no pictures.png"),
    ("import UserError", "import UsersError", "emotion_tf.errors has no UsersError"),
    ("emotion_tf.errors", "emotion_tf.mistakes", "emotion_tf.mistakes has no UserError"),
    ("import UserError", "imports UserError", "Python: invalid syntax"),
    ("# A page\n", "# A page\n" + "\n" * README_LINES, f"Expected at most {README_LINES}"),
]


def write_page(folder: Path, text: str) -> Path:
    (folder / "other.md").write_text("# Other\n\n## Two *words*\n\n## Two words\n", encoding="utf-8")
    (folder / "picture.png").write_bytes(b"")
    (folder / "README.md").write_text(text, encoding="utf-8")
    return folder / "README.md"


def test_a_good_page_has_no_fault(tmp_path):
    assert faults(write_page(tmp_path, GOOD)) == []


@pytest.mark.parametrize(("right", "wrong", "fault"), PLANTED, ids=[fault for *_, fault in PLANTED])
def test_a_planted_mistake_is_found(right, wrong, fault, tmp_path):
    assert GOOD.count(right) == 1
    found = faults(write_page(tmp_path, GOOD.replace(right, wrong, 1)))
    assert len(found) == 1 and fault in found[0], found
