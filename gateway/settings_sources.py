"""Where settings come from: flags go before environment variables, then a TOML file, then defaults."""

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from gateway.settings import Settings, allowed

PREFIX = "VISIONGATE_"
CONFIG_VARIABLE = PREFIX + "CONFIG"
"""The environment variable that names the TOML file of settings."""
CACHE_VARIABLE = PREFIX + "CACHE_DIR"
"""The environment variable that names the folder where Triton from pip is prepared. It is not a setting."""

Source = Literal["default", "file", "environment", "flag"]


class SettingsError(ValueError):
    """Settings that cannot be used. The message has one line, a sentence, for each fault."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings in force, and where each comes from."""

    settings: Settings
    sources: Mapping[str, Source]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A value that somebody wrote, and the place where it is written."""

    name: str
    value: object
    source: Source
    place: str


def load(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    file: Path | None,
    other_variables: Collection[str] = (),
) -> Loaded:
    """Gather the settings from flags by setting name, variables VISIONGATE_…, and a TOML file of plain keys.

    other_variables: variables VISIONGATE_… that are not settings, such as the option of a command.
    Raises SettingsError.
    """
    entries: dict[str, _Entry] = {}
    faults = []
    for entry in (*_from_file(file), *_from_environment(environment, other_variables), *_from_flags(flags)):
        if entry.name in Settings.model_fields:
            entries[entry.name] = entry
        else:
            faults.append(_unknown(entry, other_variables))
    try:
        settings = Settings.model_validate({entry.name: entry.value for entry in entries.values()})
    except ValidationError as error:
        # A list can be wrong in many places: one sentence for each setting.
        by_name = {str(fault["loc"][0]) if fault["loc"] else "": fault for fault in error.errors()}
        faults += [_sentence(entries.get(name), fault) for name, fault in by_name.items()]
    if faults:
        raise SettingsError("\n".join(faults))
    sources: dict[str, Source] = dict.fromkeys(Settings.model_fields, "default")
    return Loaded(settings, sources | {entry.name: entry.source for entry in entries.values()})


def find_repository(option: str | None = None) -> Path:
    """Return the absolute path of the model repository, for commands that need no other setting.

    It comes from the command line (`option`), from VISIONGATE_REPOSITORY, from the file that
    VISIONGATE_CONFIG names, or is the default. Raises SettingsError.
    """
    flags = {} if option is None else {"repository": option}
    name = variable("repository")
    environment = {name: os.environ[name]} if name in os.environ else {}
    file = os.environ.get(CONFIG_VARIABLE)
    return load(flags, environment, Path(file) if file else None).settings.repository


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """Return the command line option of a setting."""
    return "--" + name.replace("_", "-")


def shown(value: object) -> str:
    """Return a value as a user would write it. The user name and password of a URL are hidden."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    text = ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    return re.sub(r"(?<=://)\S*(?=@)", "***", text)


def _from_file(file: Path | None) -> Iterator[_Entry]:
    if file is None:
        return
    try:
        with file.open("rb") as opened:
            values = tomllib.load(opened)
    except OSError as error:
        raise SettingsError(f"cannot read the settings in {file}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{file} is not a TOML file: {error}") from error
    for name, value in values.items():
        yield _Entry(name, value, "file", f"{name} in {file}")


def _from_environment(environment: Mapping[str, str], other_variables: Collection[str]) -> Iterator[_Entry]:
    names = {variable(name): name for name in Settings.model_fields}
    for key, value in environment.items():
        is_other = key in other_variables and key not in names
        if key.upper().startswith(PREFIX) and not is_other and not _is_service_link(key, value):
            yield _Entry(names.get(key, key), value, "environment", f"the environment variable {key}")


def _from_flags(flags: Mapping[str, object]) -> Iterator[_Entry]:
    for name, value in flags.items():
        yield _Entry(name, value, "flag", flag(name))


def _is_service_link(key: str, value: str) -> bool:
    """Tell if Kubernetes set it: a Service named visiongate puts VISIONGATE_PORT=tcp://… into every pod."""
    if re.search(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$", key):
        return True
    return key.endswith("_PORT") and re.match("(tcp|udp|sctp)://", value) is not None


def _unknown(entry: _Entry, other_variables: Collection[str]) -> str:
    """Say that an entry is not a setting, and which one may be meant."""
    is_variable = entry.source == "environment"
    known = (
        [*map(variable, Settings.model_fields), *other_variables] if is_variable else Settings.model_fields
    )
    # Without the prefix, which makes any two variables similar.
    names = {name.removeprefix(PREFIX): name for name in known}
    written = entry.name.upper().removeprefix(PREFIX) if is_variable else entry.name
    similar = difflib.get_close_matches(written, names, 1)
    hint = f"did you mean {names[similar[0]]}?" if similar else "`visiongate settings` lists all settings"
    return f"{entry.place} is not a setting: {hint}"


def _sentence(entry: _Entry | None, fault: Any) -> str:
    """Put pydantic's error into words. Without an entry, several settings do not go together."""
    reason = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else ""
    if entry is None:
        return reason
    value = repr(shown(entry.value)) if isinstance(entry.value, str) else shown(entry.value)
    return f"{entry.place} is {value}: " + (reason or f"it must be {allowed(entry.name)}")
