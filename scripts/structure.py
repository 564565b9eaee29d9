#!/usr/bin/env python3
"""Measures the structure of the repository, and fails where a number that must be 0 is not.

Usage: structure.py [--root DIR] [--before DIR] [--list] [PATH ...]

  --root DIR     the checkout to measure (default: the one of this script)
  --before DIR   print the numbers of another checkout beside it
  --list         print schemas of the same shape as well
  PATH           count violations below these paths only (`src/http`, `docs`); rooms are printed for them only

Needs nothing but Python 3. Rules: docs/structure.md. Words: the last column of docs/glossary.md.
"""

import argparse
import collections
import functools
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = {"rehead": "src", "rehead_trainer": "crates/trainer/src", "rehead_domain": "crates/domain/src"}
# Other names of the packages, in every package that re-exports them.
ALIASES = {"domain": "rehead_domain"}
LONGEST_FUNCTION = 70
LONGEST_COMMENT = 100

# --- Rust, roughly: enough for code that rustfmt has formatted

TOKEN = re.compile(
    r'(?P<comment>//[^\n]*|/\*.*?\*/)'
    r'|(?P<string>b?r(?P<hashes>#*)".*?"(?P=hashes)|[bc]?"(?:\\.|[^"\\])*")'
    r"|(?P<char>b?'(?:\\(?:x..|u\{[^}]*\}|.)|[^'\\\n])')",
    re.S,
)


def blank(text):
    """Replaces all but line ends with spaces."""
    return re.sub(r"[^\n]", " ", text)


def without_comments(text, strings=False):
    """The code alone, with every character where it was."""
    def replace(match):
        if match["comment"] is not None:
            return blank(match[0])
        return match[0] if strings else '"' + blank(match[0])[2:] + '"'
    return TOKEN.sub(replace, text)


def closing(code, start):
    """The position of the brace that closes the one at `start`."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(code, start):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    return len(code)


def without_tests(code):
    """Blanks every item under `#[cfg(test)]`; returns the code and the names of the test modules in other files."""
    modules = []
    while match := re.search(r"#\[cfg\((?:all\()?test\b[^\]]*\]", code):
        rest = re.compile(r"(?:\s*#\[[^\]]*\])*").match(code, match.end()).end()
        end = re.compile(r"[;{]").search(code, rest)
        if end is None:
            break
        stop = end.start() if end[0] == ";" else closing(code, end.start())
        if module := re.match(r"\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;", code[rest:stop + 1]):
            modules.append(module[1])
        code = code[:match.start()] + blank(code[match.start():stop + 1]) + code[stop + 1:]
    return code, modules


class File:
    def __init__(self, root, path, package, folder):
        self.path = path
        self.package = package
        self.text = (root / path).read_text()
        self.code, self.test_modules = without_tests(without_comments(self.text))
        inside = pathlib.PurePath(path).relative_to(folder).with_suffix("")
        parts = list(inside.parts)
        self.binary = folder == "crates/trainer/src" and parts == ["main"] or parts[0] == "bin"
        if parts[-1] in ("lib", "mod") or parts == ["main"]:
            parts.pop()
        self.module = (package, *parts)
        self.room = str(pathlib.PurePath(path).parent)


def expand(tree, prefix=()):
    """All (path, alias) of a `use` tree."""
    tree = tree.strip()
    if not tree:
        return
    if "{" in tree:
        head, body = tree.split("{", 1)
        body = body[:body.rindex("}")]
        prefix = (*prefix, *[part for part in head.replace(" ", "").split("::") if part])
        depth, item = 0, ""
        for character in body:
            depth += (character == "{") - (character == "}")
            if character == "," and depth == 0:
                yield from expand(item, prefix)
                item = ""
            else:
                item += character
        yield from expand(item, prefix)
        return
    path, _, alias = tree.partition(" as ")
    path = (*prefix, *[part.strip() for part in path.split("::") if part.strip()])
    if path[-1] == "self":
        path = path[:-1]
    yield path, alias.strip() or path[-1]


class Package:
    """The product files of all packages, and who imports whom."""

    def __init__(self, root):
        files = []
        for package, folder in PACKAGES.items():
            for path in sorted((root / folder).rglob("*.rs")):
                files.append(File(root, str(path.relative_to(root)), package, folder))
        tests = set()
        for file in files:
            tests.update((*file.module, name) for name in file.test_modules)
        is_test = lambda file: any(file.module[:n] in tests for n in range(2, len(file.module) + 1))
        self.tests = [file for file in files if is_test(file)]
        self.files = [file for file in files if not is_test(file)]
        self.modules = {}
        for file in self.files:
            # `main.rs` beside `lib.rs` is a crate of its own; its modules are found by their own
            # paths.
            if file.path.endswith("src/main.rs") and file.module in self.modules:
                continue
            if file.path.endswith("lib.rs") or file.module not in self.modules:
                self.modules[file.module] = file
        self.arrows, self.to_parents, self.parents = collections.defaultdict(set), {}, collections.defaultdict(set)
        for file in self.files:
            self.read_imports(file)

    def resolve(self, file, path, aliases):
        """The module that `path` names an item of, and whether `path` is a module itself; or nothing."""
        first, rest = path[0], path[1:]
        if first == "crate":
            base = (file.package,)
        elif first in ("self", "super"):
            base = file.module
            rest = path
            while rest and rest[0] in ("self", "super"):
                base, rest = (base[:-1] if rest[0] == "super" else base), rest[1:]
        elif first in aliases:
            base = aliases[first]
        elif first in PACKAGES:
            base = (first,)
        elif first in ALIASES and (*file.module, first) not in self.modules:
            base = (ALIASES[first],)
        elif (*file.module, first) in self.modules:
            base = (*file.module, first)
        else:
            return None
        while rest and (*base, rest[0]) in self.modules or rest and rest[0] in ALIASES and len(base) == 1:
            base = (ALIASES[rest[0]],) if rest[0] in ALIASES else (*base, rest[0])
            rest = rest[1:]
        if base not in self.modules:
            return None
        return base, not rest

    def read_imports(self, file):
        code, aliases, used = file.code, {}, []
        for use in re.finditer(r"\buse\s+([^;]+);", code):
            line = code.count("\n", 0, use.start()) + 1
            for path, alias in expand(use[1]):
                target = self.resolve(file, path, {})
                if target and target[1] and alias != "*":
                    aliases[alias] = target[0]
                elif target:
                    used.append((target[0], line))
        body = re.sub(r"\buse\s+[^;]+;", lambda match: blank(match[0]), code)
        for path in re.finditer(r"(?<![\w:])(?:\w+\s*::\s*)+\w+", body):
            target = self.resolve(file, tuple(re.split(r"\s*::\s*", path[0])), aliases)
            if target:
                used.append((target[0], body.count("\n", 0, path.start()) + 1))
        for module, line in used:
            other = self.modules[module]
            if other is file or other.module == file.module:
                continue
            if len(module) < len(file.module) and file.module[:len(module)] == module:
                self.to_parents.setdefault((file.path, other.path), line)
                self.parents[file.path].add(other.path)
            else:
                self.arrows[file.path].add(other.path)

    def upward(self):
        """Imports from a parent that itself needs the importing file. Other parents are below their children."""
        for (start, parent), line in self.to_parents.items():
            if start in self.reachable(parent):
                yield start, line, f"imports from `{parent}`, which needs this file"

    @functools.cache
    def reachable(self, start):
        seen, rest = set(), [start]
        while rest:
            node = rest.pop()
            for other in self.arrows.get(node, set()) | self.parents[node]:
                if other not in seen:
                    seen.add(other)
                    rest.append(other)
        return seen

    def circles(self):
        """Strongly connected files, upward imports left out (those are counted by themselves)."""
        index, low, stack, on, found = {}, {}, [], set(), []
        sys.setrecursionlimit(10_000)

        def visit(node):
            index[node] = low[node] = len(index)
            stack.append(node)
            on.add(node)
            for other in sorted(self.arrows[node]):
                if other not in index:
                    visit(other)
                    low[node] = min(low[node], low[other])
                elif other in on:
                    low[node] = min(low[node], index[other])
            if low[node] == index[node]:
                circle = []
                while True:
                    circle.append(stack.pop())
                    on.discard(circle[-1])
                    if circle[-1] == node:
                        break
                if len(circle) > 1:
                    found.append(sorted(circle))

        for file in self.files:
            if file.path not in index:
                visit(file.path)
        return found

    def rooms(self):
        """For each folder: its entries (files and folders), and the arrows between them."""
        rooms = {}
        for folder in sorted({room for file in self.files for room in [file.room]}):
            entry = functools.partial(entry_of, folder)
            entries = {entry(file.path) for file in self.files} - {None}
            arrows = {
                (entry(start), entry(end))
                for start, ends in self.arrows.items() for end in ends
                if entry(start) and entry(end) and entry(start) != entry(end)
            }
            if len(entries) > 1:
                rooms[folder] = (len(entries), len(arrows))
        return rooms


def entry_of(folder, path):
    """The entry of `folder` that holds `path`; its own mod.rs or lib.rs is not an entry."""
    if not path.startswith(folder + "/"):
        return None
    entry = path[len(folder) + 1:].split("/")[0].removesuffix(".rs")
    return None if entry in ("mod", "lib", "main") else entry


def long_functions(path, code):
    for match in re.finditer(r"\bfn\s+(\w+)", code):
        brace = re.compile(r"[{;]").search(code, match.end())
        # An array type in a signature holds a `;`.
        while brace and brace[0] == ";" and code.count("[", match.end(), brace.start()) > code.count("]", match.end(), brace.start()):
            brace = re.compile(r"[{;]").search(code, brace.end())
        if brace is None or brace[0] == ";":
            continue
        first = code.count("\n", 0, match.start()) + 1
        last = code.count("\n", 0, closing(code, brace.start())) + 1
        if last - first + 1 > LONGEST_FUNCTION:
            yield path, first, f"function `{match[1]}` has {last - first + 1} lines"


# --- comments and words

COMMENT = {".rs": r"\s*//|.*\s// ", ".sql": r"\s*--", ".py": r"\s*#", ".sh": r"\s*#", ".toml": r"\s*#", ".yml": r"\s*#", ".yaml": r"\s*#"}
NOT_WRITTEN_HERE = re.compile(r"^(Cargo\.lock|openapi\.yaml|\.sqlx/|LICENSE|docs/glossary\.md)|\.(svg|json|safetensors|bin|png|patch)$")


def texts(root):
    """Every text file that is written by hand, by its path."""
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True)
    for name in names.stdout.splitlines():
        path = root / name
        if NOT_WRITTEN_HERE.search(name) or not path.is_file() or path.is_symlink():
            continue
        try:
            yield name, path.read_text()
        except UnicodeDecodeError:
            continue


def long_comments(name, text):
    pattern = COMMENT.get(pathlib.PurePath(name).suffix)
    for number, line in enumerate(text.splitlines() if pattern and name != "openapi.yaml" else [], 1):
        if len(line) > LONGEST_COMMENT and re.match(pattern, line) and not re.search(r"https?://\S{40}", line):
            yield name, number, f"comment has {len(line)} columns"


def fragments(name, text):
    """Doc comments that begin with Of, What or Whether."""
    before = ""
    for number, line in enumerate(text.splitlines() if name.endswith(".rs") else [], 1):
        line = line.strip()
        match = re.match(r"//[/!] (Of|What|Whether)\b", line)
        if match and not before.startswith(line[:3]):
            yield name, number, f"doc comment begins with `{match[1]}`"
        before = line


def banned_words(root):
    """The words in `code` of the last column of the glossary, as one pattern."""
    words = []
    for line in (root / "docs/glossary.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3:
            words += re.findall(r"`([^`]+)`", cells[2])
        elif line.startswith("`") or "not used:" in line:
            words += re.findall(r"`([^`]+)`", line)
    patterns = []
    for word in words:
        # Parts of names count as words: `WordTrainer`, `word_trainer`, `warmWord`.
        body = re.escape(word).replace(r"\ ", r"[\s_-]+")
        if word.islower():
            first = f"[{body[0]}{body[0].upper()}]"
            body = rf"(?:(?<![A-Za-z]){first}|(?<=[a-z]){body[0].upper()}){body[1:]}"
        else:
            body = rf"(?<![A-Za-z]){body}"
        plural = "" if body.endswith("s") or " " in word else "(?:s|es|d|ed|ing)?"
        patterns.append(rf"{body}{plural}(?![a-z])")
    return re.compile("|".join(patterns))


def words(name, text, pattern):
    if name.endswith((".mjs", ".ts", ".svelte")):
        # A name of the language itself.
        text = re.sub(r"\bPromis[e]\b", "", text)
    # A module of torchvision's.
    text = text.replace("trun" + "k_output", "")
    for number, line in enumerate(text.splitlines(), 1):
        for match in pattern.finditer(line):
            yield name, number, f"`{match[0]}` is not a word of the glossary"


# --- openapi.yaml, line by line: it is generated, so its form is known

def contract(root):
    text = (root / "openapi.yaml").read_text()
    schemas = {}
    _, _, components = text.partition("\ncomponents:\n")
    for match in re.finditer(r"^    (\w+):\n((?:(?:     .*)?\n)*)", components.partition("  schemas:\n")[2].partition("\n  securitySchemes")[0], re.M):
        schemas[match[1]] = match[2]
    referred = set(re.findall(r"\$ref: ['\"]?#/components/schemas/(\w+)", text))
    dangling = [("openapi.yaml", 0, f"`{name}` is referred to and not described") for name in sorted(referred - set(schemas))]
    ids = collections.Counter(re.findall(r"^\s+operationId: (\S+)", text, re.M))
    doubled_ids = [("openapi.yaml", 0, f"operationId `{name}` occurs {count} times") for name, count in ids.items() if count > 1]
    # Two schemas of the same properties, or of the same words, are one schema under two names.
    shapes = collections.defaultdict(list)
    for name, body in schemas.items():
        if name.startswith("List_"):
            continue
        properties = re.findall(r"^        (\w+):$", body.partition("      properties:\n")[2], re.M)
        values = re.findall(r"^      - (\S+)$", body.partition("      enum:\n")[2], re.M)
        if len(properties) > 2 or len(values) > 1:
            shapes[tuple(sorted(properties)), tuple(sorted(values))].append(name)
    doubled = [("openapi.yaml", 0, f"one schema, several names: {', '.join(names)}") for names in shapes.values() if len(names) > 1]
    return schemas, dangling, doubled_ids, doubled


# --- the table

def is_code(line):
    line = line.strip()
    return bool(line) and not line.startswith("//")


def measure(root):
    root = pathlib.Path(root).resolve()
    package = Package(root)
    pattern = banned_words(HERE)
    found = {"comments over 100 columns": [], "doc comments beginning with Of, What, Whether": [], "words that the glossary rules out": []}
    for name, text in texts(root):
        found["comments over 100 columns"] += long_comments(name, text)
        found["doc comments beginning with Of, What, Whether"] += fragments(name, text)
        found["words that the glossary rules out"] += words(name, text, pattern)
    schemas, dangling, doubled_ids, doubled = contract(root)
    violations = {
        "circles between files": [(circle[0], 0, "circle: " + ", ".join(circle)) for circle in package.circles()],
        "upward imports": list(package.upward()),
        f"functions over {LONGEST_FUNCTION} lines": [long for file in package.files for long in long_functions(file.path, file.code)],
        **found,
        "dangling references in openapi.yaml": dangling,
        "doubled operationIds in openapi.yaml": doubled_ids,
    }
    code = {file.path: sum(map(is_code, file.code.splitlines())) for file in package.files}
    test_folders = [root / "tests", *(root / "crates").glob("*/tests")]
    test_files = {str(path.relative_to(root)) for folder in test_folders for path in folder.rglob("*.rs")} | {file.path for file in package.tests}
    numbers = {
        "product files": len(package.files),
        "lines of product code (without tests, comments, blank lines)": sum(code.values()),
        **{f"… of these in `{folder}`": sum(lines for path, lines in code.items() if path.startswith(folder + "/")) for folder in PACKAGES.values()},
        "lines of product files (without test items)": sum(
            len(file.text.splitlines()) - sum(1 for before, after in zip(without_comments(file.text).splitlines(), file.code.splitlines()) if before.strip() and not after.strip())
            for file in package.files),
        "test functions over 70 lines": sum(1 for path in test_files for _ in long_functions(path, without_comments((root / path).read_text()))),
        "product files over 300 lines": sum(len(file.text.splitlines()) > 300 for file in package.files),
        "schemas in openapi.yaml": len(schemas),
        "schemas of the same shape under several names": len(doubled),
    }
    return package, numbers, violations, doubled


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=HERE)
    parser.add_argument("--before")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("paths", nargs="*")
    args = parser.parse_args()
    after = measure(args.root)
    before = measure(args.before) if args.before else None
    chosen = lambda path: not args.paths or any(path == p or path.startswith(p.rstrip("/") + "/") for p in args.paths)
    counts = lambda measured: {name: sum(chosen(path) for path, _, _ in found) for name, found in measured[2].items()}

    def table(head, first, second):
        names = list(dict.fromkeys([*(first or {}), *second]))
        print(f"| {head} |" + (" before | after |" if first is not None else " |"))
        print("|---|" + ("---:|---:|" if first is not None else "---:|"))
        for name in names:
            cells = [first.get(name, "")] if first is not None else []
            print(f"| {name} | " + " | ".join(str(cell) for cell in [*cells, second.get(name, "")]) + " |")
        print()

    table("must be 0", before and counts(before), counts(after))
    if not args.paths:
        table("size", before and before[1], after[1])
    show = lambda measured: {f"`{room}`": f"{entries} / {arrows}" for room, (entries, arrows) in measured[0].rooms().items() if chosen(room) or chosen(room + "/")}
    table("room: entries / arrows between them", before and show(before), show(after))
    listed = list(after[2].values())
    if args.list or args.paths:
        listed.append(after[3])
    for path, line, text in sorted(set().union(*listed)):
        if chosen(path):
            print(f"{path}:{line}: {text}" if line else f"{path}: {text}")
    return int(any(counts(after).values()))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        sys.exit(1)
