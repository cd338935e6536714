"""Which columns a task wants of its data, and whether a source has them."""

MADE = ("regions",)  # kinds that are made from the images of a source that does not have them


def specs(task) -> dict:
    """`{column: Spec}` of all that a task or its class wants; empty where it does not say."""
    return {**getattr(task, "inputs", {}), **getattr(task, "targets", {})}


def needed(task) -> dict:
    """`{column: Spec}` without which a task cannot be trained; empty where it does not say.

    Args:
        task: The task or its class, or None.
    """
    optional = getattr(task, "optional", ())
    return {
        name: spec
        for name, spec in specs(task).items()
        if name not in optional and spec.kind not in MADE
    }


def fits(given, task) -> bool:
    """Whether columns `{name: kind}` hold all that a task needs."""
    return all(given.get(name) == spec.kind for name, spec in needed(task).items())


def used(given, task) -> list[str]:
    """The names of those columns `{name: kind}` that a task wants; all where it does not say."""
    wanted = specs(task)
    if not wanted:
        return list(given)
    return [name for name, kind in given.items() if name in wanted and wanted[name].kind == kind]


def kinds(columns) -> dict:
    """`{name: kind}` of columns or specs by name."""
    return {name: column.kind for name, column in columns.items()}


def describe(given) -> str:
    """Columns `{name: kind}` in words: `image and label`, or `token_ids (tokens)`."""
    named = [name if name == kind else f"{name} ({kind})" for name, kind in given.items()]
    return " and ".join(filter(None, [", ".join(named[:-1]), *named[-1:]]))
