"""Reading of profiles: YAML files of settings, one extending another, with single values changed on top.

A row of a manifest may name a profile, so its file may be a stranger's, or any file of this machine. It is
read within a limit, of YAML only plain values, and no message shows what stands in a file that is no profile.
"""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from portrait_core.errors import clipped
from portrait_core.runtime.package_files import profile_names, profile_path
from portrait_core.runtime.regular_files import read_regular
from portrait_core.settings.limits import current_limits, over_limit
from portrait_core.text.redaction import HIDDEN, redact_text

SECRET_SETTINGS = ("storage_options", "runner.cluster")
"""Parts of the names of settings whose values may be credentials, and are never shown."""
MAX_EXTENDED = 8
"""Number of profiles of which each may extend the next."""
_MAX_DEPTH = 16
"""Number of parts of the longest name that a string sets."""
_SHOWN = 10
"""Number of wrong values that a message shows."""
_PLAIN = 64
"""Characters of the longest number; more of them are text. A number in base 60 takes time that grows with the
square of its length, and Python refuses to print very long ones."""
_UNREADABLE = (yaml.YAMLError, RecursionError, ValueError, OverflowError)
"""Errors of PyYAML: its constructors of numbers and dates raise Python's own."""


def read_values(
    profile: str | Path, overrides: Iterable[str] = (), known: Container[str] = ()
) -> dict[str, Any]:
    """Read the plain values of a profile and apply ``section.field=value`` strings; check nothing else yet.

    Args:
        profile: name or file of the profile.
        overrides: the strings.
        known: names of sections, of which each file has one or more.

    Raises:
        ValueError: an unknown profile, a file that is unreadable or no profile, or an override that cannot be
            read.
    """
    values = _read_profile(profile, known, ())
    values.setdefault("profile", Path(profile).stem)
    for text in overrides:
        name, value = _parse_override(text)
        _put(values, name.split("."), value, text)
    return values


def _read_profile(profile: str | Path, known: Container[str], seen: tuple[Path, ...]) -> dict[str, Any]:
    path = _profile_file(profile)
    if path.resolve() in seen:
        raise ValueError(f"profile {path} extends itself; remove the circle of 'extends:'")
    if len(seen) > MAX_EXTENDED:
        raise ValueError(
            f"profile {path} is the {len(seen) + 1}th of a chain of 'extends:'; {MAX_EXTENDED} are allowed"
        )
    values = _read_file(path)
    base = values.pop("extends", None)
    if base is None:
        if values and not any(name in known for name in values):
            raise ValueError(f"profile {path} names no section of settings; give the path of a profile")
        return values
    if not isinstance(base, str):
        raise ValueError(f"profile {path}: 'extends:' takes a profile's name or the path of a .yaml file")
    return _merge(_read_profile(base, known, (*seen, path.resolve())), values)


def _profile_file(profile: str | Path) -> Path:
    path = Path(profile)
    if path.suffix in {".yaml", ".yml"} and "\0" not in str(profile):
        return path
    named = profile_path(str(profile))
    if named is None:
        raise ValueError(
            f"there is no profile {clipped(str(profile))!r}; profiles are {', '.join(profile_names())}, "
            "or give the path of a .yaml file"
        )
    return named


def _read_file(path: Path) -> dict[str, Any]:
    """Return the values of one file, without those of the profile that it extends."""
    try:
        data, size = read_regular(path, current_limits().settings_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"profile file {path} does not exist; give a profile's name or an existing .yaml file"
        ) from None
    except OSError as error:
        raise ValueError(f"profile file {path} cannot be read: {error.strerror or error}") from None
    if problem := over_limit("settings_bytes", size):
        raise ValueError(f"profile {path} {problem}")
    try:
        loaded = _plain_yaml(data.decode("utf-8"))
    except _UNREADABLE as error:
        raise ValueError(f"profile {path} is not valid YAML: {_yaml_problem(error)}") from None
    values = {} if loaded is None else loaded
    if not isinstance(values, dict):
        raise ValueError(f"profile {path} should hold sections of settings, got {type(values).__name__}")
    return values


def _yaml_problem(error: Exception) -> str:
    """Return what is wrong with a YAML file and in which line, without its text."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} (line {error.problem_mark.line + 1})"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return redact_text(str(error).partition("\n")[0])


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for name, value in top.items():
        both = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = _merge(out[name], value) if both else value
    return out


def override_name(text: str) -> str:
    """Return the name, ``section.field``, that a ``section.field=value`` string sets.

    Raises:
        ValueError: there is no name or no value.
    """
    name, equals, _ = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(
            f"cannot read {clipped(shown_change(text))!r}; write it as section.field=value, for example "
            "tuning.steps=400"
        )
    return name.strip()


def shown_change(text: str) -> str:
    """Return a ``section.field=value`` string for messages: without the value of a setting that is secret."""
    for secret in SECRET_SETTINGS:
        before, found, _ = text.partition(secret)
        if found:
            return f"{before}{found} {HIDDEN}"
    return redact_text(text)


def _parse_override(text: str) -> tuple[str, Any]:
    name, value = override_name(text), text.partition("=")[2]
    try:
        return name, _plain_yaml(value)
    except _UNREADABLE:
        return name, value


class _PlainLoader(yaml.SafeLoader):
    """A loader of plain values alone.

    It refuses aliases, of which a few lines can expand to gigabytes, and tags, and reads very long numbers as
    text.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # unannotated in the stubs
        problem = ""
        if self.check_event(yaml.AliasEvent):
            problem = "aliases (*name) are not read; write the value out"
        elif getattr(event, "tag", None) is not None:
            problem = "tags (!name) are not read; write the plain value"
        if problem:
            raise yaml.MarkedYAMLError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and len(value) > _PLAIN:
            return str(self.DEFAULT_SCALAR_TAG)
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]


def _plain_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_PlainLoader)


def _put(values: dict[str, Any], parts: list[str], value: Any, text: str) -> None:
    if len(parts) > _MAX_DEPTH:
        raise ValueError(f"cannot apply {clipped(text)!r}: its name has {len(parts)} parts")
    for part in parts[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ValueError(
                f"cannot apply {clipped(shown_change(text))!r}: {clipped(part)!r} is a single value, not a "
                "section"
            )
        values = inner
    values[parts[-1]] = value


def refuse_unknown(root: type[BaseModel], values: Mapping[str, Any]) -> None:
    """Check that every name in ``values`` is a field of ``root`` or of one of its sections.

    Raises:
        ValueError: a name is unknown; the message names the first one and lists close ones.
    """
    for name, value in values.items():
        section = _section(root, str(name))
        if name not in root.model_fields:
            inside = list(value) if isinstance(value, Mapping) else []
            raise ValueError(_unknown_message(".".join([str(name), *map(str, inside[:1])]), root))
        if section is None or not isinstance(value, Mapping):
            continue
        for inner in value:
            if inner not in section.model_fields:
                raise ValueError(_unknown_message(f"{name}.{inner}", root))


def setting_names(root: type[BaseModel]) -> list[str]:
    """List the full names of all settings, ``section.field``, in their order."""
    names: list[str] = []
    for name in root.model_fields:
        section = _section(root, name)
        names += [f"{name}.{inner}" for inner in section.model_fields] if section else [name]
    return names


def explain(error: ValidationError) -> str:
    """Describe a validation error in one line: the first wrong fields, their values and what fits.

    Values of :data:`SECRET_SETTINGS` are left out.
    """
    lines = []
    for item in error.errors()[:_SHOWN]:
        name = ".".join(str(part) for part in item["loc"])
        hidden = isinstance(item["input"], (dict, BaseModel)) or any(one in name for one in SECRET_SETTINGS)
        got = "" if hidden else f" got {clipped(shown_change(repr(item['input'])))};"
        message = clipped(item["msg"].removeprefix("Value error, "), 1000)
        lines.append(f"setting {clipped(name) or 'settings'}:{got} {message[:1].lower() + message[1:]}")
    if error.error_count() > _SHOWN:
        lines.append(f"and {error.error_count() - _SHOWN} more")
    return redact_text("; ".join(lines) + ". Change it in the profile or with --set section.field=value")


def _section(root: type[BaseModel], name: str) -> type[BaseModel] | None:
    field = root.model_fields.get(name)
    kind = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _unknown_message(name: str, root: type[BaseModel]) -> str:
    names = setting_names(root)
    section, _, leaf = name.rpartition(".")
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    close += [other for other in names if other.rpartition(".")[2] == leaf]
    siblings = [other for other in names if other.startswith(f"{section}.")]
    close += difflib.get_close_matches(name, siblings, n=3, cutoff=0.4)
    hint = ", ".join(list(dict.fromkeys(close))[:5]) or ", ".join(siblings or root.model_fields)
    return f"unknown setting {clipped(name)!r}; did you mean: {hint}?"
