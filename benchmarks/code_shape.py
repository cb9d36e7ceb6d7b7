"""How the source reads, in figures: files, lines, functions, their length, comments, and helpers that are used once.

``python benchmarks/code_shape.py [FOLDER…]`` prints a line per folder and one for all of them together; without folders
it measures ``judge`` and ``calibration``.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median


@dataclass(slots=True)
class Shape:
    """Counts over some files.

    ``lengths`` are those of functions in lines, from ``def`` to the last line. A private function begins with ``_``; it
    is ``private_named_once`` where its file names it at most once besides its definition.
    """

    files: int = 0
    lines: int = 0
    comment_lines: int = 0
    lengths: list[int] = field(default_factory=list)
    private: int = 0
    private_named_once: int = 0
    largest_folder: int = 0

    def add(self, path: Path) -> None:
        """Count one file."""
        source = path.read_text(encoding="utf-8")
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        nodes = list(ast.walk(ast.parse(source)))
        # By the syntax tree: the tokenizer of Python 3.11 takes an f-string for one string, without the names in it.
        named = Counter(
            n.id if isinstance(n, ast.Name) else n.attr for n in nodes if isinstance(n, ast.Name | ast.Attribute)
        )
        functions = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        private = [n.name for n in functions if n.name.startswith("_") and not n.name.endswith("__")]
        self.files += 1
        self.lines += len(source.splitlines())
        self.comment_lines += len({token.start[0] for token in tokens if token.type == tokenize.COMMENT})
        self.lengths += [(n.end_lineno or n.lineno) - n.lineno + 1 for n in functions]
        self.private += len(private)
        self.private_named_once += sum(named[name] <= 1 for name in private)

    def __str__(self) -> str:
        once = f"{self.private_named_once} of {self.private}"
        return (
            f"{self.files} files, at most {self.largest_folder} in a folder, {self.lines} lines, "
            f"{len(self.lengths)} functions, median {median(self.lengths or [0]):g} lines, "
            f"{self.comment_lines / max(self.lines, 1):.1%} of lines with a comment, "
            f"private functions named once in their file: {once} ({self.private_named_once / max(self.private, 1):.1%})"
        )


def measure(folders: list[Path]) -> Shape:
    """The shape of all Python files in some folders."""
    shape = Shape()
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    for file in files:
        shape.add(file)
    shape.largest_folder = max(Counter(file.parent for file in files).values(), default=0)
    return shape


def main() -> None:
    """Print the figures of each folder and of all."""
    root = Path(__file__).resolve().parents[1]
    folders = [Path(name) for name in sys.argv[1:]] or [root / "judge", root / "calibration"]
    for folder in folders:
        print(f"{folder.name}: {measure([folder])}")
    print(f"together: {measure(folders)}")


if __name__ == "__main__":
    main()
