"""What the name of an image file says of it: its class where it begins with a wnid, and which image it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

WNID = re.compile(r"n\d{8}")


def wnid_in(name: str) -> str | None:
    """The wnid that a file's name begins with.

    Example:
        >>> wnid_in("images/n0153282900000005.jpg"), wnid_in("n01532829_123.JPEG"), wnid_in("5.jpg")
        ('n01532829', 'n01532829', None)
    """
    match = WNID.match(PurePath(name).name)
    return match and match[0]


def named_twice(names: Iterable[str]) -> str | None:
    """The first name of an image that another has had. Names with a wnid mean one image whatever they end in.

    Example:
        >>> named_twice(["1.jpg", "1.png", "2.jpg", "1.jpg"])
        '1.jpg'
        >>> named_twice(["n0153282900000005.jpg", "n0153282900000005.JPEG"])
        'n0153282900000005.JPEG'
    """
    seen = set()
    for name in names:
        key = PurePath(name).stem.lower() if wnid_in(name) else name
        if key in seen:
            return name
        seen.add(key)
    return None
