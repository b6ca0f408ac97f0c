"""The command `visiongate keys`."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.api_keys import ApiKey, changing, read_keys
from visiongate.commands.common import note, say, table

app = typer.Typer(
    name="keys",
    no_args_is_help=True,
    help="Manage the file of API keys that callers need: the gateway's setting api_keys names it.",
)

# VISIONGATE_API_KEYS is not read here: a variable is a gateway's setting or a command's option, never both.
File = Annotated[Path, typer.Option("--file", help="The file of API keys.")]
Name = Annotated[str, typer.Argument(help="Name of the caller who gets the key. Logs and metrics show it.")]
FILE = Path("keys.toml")


@app.command()
def add(name: Name, file: File = FILE) -> None:
    """Make a new key and print it once: the file keeps only a hash.

    A running gateway accepts the key within about a second. To replace a key, add one with another name
    (app-2), hand it out, then remove the first.
    """
    added, text = ApiKey.generate(name)
    with changing(file) as keys:
        if any(key.name == name for key in keys):
            raise ValueError(
                f"{file} already has a key {name}: choose another name, or remove that key first"
            )
        keys.append(added)
    note(f"{file} now has a key {name}. The key is shown only once:")
    say(text)


@app.command("list")
def list_command(file: File = FILE) -> None:
    """List the names of the keys, and when each was made."""
    table(("name", "created"), [(key.name, key.created.isoformat(sep=" ")) for key in read_keys(file)])


@app.command()
def remove(name: Name, file: File = FILE) -> None:
    """Remove a key. A running gateway refuses it within about a second."""
    with changing(file) as keys:
        others = [key for key in keys if key.name != name]
        if len(others) == len(keys):
            raise ValueError(f"{file} has no key {name}")
        keys[:] = others
    note(f"the key {name} is removed from {file}")
