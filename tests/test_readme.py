"""README.md, docs/ and the bundles' pages: links lead somewhere, commands exist, figures agree with the bundles."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "invres3d/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "bundles").glob("*/docs/*.md")),
]
assert len(PAGES) > 12
LINK = re.compile(r"\]\(([^)\s]+)\)")
ROW = re.compile(r"^\| \[(\w+)\]\((bundles/\w+/docs/README\.md)\) \|(.*)\|$", re.MULTILINE)
NUMBER = re.compile(r"\d+\.\d+")


def anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows() -> dict[str, tuple[Path, list[str]]]:
    """README.md's table of bundles: by folder the bundle's own page, and the other cells."""
    found = ROW.findall((ROOT / "README.md").read_text())
    return {f"{name}_segmentation": (ROOT / page, cells.strip().split(" | ")) for name, page, cells in found}


def code(page: Path) -> tuple[str, str]:
    """The blocks of code of a page, and the code within its lines."""
    parts = page.read_text().split("```")
    return "\n".join(parts[1::2]), "\n".join(re.findall(r"`([^`]+)`", "\n".join(parts[::2])))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page):
    broken = []
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not re.match(r"\w+:", link) and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(link)
    assert not broken, f"{page.relative_to(ROOT)}: {broken} lead nowhere; correct the path or the heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_name_what_is_there(page):
    blocks, text = code(page)
    text += "\n" + blocks
    programs = re.findall(r"\b(?:tools|scripts)/[\w/]+\.py\b", text)
    bundles = sorted((ROOT / "bundles").iterdir())
    missing = [name for name in programs if not [*ROOT.glob(name), *ROOT.glob(f"bundles/*/{name}")]]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    missing += [name for name in re.findall(r"^make ([a-z-]+)", text, re.MULTILINE) if name not in targets]
    configs = re.findall(r"configs/(\w+\.json)", blocks)
    missing += [name for name in configs if not [bundle for bundle in bundles if (bundle / "configs" / name).exists()]]
    modules = re.findall(r"-m ((?:bundlekit|invres3d|studies|tools)[\w.]*)", text)
    paths = [ROOT / name.replace(".", "/") for name in modules]
    missing += [str(path) for path in paths if not (path.with_suffix(".py").exists() or path.is_dir())]
    assert not missing, f"{page.relative_to(ROOT)} names {missing}, which are not there"


def test_table_has_every_bundle_once():
    assert list(rows()) and sorted(rows()) == sorted(path.name for path in (ROOT / "bundles").iterdir())
    assert len(ROW.findall((ROOT / "README.md").read_text())) == len(rows())


@pytest.mark.parametrize("bundle", sorted(rows()))
def test_scores_of_the_table_stand_in_the_bundles_own_page(bundle):
    page, (_, _, _, score, _) = rows()[bundle]
    numbers = NUMBER.findall(score)
    missing = sorted(set(numbers) - set(NUMBER.findall(page.read_text())))
    assert numbers and not missing, f"README.md gives {missing} for {bundle}, the bundle's page does not: bring in line"


@pytest.mark.parametrize("bundle", sorted(rows()))
def test_phantom_weights_are_called_so(bundle):
    page, (_, _, trained, score, _) = rows()[bundle]
    of_phantoms = "shipped weights were trained only on phantoms" in page.read_text()
    assert ("**only phantoms**" in trained) == of_phantoms == ("phantoms" in score)


@pytest.mark.parametrize("bundle", sorted(rows()))
def test_parameters_of_the_table_are_those_of_the_network(bundle):
    parser = ConfigParser()
    parser.read_config(ROOT / "bundles" / bundle / "configs/train.json")
    number = sum(weights.numel() for weights in parser.get_parsed_content("network_def").parameters())
    network = rows()[bundle][1][1]
    assert f"{number / 1e6:.1f} M" in network


def test_figures_stand_where_docs_figures_says():
    found = re.findall(r"^\| (.+?) \| \[[^\]]+\]\(([^)]+)\) \|", (ROOT / "docs/figures.md").read_text(), re.MULTILINE)
    missing = []
    for figure, link in found:
        page = ROOT / "docs" / link.partition("#")[0]
        numbers = NUMBER.findall(figure) if page.suffix == ".md" else []
        missing += [(number, link) for number in numbers if number not in NUMBER.findall(page.read_text())]
    assert len(found) > 8 and not missing, f"docs/figures.md: {missing}: the files do not hold these numbers"


OPTION = re.compile(r"^\| (`--.+?) \| ([\w, ]+) \|", re.MULTILINE)
CONFIGS = {"segment": ["inference"], "train": ["train"], "evaluate": ["train", "evaluate"]}


@pytest.mark.parametrize("bundle", sorted(rows()))
def test_options_of_a_page_are_those_of_the_configs(bundle):
    """MONAI ignores an option that the config does not have, so a wrong name on the page would go unnoticed."""
    page, _ = rows()[bundle]
    missing, found = [], OPTION.findall(page.read_text())
    for options, commands in found:
        names = [name for name in CONFIGS if commands == "all" or name in commands]
        for name in names:
            parser = ConfigParser()
            parser.read_config([ROOT / "bundles" / bundle / f"configs/{file}.json" for file in CONFIGS[name]])
            keys = re.findall(r"--([\w#]+)", options)
            missing += [(name, key) for key in keys if key.split("#")[0] not in parser.config]
        assert names, f"{page}: {options} belongs to no command"
    assert len(found) > 8 and not missing, f"{page}: {missing}: the configs have no such option"
