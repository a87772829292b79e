"""Rules of accessible pages and notebooks, after jupyterlab-a11y-checker: each gives what breaks it, in words."""

from __future__ import annotations

import itertools
import re
from collections import Counter

SHORT_LINKS = {"here", "click here", "this", "link", "more", "read more", "this link"}
NORMAL, LARGE = 4.5, 3.0  # of contrast, WCAG 2 AA


def heading_faults(levels_and_titles: list[tuple[int, str]]) -> list[str]:
    """One H1 and first, no level skipped, no heading empty, no H2 twice or like the H1."""
    levels = [level for level, _ in levels_and_titles]
    faults = [] if levels.count(1) == 1 else [f"{levels.count(1)} headings of level 1"]
    if levels and levels[0] != 1:
        faults.append(f"begins with a heading of level {levels[0]}")
    faults += [f"empty heading of level {level}" for level, title in levels_and_titles if not title.strip()]
    for (before, _), (level, title) in itertools.pairwise(levels_and_titles):
        if level > before + 1:
            faults.append(f"{title!r} of level {level} follows level {before}")
    counts = Counter(title.strip() for level, title in levels_and_titles if level <= 2)
    return faults + [f"{title!r} stands {count} times" for title, count in counts.items() if count > 1]


def link_faults(text: str, address: str, name: str = "") -> list[str]:
    """A link's text, or its name, says where it leads."""
    said = " ".join((text or name).split())
    if not said:
        return [f"a link to {address} without a text"]
    if said.lower().rstrip(".") in SHORT_LINKS or re.match(r"https?://|www\.", said):
        return [f"a link to {address} says {said!r}"]
    return []


def page_faults(soup) -> list[str]:
    """What breaks the rules in a page (BeautifulSoup)."""
    faults = [] if (soup.find("html") or {}).get("lang") else ["no language"]
    faults += [] if soup.find("title") and soup.find("title").get_text().strip() else ["no title"]
    titles = [(int(tag.name[1]), _title(tag)) for tag in soup.find_all(re.compile(r"^h[1-6]$"))]
    faults += heading_faults(titles)
    for image in soup.find_all("img"):
        if not image.get("alt", "").strip():
            faults.append(f"no alt text: {str(image)[:80]}")
    for link in soup.find_all("a"):
        if "anchor-link" in link.get("class", []):
            continue  # not shown; each heading is a target
        image = link.find("img")
        name = link.get("aria-label", "") or (image.get("alt", "") if image else "")
        faults += link_faults(link.get_text(), link.get("href", ""), name)
    for table in soup.find_all("table"):
        where = " ".join(table.get_text().split())[:60]
        if not (table.find("caption") and table.find("caption").get_text().strip()):
            faults.append(f"a table without caption: {where}")
        if not table.find("th"):
            faults.append(f"a table without header cells: {where}")
        faults += [f"an empty header cell: {where}" for th in table.find_all("th") if not th.get_text().strip()]
        faults += [f"a header cell without scope: {where}" for th in table.find_all("th") if not th.get("scope")]
    for control in soup.find_all(["input", "select", "textarea"]):
        if not (control.get("aria-label") or soup.find("label", attrs={"for": control.get("id")})):
            faults.append(f"a control without label: {str(control)[:80]}")
    ids = Counter(tag["id"] for tag in soup.find_all(id=True))
    return faults + [f"the id {name!r} stands {count} times" for name, count in ids.items() if count > 1]


def _title(tag) -> str:
    return tag.get_text().replace("¶", "").strip()


def notebook_faults(cells) -> list[str]:
    """What breaks the rules in a notebook's own text."""
    text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    faults = heading_faults([(len(marks), title) for marks, title in re.findall(r"^(#+)\s+(.*)$", text, re.M)])
    faults += [f"no alt text: {image}" for image in re.findall(r"!\[\s*\]\([^)]*\)|<img(?![^>]*alt=)[^>]*>", text)]
    for said, address in re.findall(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", text):
        faults += link_faults(said, address)
    rows = re.findall(r"^(\|.*\|)\s*\n\|[-:| ]+\|\s*$", text, re.M)
    faults += [f"an empty header cell: {row}" for row in rows if re.search(r"\|\s*\|", row)]
    bare = re.sub(r"\]\([^)]*\)|`[^`]*`|\$[^$]*\$", "", text)
    return faults + [f"a bare address: {address}" for address in re.findall(r"https?://\S+", bare)]


def luminance(colour: str) -> float:
    """Of `#rgb` or `#rrggbb`, as WCAG counts it."""
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(ink: str, paper: str) -> float:
    """Between two colours, 1 to 21."""
    low, high = sorted((luminance(ink), luminance(paper)))
    return (high + 0.05) / (low + 0.05)


# Texts of a page whose contrast is below what WCAG 2 AA asks, as [text, ink, paper, ratio].
FAINT = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const numbers = (colour) => {
    if (known.has(colour)) return known.get(colour);
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    known.set(colour, [r, g, b, a / 255]);
    return known.get(colour);
  };
  const linear = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const bright = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const paper = (node) => {
    if (!node) return [255, 255, 255];
    const own = numbers(getComputedStyle(node).backgroundColor);
    return own[3] === 1 ? own : over(own, paper(node.parentElement));
  };
  const faint = new Map();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), node = walker.currentNode.parentElement;
    const skip = "script, style, noscript, .MathJax, .MathJax_Preview, :disabled, .mlk-live, .anchor-link";
    if (!text || node.closest(skip) || !node.getClientRects().length) continue;
    const look = getComputedStyle(node), below = paper(node);
    const ink = over(numbers(look.color), below);
    const [low, high] = [bright(ink), bright(below)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05), size = parseFloat(look.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(look.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) faint.set(look.color + below, [text.slice(0, 40), look.color, String(below), ratio]);
  }
  return [...faint.values()];
}"""

# What is wider than what holds it, as its first letters: on paper nobody can scroll.
CUT = """() => [...document.querySelectorAll("main pre, main table, .MathJax_Display")]
  .filter((node) => node.getClientRects().length && node.scrollWidth > node.clientWidth + 1)
  .map((node) => node.textContent.slice(0, 60))"""
