"""The README's table of claims, made from claims.json."""

from __future__ import annotations

from mlkernels.course.claim_records import claims_table
from mlkernels.errors import bad_input
from mlkernels.runner.report import device_line

BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"


def readme_with(readme: str, result: dict) -> str:
    """A README whose block between the claims marks is generated from a claims.json.

    Args:
        readme: its text.
        result: what claims.json holds.

    Returns:
        The new text.

    Raises:
        InputError: the marks are not there, once and in order.

    Example:
        >>> result = {"claims": [], "preset": "quick", "created": "2025-01-02", "device": {}, "versions": {}}
        >>> readme_with(f"# A\\n{BEGIN}\\nold\\n{END}\\n", result).splitlines()[3]
        'No claims have been measured yet.'
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise bad_input(
            "README", f"a block between {BEGIN} and {END}", "none", "put both lines where the table belongs"
        )
    versions = result["versions"]
    made = [f"preset {result['preset']}", device_line(result["device"])]
    made += [f"{label} {versions[name]}" for name, label in (("python", "Python"), ("jax", "JAX")) if name in versions]
    line = f"Measured by `mlkernels run --preset {result['preset']}`: {', '.join(made[1:])}, {result['created'][:10]}."
    return f"{before}{BEGIN}\n\n{claims_table(result['claims'])}\n\n{line}\n\n{END}{after}"
