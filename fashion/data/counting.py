"""Numbers of things in sentences. Knows English plurals that end in s."""


def counted(count: int, thing: str) -> str:
    """A number with its noun: `1 picture`, `2,000 pictures`, `3 classes`."""
    plural = f"{thing[:-1]}ies" if thing.endswith("y") else f"{thing}es" if thing.endswith("s") else f"{thing}s"
    return f"{count:,} {thing if count == 1 else plural}"
