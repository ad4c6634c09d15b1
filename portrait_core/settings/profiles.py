"""Reading of profiles: YAML files of settings, one extending another, with single values changed on top."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from portrait_core.runtime.package_files import profile_names, profile_path
from portrait_core.text.redaction import HIDDEN, redact_text

SECRET_SETTINGS = ("storage_options", "runner.cluster")
"""Parts of the names of settings whose values may be credentials, and are never shown."""


def read_values(profile: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Read the plain values of a profile and apply ``section.field=value`` strings; check nothing yet.

    Raises:
        ValueError: an unknown profile, an unreadable file or an override that cannot be read.
    """
    values = _read_profile(profile, ())
    values.setdefault("profile", Path(profile).stem)
    for text in overrides:
        name, value = _parse_override(text)
        _put(values, name.split("."), value, text)
    return values


def _read_profile(profile: str | Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = Path(profile)
    if path.suffix not in {".yaml", ".yml"}:
        named = profile_path(str(profile))
        if named is None:
            raise ValueError(
                f"there is no profile {str(profile)!r}; profiles are {', '.join(profile_names())}, "
                "or give the path of a .yaml file"
            )
        path = named
    if path.resolve() in seen:
        raise ValueError(f"profile {path} extends itself; remove the circle of 'extends:'")
    if not path.is_file():
        raise ValueError(
            f"profile file {path} does not exist; give a profile's name or an existing .yaml file"
        )
    try:
        loaded = _plain_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"profile {path} is not valid YAML: {_yaml_problem(error)}") from None
    values = {} if loaded is None else loaded
    if not isinstance(values, dict):
        raise ValueError(f"profile {path} should hold sections of settings, got {type(values).__name__}")
    base = values.pop("extends", None)
    if base is None:
        return values
    return _merge(_read_profile(base, (*seen, path.resolve())), values)


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
            f"cannot read {shown_change(text)!r}; write it as section.field=value, for example "
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


def _yaml_problem(error: yaml.YAMLError | RecursionError) -> str:
    """Describe an error of YAML by its place, without the line of the file, which may hold credentials."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return redact_text(str(error).partition("\n")[0])
    return f"{getattr(error, 'problem', None) or 'it'} (line {mark.line + 1}, column {mark.column + 1})"


def _parse_override(text: str) -> tuple[str, Any]:
    name, value = override_name(text), text.partition("=")[2]
    try:
        return name, _plain_yaml(value)
    except (yaml.YAMLError, RecursionError):
        return name, value


class _PlainLoader(yaml.SafeLoader):
    """A loader that refuses aliases: in a file of a stranger a few lines of them can expand to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # unannotated in the stubs
            raise yaml.MarkedYAMLError(None, None, "aliases (*name) are not read; write the value out", mark)
        return super().compose_node(parent, index)


def _plain_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_PlainLoader)


def _put(values: dict[str, Any], parts: list[str], value: Any, text: str) -> None:
    for part in parts[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ValueError(
                f"cannot apply {shown_change(text)!r}: {part!r} is a single value, not a section"
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
        if str(name) not in root.model_fields:
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
    """Describe a validation error in one line: every field with a wrong value, the value and what fits.

    Values of :data:`SECRET_SETTINGS` are left out.
    """
    lines = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        hidden = isinstance(item["input"], (dict, BaseModel)) or any(one in name for one in SECRET_SETTINGS)
        got = "" if hidden else f" got {shown_change(repr(item['input']))};"
        lines.append(f"setting {name or 'settings'}:{got} {message[:1].lower() + message[1:]}")
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
    return f"unknown setting {name!r}; did you mean: {hint}?"
