"""Write one page an objective under docs/objectives/ from the docstrings of `graphcl.functional`.

python docs/build_objectives.py            write the pages
python docs/build_objectives.py --check    only say which differ; exit status 1 if any does
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

from graphcl import functional, losses
from graphcl.losses.catalogue import CATALOGUE

FOLDER = Path(__file__).parent / "objectives"

#: Public functions that are parts of objectives, draws, schedules or measures.
PIECES = frozenset(
    [
        "assignment_divergence",
        "attention_pool",
        "bacon_log_prior",
        "bacon_sampling_rate",
        "bad_pair_weights",
        "cluster_density",
        "compose_stages",
        "contrastive_regularizer",
        "diagonal_rescale",
        "draw_hard_mixtures",
        "draw_mixed_pairs",
        "draw_mixing",
        "draw_noise_events",
        "event_score",
        "extrapolate_positives",
        "gamma_schedule",
        "group_whiten",
        "hallucinate",
        "hard_negatives",
        "interpolate_negatives",
        "kmeans",
        "meta_node_repulsion",
        "mix_batch",
        "mix_rows",
        "nearest_centers",
        "nearest_centroids",
        "neighbor_attraction",
        "path_similarity",
        "perturb_rows",
        "principal_direction",
        "quality_weights",
        "reduce_anchors",
        "sample_cluster_negatives",
        "sample_cluster_positives",
        "sbcl_class_temperature",
        "sbcl_subclusters",
        "soft_top_k_threshold",
        "student_t_assignment",
        "target_distribution",
        "tolerance",
        "tree_paths",
        "unigram_log_probabilities",
    ]
)

CONFIDENCE = {
    "V": "verified: the released code was executed and agrees in value and gradient",
    "T": "transcribed: the released loss lines were typed into a function and compared; the released file was not run",
    "C": "code read: the formula was taken from public code that was read but not executed end to end",
    "P": "paper: the formula as printed; no code was executed",
    "U": "uncertain: reconstructed from the abstract or a secondary description; the form here is this package's "
    "convention, not the authors' exact loss",
}
MEMORY = {
    "S": "streams: exact value and gradient in O((N + C) d), one pass over blocks of pairs",
    "S2": "streams in a few passes over blocks of pairs: O((N + C) d)",
    "M": "moments: O((N + C) d + d²), no pair is formed",
    "L": "listed pairs only: O(E d)",
    "D": "a dense part that is small by construction, never N × N",
    "X": "keeps numbers for pairs of a small side, such as steps of a series",
}
REQUIRED = ("Args", "Returns", "Raises", "Complexity", "Example")


@dataclass(frozen=True)
class Objective:
    """What a page shows.

    Attributes:
        sections: ``Args``, ``Returns``, ``Raises``, ``Complexity`` and ``Example`` as written.
        notes: what the head of the docstring says besides the other fields.
    """

    name: str
    purpose: str
    paper: str
    use: str
    formulas: tuple[str, ...]
    confidence: str
    notes: str
    sections: dict[str, str]

    def missing(self) -> list[str]:
        """Names of the parts that the docstring lacks."""
        fields = {"purpose": self.purpose, "when to use it": self.use, "formula": "".join(self.formulas)}
        lacking = [name for name, text in fields.items() if not text]
        lacking += [name for name in REQUIRED if not self.sections.get(name)]
        if self.confidence[:1] not in CONFIDENCE:
            lacking.append("confidence")
        if not (self.paper or "this package" in f"{self.confidence} {self.notes}"):
            lacking.append("paper, or a word that the form is this package's")
        return lacking


def read(name: str) -> Objective:
    """The docstring of an objective, taken apart."""
    text = inspect.getdoc(getattr(functional, name)) or ""
    head, sections = _sections(text)
    purpose, _, rest = head.partition("\n\n")
    formulas: list[str] = []

    def keep_formula(found: re.Match[str]) -> str:
        # A blank line within the directive separates equations.
        formulas.extend(" ".join(part.replace("`", "").split()) for part in re.split(r"\n[ ]*\n", found[1]))
        return ""

    rest = re.sub(r"^\.\. math::(.*(?:\n(?:[ ]+\S.*|[ ]*(?=\n[ ]+\S)))*)", keep_formula, rest, flags=re.MULTILINE)
    # Statements of confidence stand at the end of either the paper or the docstring.
    statements: list[str] = []

    def keep_confidence(found: re.Match[str]) -> str:
        statements.append(" ".join(found[1].split()))
        return ""

    confidence = re.compile(r"Confidence:\s+(.*?)(?:\.(?=\s)|\.?\Z)", re.DOTALL)
    rest = confidence.sub(keep_confidence, rest)
    for section in sections:
        sections[section] = confidence.sub(keep_confidence, sections[section]).strip()
    paper, use, notes = "", [], []
    for paragraph in filter(None, (" ".join(part.split()) for part in re.split(r"\n\s*\n", rest))):
        kept = []
        for sentence in _sentences(paragraph):
            if sentence.startswith("Use "):
                use.append(sentence)
            elif not paper and re.search(r'"|https?://|\(\d{4}\)', sentence):
                paper = sentence
            else:
                kept.append(sentence)
        notes.append(" ".join(kept))
    return Objective(
        name,
        " ".join(purpose.split()),
        paper,
        " ".join(use),
        tuple(formulas),
        " ".join(statements),
        "\n\n".join(filter(None, notes)),
        sections,
    )


def _sections(text: str) -> tuple[str, dict[str, str]]:
    """Head of a docstring, and its sections by name."""
    parts = re.split(r"^(Args|Returns|Raises|Complexity|Shapes):", text, flags=re.MULTILINE)
    sections = {name: inspect.cleandoc(body) for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    head = parts[0]
    for name, body in [("", head), *sections.items()]:
        before, mark, example = body.partition(">>> ")
        if mark:
            if name:
                sections[name] = before.strip()
            else:
                head = before
            sections["Example"] = mark + example.strip()
            break
    return head.strip(), sections


def _sentences(paragraph: str) -> list[str]:
    """Split after full stops, except those of initials."""
    # A leading space lets the pattern see an initial that opens the paragraph.
    return [part.strip() for part in re.split(r"(?<=\.)(?<![ .\-(][A-Z]\.)\s+(?=[A-Z:`\"])", f" {paragraph}")]


def _arguments(section: str) -> Iterator[tuple[str, str]]:
    """Names and descriptions of an ``Args`` section."""
    for entry in re.split(r"\n(?=\S)", section):
        name, _, description = entry.partition(":")
        yield name.strip(), " ".join(description.split())


def _markdown(text: str) -> str:
    """Inline roles of docstrings in Markdown, with links between objectives."""
    text = re.sub(r":math:`([^`]*)`", r"$\1$", text)
    text = re.sub(r"``([^`]*)``", "\x00\\1\x00", text)
    text = re.sub(r"`(?:graphcl\.functional\.)?(\w+)`", _link, text)
    return text.replace("\x00", "`")


def _link(found: re.Match[str]) -> str:
    name = found[1]
    return f"[`{name}`]({name}.md)" if name in CATALOGUE else f"`{name}`"


def _module_of(name: str) -> str | None:
    """The class in `graphcl.losses` whose docstring points to this function."""
    for public in losses.__all__:
        value = getattr(losses, public)
        if inspect.isclass(value) and re.search(
            rf"`graphcl\.functional\.{name}`", (value.__doc__ or "").split("Args")[0]
        ):
            return public
    return None


def page(name: str) -> str:
    """The Markdown page of an objective."""
    one = read(name)
    entry = CATALOGUE[name]
    function = getattr(functional, name)
    module = _module_of(name)
    letter = one.confidence[:1]
    source = Path(inspect.getsourcefile(function) or "").name
    lines = [f"# {name}", "", _markdown(one.purpose), "", "| | |", "|---|---|"]
    lines.append(f"| paper | {_markdown(one.paper) or 'none named'} |")
    statement = one.confidence[1:].lstrip(" ,;").strip()
    lines.append(
        f"| confidence | **{letter}**, {CONFIDENCE[letter]}{f'; here: {_markdown(statement)}' if statement else ''} |"
    )
    lines.append(f"| memory | **{entry.tag}**, {MEMORY[entry.tag]} |")
    if module:
        lines.append(f"| module | `graphcl.losses.{module}` |")
    lines += [f"| source | [`graphcl/functional/{source}`](../../graphcl/functional/{source}) |", ""]
    lines += ["## When to use it", "", _markdown(one.use), "", "## Formula", ""]
    for formula in one.formulas:
        lines += ["```math", formula, "```", ""]
    if one.notes:
        lines += [_markdown(one.notes), ""]
    lines += ["## Arguments", "", "| argument | default | |", "|---|---|---|"]
    parameters = inspect.signature(function).parameters
    for names, description in _arguments(one.sections.get("Args", "")):
        defaults = [
            repr(parameters[part].default)
            for part in re.split(r",\s*", names)
            if part in parameters and parameters[part].default is not inspect.Parameter.empty
        ]
        shown = ", ".join(f"`{part}`" for part in re.split(r",\s*", names))
        lines.append(
            f"| {shown} | {', '.join(f'`{value}`' for value in dict.fromkeys(defaults))} | {_cell(description)} |"
        )
    for section in ("Returns", "Raises", "Complexity"):
        lines += ["", f"## {section}", "", _markdown(" ".join(one.sections.get(section, "").split()))]
    lines += ["", "## Example", "", "```python", f"from graphcl.functional import {name}", ""]
    lines += [one.sections.get("Example", ""), "```", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return _markdown(text).replace("|", "\\|")


def index() -> str:
    """The page that lists all objectives."""
    lines = [
        "# Objectives",
        "",
        "Written from the docstrings by `docs/build_objectives.py`.",
        "",
        "Confidence: " + "; ".join(f"**{letter}** {text.split(':')[0]}" for letter, text in CONFIDENCE.items()) + ".",
        "",
        "Memory: " + "; ".join(f"**{tag}** {text.split(':')[0]}" for tag, text in MEMORY.items()) + ".",
        "",
        "Measured: [time and memory](../../benchmarks/results/losses.md) of a step beside the dense form and"
        " pytorch-metric-learning; [peak memory at 65,536 rows](../../benchmarks/results/losses_memory.md);"
        " [planned against measured memory](../../benchmarks/results/losses_plan.md).",
        "",
        "| objective | purpose | memory | confidence |",
        "|---|---|---|---|",
    ]
    for name, entry in sorted(CATALOGUE.items()):
        one = read(name)
        lines.append(f"| [`{name}`]({name}.md) | {_cell(one.purpose)} | {entry.tag} | {one.confidence[:1]} |")
    lines += ["", "## Pieces of objectives", "", "| function | purpose |", "|---|---|"]
    for name in sorted(PIECES):
        purpose = (inspect.getdoc(getattr(functional, name)) or "").partition("\n\n")[0]
        lines.append(f"| `graphcl.functional.{name}` | {_cell(' '.join(purpose.split()))} |")
    return "\n".join([*lines, ""])


def public_functions() -> set[str]:
    """Names of the functions that `graphcl.functional` exports."""
    return {name for name in functional.__all__ if isinstance(getattr(functional, name), FunctionType)}


def pages() -> dict[str, str]:
    """Every page by file name."""
    return {"README.md": index(), **{f"{name}.md": page(name) for name in CATALOGUE}}


def stale() -> list[str]:
    """Files that differ from what the docstrings say, are missing, or are left over."""
    wanted = pages()
    written = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    return sorted(name for name in wanted.keys() | written.keys() if wanted.get(name) != written.get(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is out of date")
    arguments = parser.parse_args()
    for name in CATALOGUE:
        lacking = read(name).missing()
        if lacking:
            print(f"{name}: the docstring lacks {', '.join(lacking)}", file=sys.stderr)
    if arguments.check:
        names = stale()
        print("\n".join(names) or "all pages are up to date")
        sys.exit(1 if names else 0)
    FOLDER.mkdir(exist_ok=True)
    wanted = pages()
    for path in FOLDER.glob("*.md"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"{len(wanted)} pages in {FOLDER}")


if __name__ == "__main__":
    main()
