"""How good trained networks are: few-shot episodes on their features, and whether scores tell it beforehand."""
