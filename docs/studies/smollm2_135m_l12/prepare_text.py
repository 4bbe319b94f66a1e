"""Write the six novels of Jane Austen as JSON lines, one chapter a line, for the study in this folder.

    apt-get install r-base-core r-cran-janeaustenr
    python prepare_text.py austen.jsonl

The text is in the public domain. It comes from the R package `janeaustenr` (Julia Silge, MIT licence), which took it from
Project Gutenberg; Debian ships the package. Each line is `{"text": ...}`; lines of a paragraph are joined by spaces and
paragraphs are separated by an empty line, as in the web text that language models were trained on.
"""

import json
import re
import subprocess
import sys
from itertools import groupby

READ = """
library(janeaustenr)
books <- austen_books()
writeLines(paste(books$book, books$text, sep = "\\t"))
"""
CHAPTER = re.compile(r"^chapter\b", re.IGNORECASE)
SHORTEST_CHAPTER_CHARS = 200  # title pages and the word "Finis" are not chapters


def main(out: str) -> None:
    """Read the books, cut them into chapters, and write those."""
    lines = subprocess.run(["Rscript", "-e", READ], check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [line.split("\t", 1) for line in lines]
    chapters: list[str] = []
    for _, book in groupby(rows, key=lambda row: row[0]):
        texts: list[list[str]] = [[]]
        for _, text in book:
            if CHAPTER.match(text):
                texts.append([])
            else:
                texts[-1].append(text.strip())
        for text in texts:
            paragraphs = [" ".join(part) for filled, part in groupby(text, key=bool) if filled]
            chapters.append("\n\n".join(paragraphs))
    chapters = [chapter for chapter in chapters if len(chapter) >= SHORTEST_CHAPTER_CHARS]
    with open(out, "w", encoding="utf-8") as file:
        for chapter in chapters:
            file.write(json.dumps({"text": chapter}) + "\n")
    print(f"{out}: {len(chapters)} chapters, {sum(map(len, chapters)):,} characters")


if __name__ == "__main__":
    main(*sys.argv[1:])
