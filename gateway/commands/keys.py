"""`visiongate keys`."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.api_keys import ApiKey, changing, read_keys
from visiongate.commands.common import note, say, table

app = typer.Typer(
    name="keys",
    no_args_is_help=True,
    help="Write the file of API keys that a gateway asks of its callers: the setting VISIONGATE_API_KEYS.",
)

# Not by VISIONGATE_API_KEYS: a variable is a setting of the gateway or an option of a command, not both.
File = Annotated[Path, typer.Option("--file", help="The file of API keys.")]
Name = Annotated[str, typer.Argument(help="Whose key it is: seen in logs and metrics.")]
FILE = Path("keys.toml")


@app.command()
def add(name: Name, file: File = FILE) -> None:
    """Make a new key and print it, this once: the file keeps a hash of it.

    A running gateway takes it within a second or so. To replace a key, add one by another name (app-2), hand
    it out, then remove the first.
    """
    added, text = ApiKey.generate(name)
    with changing(file) as keys:
        if any(key.name == name for key in keys):
            raise ValueError(f"{file} has a key {name} already: take another name, or remove that first")
        keys.append(added)
    note(f"{file} has a key {name} now. It is shown this once:")
    say(text)


@app.command("list")
def list_command(file: File = FILE) -> None:
    """List whose keys the file has, and since when."""
    table(("name", "created"), [(key.name, key.created.isoformat(sep=" ")) for key in read_keys(file)])


@app.command()
def remove(name: Name, file: File = FILE) -> None:
    """Take a key away: a running gateway refuses it within a second or so."""
    with changing(file) as keys:
        kept = [key for key in keys if key.name != name]
        if len(kept) == len(keys):
            raise ValueError(f"{file} has no key {name}")
        keys[:] = kept
    note(f"{file} has no key {name} any more")
