"""Claims as they travel in executed notebooks: gathered and judged."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlkernels.errors import one_line

CLAIM_MIME = "application/vnd.mlkernels.claim+json"

# the sign and the words carry the verdict; no colour does
VERDICTS = {"holds": "✓", "does not hold": "✗", "not tested here": "○"}

_MARKUP = re.compile(r"[\\`*\[\]<>&|~$]|(?<!\w)_|_(?!\w)")


def claims_of(notebook: dict) -> list[dict]:
    """The claims that an executed notebook measured, each as it was emitted; of one id the last."""
    found = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if claim := output.get("data", {}).get(CLAIM_MIME):
                found.pop(claim["id"], None)
                found[claim["id"]] = claim
    return list(found.values())


def broken(claims: Sequence[dict]) -> list[dict]:
    """The claims that were expected to hold and do not.

    Example:
        >>> broken([{"id": "a", "verdict": "does not hold", "expected_to_hold": False}])
        []
    """
    return [claim for claim in claims if claim["verdict"] == "does not hold" and claim.get("expected_to_hold", True)]


def markdown_cell(text: object) -> str:
    """A text from anywhere as the cell of a Markdown table, which shows it as it is.

    Example:
        >>> print(markdown_cell("<b>lambda_min</b> | of *x*"))
        \\<b\\>lambda_min\\</b\\> \\| of \\*x\\*
    """
    text = str(text)
    return _MARKUP.sub(lambda mark: f"\\{mark[0]}", " ".join(one_line(text, len(text)).split()))
