"""A gallery of the demos: a folder of HTML files and pictures that a browser opens from the disk, without a server.

index.html shows every demo with one picture and its main figures; behind each is a page with its idea, the command, the
table of metrics beside references and bars, all pictures, and its source.
"""

import ast
import shutil
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from demos.catalogue import Entry
from demos.learning_path import Result, headlines, representative, took
from demos.report import in_words
from tinygen.files import atomic, make_folder, write_text


def write(folder: Path, exhibits: Sequence[tuple[Entry, Result]]) -> Path:
    """Writes the gallery of those demos into `folder`; the page to open."""
    make_folder(folder / "pictures")
    with atomic(folder / "gallery.css") as temporary:
        shutil.copyfile(Path(__file__).with_suffix(".css"), temporary)
    for entry, result in exhibits:
        for name, path in result.pictures.items():
            with atomic(folder / "pictures" / f"{entry.name}_{name}") as temporary:
                shutil.copyfile(path, temporary)
        write_text(folder / f"{entry.name}.html", exhibit(entry, result))
        write_text(folder / f"{entry.name}.source.html", source(entry))
    write_text(folder / "index.html", index(exhibits))
    return folder / "index.html"


def index(exhibits: Sequence[tuple[Entry, Result]]) -> str:
    """The page with all demos."""
    cards = "\n".join(f"<li>{_card(entry, result)}</li>" for entry, result in exhibits)
    body = f"""<h1>tinygen: the learning path</h1>
<p>Generative models, one idea a page: what each was trained on, what it learned, and how that was measured.</p>
<ul class="cards">
{cards}
</ul>"""
    return _page("tinygen: the learning path", body)


def _card(entry: Entry, result: Result) -> str:
    face = representative(entry, result)
    image = _image(entry, face) if face else ""
    figures = "".join(f"<li>{escape(line)}</li>" for line in headlines(result.report)[:3])
    return f"""<a href="{entry.name}.html">{image}<b>{entry.demo.number}. {escape(entry.name)}</b></a>
<div>{escape(entry.idea)}</div><ul>{figures}</ul>"""


def exhibit(entry: Entry, result: Result) -> str:
    """The page of one demo."""
    report = result.report
    chapter = ast.get_docstring(ast.parse(entry.path.read_text(encoding="utf-8"))) or entry.idea
    idea, *text = chapter.split("\n\n")
    pictures = "\n".join(
        f"<figure>{_image(entry, name)}<figcaption>{escape(name)}</figcaption></figure>" for name in result.pictures
    )
    body = f"""<p><a href="index.html">The learning path</a></p>
<h1>{entry.demo.number}. {escape(entry.name)}</h1>
<p><b>{escape(idea)}</b></p>
{_lines(map(_prose, text))}
<h2>Run it</h2>
<pre>{escape(command(entry, result))}</pre>
<p>Trains on {escape(report["settings"]["data"] or entry.demo.data)}. Minutes a seed: {escape(took(report))}.
<a href="{entry.name}.source.html">Read the source</a>.</p>
<h2>What was measured</h2>
{_quick_words(report)}{_metrics(report)}
<h2>Pictures</h2>
{pictures or "<p>It draws none.</p>"}"""
    return _page(f"{entry.name}: tinygen", body)


def command(entry: Entry, result: Result) -> str:
    """The command whose results are shown."""
    settings = result.report["settings"]
    given = {
        "--quick": settings["quick"] or None,
        "--steps": settings["steps"] if settings["steps"] != _usual_steps(entry, settings) else None,
        "--seed": settings["seed"] or None,
        "--seeds": settings["seeds"] if settings["seeds"] > 1 else None,
        "--data": settings["data"] if settings["data"] not in (None, *entry.demo.datasets[:1]) else None,
    }
    words = [name if value is True else f"{name} {value}" for name, value in given.items() if value is not None]
    return " ".join(["python -m demos", entry.name, *words])


def _usual_steps(entry: Entry, settings: dict) -> int:
    return entry.demo.quick_steps if settings["quick"] else entry.demo.steps


def _quick_words(report: dict) -> str:
    if not report["settings"]["quick"]:
        return ""
    return "<p><b>A quick run, which shows that everything works: its figures mean little.</b></p>\n"


def _metrics(report: dict) -> str:
    rows = in_words(report["metrics"])
    if not rows:
        return "<p>This demo measured nothing.</p>"
    head = '<th>metric</th><th class="number">value</th><th>reference</th><th>bar</th><th>met</th>'
    return f"""<div class="wide"><table>
<tr>{head}</tr>
{_lines(f'<tr><td>{escape(name)}</td><td class="number">{value}</td>{_cells((reference, bar, met))}</tr>'
        for name, value, reference, bar, met in rows)}
</table></div>"""


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"<td>{escape(text)}</td>" for text in texts)


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(texts)


def source(entry: Entry) -> str:
    """The page with a demo's source."""
    text = entry.path.read_text(encoding="utf-8")
    body = f"""<p><a href="{entry.name}.html">Back to {escape(entry.name)}</a></p>
<h1>{escape(entry.path.name)}</h1>
<pre>{escape(text)}</pre>"""
    return _page(f"{entry.path.name}: tinygen", body)


def _prose(paragraph: str) -> str:
    """A paragraph of a docstring; what is indented, formulas and code, as it stands."""
    kind = "pre" if paragraph.startswith(" ") else "p"
    return f"<{kind}>{escape(paragraph)}</{kind}>"


def _image(entry: Entry, name: str) -> str:
    return f'<img src="pictures/{entry.name}_{escape(name)}" alt="{entry.name}: {escape(name)}" loading="lazy">'


def _page(title: str, body: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="stylesheet" href="gallery.css">
</head>
<body>
{body}
</body>
</html>
"""
