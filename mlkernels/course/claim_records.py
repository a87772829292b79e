"""Claims as they travel in executed notebooks: gathered, judged, shown as a table."""

from __future__ import annotations

from collections.abc import Sequence

CLAIM_MIME = "application/vnd.mlkernels.claim+json"

# the sign and the words carry the verdict; no colour does
VERDICTS = {"holds": "✓", "does not hold": "✗", "not tested here": "○"}


def claims_of(notebook: dict) -> list[dict]:
    """The claims that an executed notebook measured.

    Args:
        notebook: executed.

    Returns:
        Each claim as it was emitted; of one id the last.

    Example:
        >>> claims_of({"cells": []})
        []
    """
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


def claims_table(claims: Sequence[dict]) -> str:
    """The claims as a Markdown table.

    Args:
        claims: of claims.json.

    Returns:
        The table, without a line end; one sentence where there are no claims.

    Example:
        >>> claims_table([])
        'No claims have been measured yet.'
    """
    if not claims:
        return "No claims have been measured yet."
    rows = [["Claim", "Source", "Expected", "Measured", "Verdict", "Notebook"], ["---"] * 6]
    for claim in claims:
        verdict = f"{VERDICTS.get(claim['verdict'], '')} {claim['verdict']}".strip()
        if claim["verdict"] != "holds" and claim.get("why"):
            verdict += f" ({claim['why']})"
        rows.append(
            [*(claim[name] for name in ("statement", "source", "expected", "measured")), verdict, claim["notebook"][:2]]
        )
    return "\n".join(
        "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in row) + " |" for row in rows
    )
