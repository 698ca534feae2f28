"""`fashion home`: back up and restore the folder in which this machine's state is."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fashion.commands.arguments import AsJson
from fashion.commands.errors import failing_on

app = typer.Typer(help="Back up and restore this machine's state.", rich_markup_mode=None)


@app.command("backup", epilog="Example: fashion home backup /mnt/backups/fashion-2026-11-26.tar.gz")
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; its name ends in .tar.gz.")], as_json: AsJson = False
) -> None:
    """Write the home into one file, with checksums.

    Services and flows may go on meanwhile. What addresses name elsewhere (servers, buckets) is not in it.
    """
    from fashion.home import current_home
    from fashion.state import backup
    from fashion.state.record import StateError

    with failing_on(StateError):
        root = current_home().root
        made = backup.back_up(root, file.absolute())
        if as_json:
            print(json.dumps({"file": str(file), "files": len(made.files), "bytes": made.num_bytes}))
        else:
            print(f"{file}: {len(made.files):,} files of {root}, {made.num_bytes:,} bytes unpacked")


@app.command("restore", epilog="Example: FASHION_HOME=/srv/fashion fashion home restore fashion-2026-11-26.tar.gz")
def restore(
    file: Annotated[Path, typer.Argument(help="What `fashion home backup` wrote.")],
    force: Annotated[
        bool, typer.Option("--force", help="Put the home that is there aside; stop services and flows first.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup in the place of the home, once all of it is verified.

    The home may be at another path, or on another machine, than the one that was backed up.
    """
    from fashion.home import current_home
    from fashion.state import backup
    from fashion.state.record import StateError

    with failing_on(StateError):
        root = current_home().root
        restored, replaced = backup.restore(file.absolute(), root, force=force)
        if as_json:
            aside = None if replaced is None else str(replaced)
            print(json.dumps({"home": str(root), "files": len(restored.files), "made": restored.made, "aside": aside}))
            return
        print(f"{root}: {len(restored.files):,} files, as backed up at {restored.made}")
        if replaced is not None:
            print(f"what was there before is in {replaced}: delete it when you no longer need it")


@app.command("verify", epilog="Example: fashion home verify fashion-2026-11-26.tar.gz")
def verify(
    file: Annotated[Path, typer.Argument(help="What `fashion home backup` wrote.")], as_json: AsJson = False
) -> None:
    """Read a backup and compare every file with its checksum; changes nothing."""
    from fashion.state import backup
    from fashion.state.record import StateError

    with failing_on(StateError):
        found = backup.read(file.absolute())
        if as_json:
            print(json.dumps({"file": str(file), "files": len(found.files), "made": found.made}))
        else:
            print(f"{file}: {len(found.files):,} files are intact, made at {found.made} of {found.home.path}")
