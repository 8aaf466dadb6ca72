#!/usr/bin/env python3
"""Checks what the compiler does not: who may include whom, lengths, banned calls, leftover marks.

Usage: tools/tidy.py [--root DIR]      prints one `file:line: message` per finding; exit 1 if any.
Its own tests: tools/tidy_test.py.
"""
import argparse
import pathlib
import re
import subprocess
import sys

# A room may include its own headers and those of the rooms named here. `room/header.h` allows one
# header of a room only: a port header, or a protocol.
MAY_INCLUDE = {
    "base": [],
    "spec": ["base"],
    "planner": ["base", "spec"],
    "reconciler": ["base", "spec", "planner", "tests/sim"],
    "dns": ["base"],
    "files": ["base"],
    "guest": ["base"],
    "image": ["base", "spec", "reconciler/ports/image.h", "reconciler/ports/runtime.h"],
    "builder": ["base", "image", "reconciler/ports/build.h", "reconciler/ports/image.h",
                "reconciler/ports/runtime.h"],
    "network": ["base", "spec", "dns", "reconciler/ports/network.h"],
    "runtime": ["base", "spec", "guest/protocol", "reconciler/ports/runtime.h",
                "reconciler/ports/build.h", "reconciler/ports/network.h"],
    "api": ["base", "spec", "planner", "reconciler", "image", "builder", "network", "dns", "runtime",
            "guest/protocol", "tests/sim"],
    "cli": ["base", "spec", "planner", "api/wire.h", "api/paths.h"],
    "tests": ["base", "spec", "planner", "reconciler", "image", "builder", "network", "dns",
              "runtime", "guest", "files", "api", "cli", "tests"],
    "bench": ["base", "spec", "planner", "reconciler", "image", "builder", "network", "dns",
              "runtime", "guest", "files", "api", "cli"],
}
# Only the reconciler sees both plans and drivers; a port header may name what planner defines.
COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 70
BANNED = [
    (re.compile(r"\b(?:u|nano)?sleep(?:_for|_until)?\s*\("), "sleeping: wait for the event, with a deadline"),
    (re.compile(r"(?<![\w:.])(?:std::)?system\s*\("), "system(): use base::spawn or base::run_process"),
    (re.compile(r"\bstd::cout\b|\bstd::cerr\b"), "iostream output: only cli prints, through fmt"),
    (re.compile(r"\bstrcpy\s*\(|\bsprintf\s*\(|\bstrcat\s*\("), "unbounded copy: use std::string or fmt"),
    (re.compile(r"\bassert\s*\(false"), "assert(false): return an Error, or say why it cannot happen"),
]
# Spelled in two pieces so that this file does not find itself.
MARKS = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
ANY_INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]')
SOURCE_SUFFIXES = {".h", ".cpp", ".c"}


def allowed(room: str, included: str) -> bool:
    if "/" not in included or included.startswith(room + "/"):
        return True
    return any(included == rule or included.startswith(rule + "/")
               for rule in MAY_INCLUDE.get(room, []))


def function_lengths(lines):
    """(line number, length) of every top-level-looking function body, by brace depth.

    clang-format puts the opening brace of a function at the end of its heading and the closing one
    alone in the heading's column, which is all this relies on.
    """
    heading = re.compile(r"^(\s*)[^\s#/].*[\w>&*)]\s*\{\s*$")
    not_function = re.compile(r"^\s*(namespace|struct|class|enum|union|extern|switch|if|for|while|else|do|return|\})\b|=\s*\{\s*$|TEST_CASE")
    open_at = None
    for number, line in enumerate(lines, 1):
        if open_at is None:
            found = heading.match(line)
            if found and "(" in line + "".join(lines[max(0, number - 4):number]) and not not_function.search(line):
                open_at = (number, found.group(1))
        elif line.rstrip() in (open_at[1] + "}", open_at[1] + "};"):
            yield open_at[0], number - open_at[0] + 1
            open_at = None


def without_literals(text: str) -> str:
    """Comments and literals as white space, every line where it was."""
    literal = (r'//[^\n]*|/\*.*?\*/|R"\((?:.|\n)*?\)"|"(?:\\.|[^"\\\n])*"'
               r"|'(?:\\.|[^'\\\n])'")
    return re.sub(literal, lambda found: re.sub(r"[^\n]", " ", found.group()), text, flags=re.S)


class Braces:
    """A pair of braces that is open: a block, or an initializer if no `;` is its own."""

    def __init__(self):
        self.element = 0
        self.is_block = False
        self.tries = []  # (place, element) of each TRY whose function this pair is in


def tries_in_initializers(text: str):
    """Line numbers of each TRY that is not in the first element of an initializer's braces."""
    text = without_literals(text)
    opened, found = [], []  # `opened` holds None for ( and [
    for token in re.finditer(r"[{}()\[\],;]|\bTRY(?:_DURING)?\(", text):
        kind = token.group()
        top = opened[-1] if opened else None
        if kind == "{":
            opened.append(Braces())
        elif kind in "([" or kind.startswith("TRY"):
            if kind.startswith("TRY"):
                for braces in filter(None, opened):
                    braces.tries.append((token.start(), braces.element))
            opened.append(None)
        elif kind in ")]":
            if opened and top is None:
                opened.pop()
        elif kind == "," and top is not None:
            top.element += 1
        elif kind == ";" and top is not None:
            top.is_block = True
        elif kind == "}" and top is not None:
            opened.pop()
            if top.is_block:  # A lambda's, in an initializer: TRY leaves the lambda, not the braces.
                inside = {place for place, _ in top.tries}
                for braces in filter(None, opened):
                    braces.tries = [one for one in braces.tries if one[0] not in inside]
            else:
                found += [place for place, element in top.tries if element > 0]
    return sorted({text.count("\n", 0, place) + 1 for place in found})


def check_own_header(path: str, text: str):
    """The build's header_check leaves out headers that are the first thing their .cpp includes."""
    header = path.removesuffix(".cpp") + ".h"
    for number, line in enumerate(text.split("\n"), 1):
        include = ANY_INCLUDE.match(line)
        if include:
            if include.group(1) != header:
                yield number, (f"includes something before {header}, so nothing shows that it "
                               "compiles alone")
            return
    yield 1, f"does not include {header}"


def check_text(path: str, text: str):
    """Yields (line, message) for one file; `path` is relative to the root."""
    room = path.split("/")[0]
    lines = text.split("\n")
    is_test = path.endswith("_test.cpp") or room == "tests"
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS_MAX and "http" not in line and 'R"' not in line:
            yield number, f"{len(line)} columns, at most {COLUMNS_MAX}"
        if line != line.rstrip():
            yield number, "white space at the end of the line"
        if MARKS.search(line):
            yield number, "a leftover mark: finish it, or write the limit down where users look"
        include = INCLUDE.match(line)
        if include and not allowed(room, include.group(1)) and not is_test:
            yield number, (f"{room}/ may not include {include.group(1)}; "
                           "the directions are in ARCHITECTURE.md")
        code = line.split("//")[0]
        for pattern, reason in BANNED:
            if pattern.search(code):
                yield number, reason
    for number in tries_in_initializers(text):
        yield number, "a TRY after another element in braces: what was made before it would leak"
    if not is_test:
        for number, length in function_lengths(lines):
            if length > FUNCTION_LINES_MAX:
                yield number, f"a function of {length} lines, at most {FUNCTION_LINES_MAX}"
    if path.endswith(".h") and "#pragma once" not in text:
        yield 1, "a header without #pragma once"


def tracked_sources(root: pathlib.Path):
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-co", "--exclude-standard"],
                            check=True, capture_output=True, text=True).stdout.split("\n")
    return [path for path in listed
            if pathlib.Path(path).suffix in SOURCE_SUFFIXES and (root / path).is_file()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent)
    root = parser.parse_args().root
    findings = 0
    for path in tracked_sources(root):
        text = (root / path).read_text(errors="replace")
        found = list(check_text(path, text))
        if path.endswith(".cpp") and (root / path).with_suffix(".h").is_file():
            found += check_own_header(path, text)
        for number, message in found:
            print(f"{path}:{number}: {message}")
            findings += 1
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
