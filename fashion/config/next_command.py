"""Commands that are named to a person, for another data set than the usual one. Knows words, and runs nothing."""


def of_data(command: str, data: str, *, model: str) -> str:
    """The command for a data set.

    Args:
        command: as it is typed for the usual one.
        data: name of the data set's config; empty for the usual one.
        model: name of the data set's registered model.
    """
    if not data:
        return command
    if command.startswith("make schedule"):
        return f'{command} ARGS="data={data}"'
    if command.startswith("make "):
        return f"{command} DATA={data}"
    if command.startswith("fashion traffic"):
        return f"{command} data={data}"
    return f"{command} --name {model}" if command.startswith("fashion registry") else command
