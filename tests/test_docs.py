"""What README and docs say to type is understood, and what they link to is there."""

import re
import shlex
from pathlib import Path

import pytest

from eelbert_jax import cli
from eelbert_jax.errors import UserError

ROOT = Path(__file__).parents[1]
PAGES = {str(page.relative_to(ROOT)): page for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))}


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Return job and words of every command on an indented line."""
    lines = text.replace("\\\n", " ").splitlines()
    found = (re.match(r"    (?:.* )?eelbert ([a-z_]+) +(-.*)", line) for line in lines)
    words = [(match[1], shlex.split(match[2].partition(" > ")[0], comments=True)) for match in found if match]
    return [(job, expanded(of_job)) for job, of_job in words]


def expanded(words: list[str]) -> list[str]:
    """Return words with those of braces, as bash reads them: --config.{a=1,b=2} is two."""
    found = []
    for word in words:
        braces = re.fullmatch(r"(--config\.[\w.]*)\{(.*)\}", word)
        found += [braces[1] + part for part in braces[2].split(",")] if braces else [word]
    return found


def understood(job: str, words: list[str]) -> None:
    """Raise a `UserError` for what there is not, a job, flag, config, recipe or key; "..." is left out."""
    left_out = [word for word in words if word == "..." or (job == "search" and not word.startswith("-"))]
    cli.parse(job, [word for word in words if word not in left_out])


def anchors(page: Path) -> set[str]:
    """Return the names of a page's headings, as GitHub gives them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing_links(page: Path, text: str) -> list[str]:
    """Return what a page of this text links to and is not there."""
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    missing = []
    for link in links:
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        is_there = target.exists() and (not anchor or anchor in anchors(target))
        if "://" not in link and not is_there:
            missing.append(link)
    return missing


@pytest.mark.parametrize("name", PAGES)
def test_every_command_of_a_page_is_understood(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    for job, words in commands(PAGES[name].read_text()):
        understood(job, words)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_of_a_page_leads_somewhere(name):
    assert missing_links(PAGES[name], PAGES[name].read_text()) == []


def test_a_wrong_word_and_a_dead_link_are_noticed():
    assert len(commands((ROOT / "README.md").read_text())) > 15
    [(job, words)] = commands(
        "    tail -f log | eelbert predict --checkpoin=runs/x \\\n      --json    # as it comes"
    )
    assert words == ["--checkpoin=runs/x", "--json"]
    with pytest.raises(UserError, match="--checkpoint"):
        understood(job, words)
    page = ROOT / "README.md"
    found = missing_links(
        page, "[a](docs/none.md) [b](README.md#install) [c](README.md#none) [d](https://e.org)"
    )
    assert found == ["docs/none.md", "README.md#none"]
