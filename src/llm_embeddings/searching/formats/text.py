"""Text, Markdown, LaTeX and source code -> sections, each line with its number."""

from __future__ import annotations

import re

from ..decoding import decode
from ..outline import FileContent, Outline, split_lines

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-{3,})[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_LATEX = re.compile(
    r"\s*\\(part|chapter|(?:sub){0,2}section)\*?(?:\[[^]]*\])?\{(.*?)\}\s*(?:%.*)?$"
)
_LATEX_LEVELS = ("part", "chapter", "section", "subsection", "subsubsection")
# A line that begins a definition in one of the common languages.
_DEFINITION = re.compile(
    r"(?:(?:export|default|pub(?:\([\w ]+\))?|public|private|protected|internal|static|final|"
    r"abstract|async|unsafe|inline|open|override|sealed|data|extern|const)\s+)*"
    r"(?:def|class|function\*?|func|fn|fun|struct|enum|trait|impl|interface|module|namespace|"
    r"type|protocol|extension|object|record|sub|macro_rules!)\s+(?=[\w(<~$:'\"])"
)
_LONGEST_NAME = 100
# Colours and cursor movements of terminals, titles of windows.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_=>])")


def read_text(data: bytes) -> FileContent:
    """Plain text, without escape codes of terminals."""
    text, note = _decoded(data)
    outline = Outline()
    for number, line in enumerate(split_lines(text), 1):
        outline.line(number, line)
    return FileContent(outline.sections, note)


def read_markdown(data: bytes) -> FileContent:
    """Markdown under its headings; a # in a fence or in front matter is none."""
    text, note = _decoded(data)
    lines = split_lines(text)
    outline = Outline()
    fence = ""
    matter = lines.index("---", 1) + 1 if lines[0] == "---" and "---" in lines[1:] else 0
    for number, line in enumerate(lines, 1):
        marker = _FENCE.match(line)
        if number > matter and marker and (not fence or marker[1].startswith(fence)):
            fence = "" if fence else marker[1]
        elif number > matter and not fence:
            if found := _HEADING.match(line):
                outline.heading(len(found[1]), found[2] or "", number)
                continue
            if _underlined(lines, number):
                outline.heading(1 if "=" in lines[number] else 2, line.strip(), number)
                continue
            if number > matter + 1 and _underlined(lines, number - 1):
                continue
        outline.line(number, line)
    return FileContent(outline.sections, note)


def read_latex(data: bytes) -> FileContent:
    """LaTeX under its parts, chapters and sections, its commands as they are."""
    text, note = _decoded(data)
    outline = Outline()
    for number, line in enumerate(split_lines(text), 1):
        if found := _LATEX.match(line):
            outline.heading(_LATEX_LEVELS.index(found[1]), found[2].strip(), number)
        else:
            outline.line(number, line)
    return FileContent(outline.sections, note)


def read_code(data: bytes) -> FileContent:
    """Source code under the definitions that begin at the left margin; all lines are kept."""
    text, note = _decoded(data)
    outline = Outline()
    for number, line in enumerate(split_lines(text), 1):
        if _DEFINITION.match(line):
            outline.heading(1, line.strip().rstrip("{:").rstrip()[:_LONGEST_NAME], number)
        outline.line(number, line)
    return FileContent(outline.sections, note)


def _decoded(data: bytes) -> tuple[str, str]:
    text, note = decode(data)
    return (_ESCAPES.sub("", text) if "\x1b" in text else text), note


def _underlined(lines: list[str], number: int) -> bool:
    """Whether line `number`, from 1, is a heading, underlined by = or - in the next line."""
    if number >= len(lines) or not _UNDERLINE.match(lines[number]):
        return False
    alone = number < 2 or not lines[number - 2].strip()
    return alone and bool(re.match(r" {0,3}[^\s|>*+-]", lines[number - 1]))
