"""Reads sources.yaml: overridden and validated whole before anything runs.

Every mistake is a ConfigError of one line that names the file, the key and what was expected.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from curation.config import (
    DUPLICATE,
    SOURCES,
    Chosen,
    Config,
    Count,
    Execution,
    Resample,
    Source,
    Split,
    Storage,
    Strict,
)
from curation.errors import ConfigError
from curation.profiles import COMMON_THRESHOLDS, ENGINE_THRESHOLDS, PROFILES
from curation.yaml_file import apply_override, read_yaml
from manifests.storage import is_uri, place
from stages.base import Params
from stages.frames import FrameSpec
from stages.table import STAGES


class _File(Strict):
    """The file as the user wrote it."""

    output: str = Field(min_length=1)
    profile: Literal["embedded", "paper"] = "embedded"
    sources: list[Source] = Field(min_length=1)
    stages: dict[str, dict[str, Any]] = Field(default_factory=dict)
    thresholds: dict[str, float] = Field(default_factory=dict)
    frames: FrameSpec = FrameSpec()
    resample: Resample = Resample()
    split: Split = Split()
    mix: dict[str, Count] = Field(default_factory=dict)
    execution: Execution = Execution()
    storage: Storage = Storage()


def load(path: str | Path, overrides: tuple[str, ...] = (), output: str | None = None) -> Config:
    """The validated configuration in `path`, with `overrides` ("thresholds.min_side=480") applied over it.

    Paths in the file are relative to the file, `output` given here is relative to the working directory.
    Raises ConfigError.
    """
    path = Path(path)
    raw = read_yaml(path)
    for override in overrides:
        apply_override(raw, override)
    if output is not None:
        raw["output"] = output if is_uri(output) else str(Path(output).absolute())
    return validate(raw, str(path), path.absolute().parent)


def validate(raw: dict[str, Any], file: str, base: Path, check_roots: bool = True) -> Config:
    """The configuration that `raw` describes; relative paths are taken from `base`. Raises ConfigError."""
    try:
        parsed = _File.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{file}: {_first(error, _File)}") from None
    if parsed.profile not in PROFILES:
        raise ConfigError(f"{file}: profile: {parsed.profile} is not available; expected one of {', '.join(PROFILES)}")
    stages = _choose_engines(parsed, file)
    _check_groups(parsed.execution, stages, file)
    output = _resolve(parsed.output, base, f"{file}: output")
    sources = _check_sources(parsed.sources, file, base, check_roots)
    for source in sources:
        if Path(output).is_relative_to(source.root):
            raise ConfigError(
                f"{file}: output: {output} lies inside the root of source {source.name} and would be listed with it; "
                "choose a folder outside"
            )
    return Config(
        output=output,
        profile=parsed.profile,
        sources=sources,
        stages=stages,
        thresholds=_thresholds(parsed, stages, file),
        frames=parsed.frames,
        resample=parsed.resample,
        split=parsed.split,
        mix=_mix(parsed, file),
        execution=parsed.execution,
        storage=_check_storage(parsed.storage, base, file),
    )


def _mix(parsed: _File, file: str) -> dict[str, int]:
    names = [source.name for source in parsed.sources]
    for name in parsed.mix:
        if name not in names:
            raise ConfigError(f"{file}: mix.{name}: no source has this name{_expected(name, names)}")
    return parsed.mix


def _choose_engines(parsed: _File, file: str) -> tuple[Chosen, ...]:
    profile = PROFILES[parsed.profile]
    for name in parsed.stages:
        if name not in profile:
            raise ConfigError(f"{file}: stages.{name}: unknown stage{_expected(name, profile)}")
    chosen = []
    for stage in STAGES:
        given = dict(parsed.stages.get(stage.name, {}))
        engine = given.pop("engine", profile[stage.name])
        if not isinstance(engine, str) or engine not in stage.engines:
            raise ConfigError(
                f"{file}: stages.{stage.name}.engine: unknown engine {engine!r}{_expected(str(engine), stage.engines)}"
            )
        model: type[Params] = stage.engines[engine].Params
        try:
            params = model.model_validate(given)
        except ValidationError as error:
            raise ConfigError(f"{file}: {_first(error, model, f'stages.{stage.name}.')}") from None
        chosen.append(Chosen(stage=stage.name, engine=engine, params=params.model_dump(mode="json")))
    return tuple(chosen)


def _check_groups(execution: Execution, stages: tuple[Chosen, ...], file: str) -> None:
    listed = [name for group in execution.groups or [] for name in group.stages]
    order = [chosen.stage for chosen in stages]
    if execution.groups is not None and listed != order:
        raise ConfigError(
            f"{file}: execution.groups: expected every stage once, in order ({', '.join(order)}); "
            f"got {', '.join(listed)}"
        )
    if execution.groups and len(execution.groups[0].stages) < 2:
        raise ConfigError(f"{file}: execution.groups.0: expected header and decode in the first group")


def _check_sources(sources: list[Source], file: str, base: Path, roots: bool) -> tuple[Source, ...]:
    seen: set[str] = set()
    checked = []
    for index, source in enumerate(sources):
        if source.name in seen:
            raise ConfigError(f"{file}: sources.{index}.name: {source.name} is used twice; names must differ")
        seen.add(source.name)
        root = _resolve(source.root, base, f"{file}: sources.{index}.root")
        if roots:
            _check_folder(root, f"{file}: sources.{index}", source)
        checked.append(source.model_copy(update={"root": root}))
    return tuple(checked)


def _check_folder(root: str, key: str, source: Source) -> None:
    """The root must be there, and in it what the source's layout needs."""
    try:
        folder = place(root)
        if not folder.is_dir():
            raise ConfigError(f"{key}.root: no such folder: {root}")
        for part in source.parts():
            if not (folder / part).exists():
                raise ConfigError(f"{key}: {source.kind} expects {part} in {root}, which has none")
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"{key}.root: {root} cannot be reached: {error.strerror}") from None


def _check_storage(storage: Storage, base: Path, file: str) -> Storage:
    if storage.cache is None:
        return storage
    if "://" in storage.cache:
        raise ConfigError(f"{file}: storage.cache: expected a local path, got {storage.cache}")
    return storage.model_copy(update={"cache": _resolve(storage.cache, base, f"{file}: storage.cache")})


def _resolve(path: str, base: Path, key: str) -> str:
    """The absolute path, or the URI, without a slash at its end."""
    if "://" in path:
        if not is_uri(path):
            raise ConfigError(f"{key}: expected a local path or a URI such as s3://bucket/folder, got {path}")
        try:
            return str(place(path)).rstrip("/")
        except ValueError as error:
            raise ConfigError(f"{key}: {error}") from None
    try:
        return str((base / Path(path).expanduser()).resolve())
    except RuntimeError:  # ~user of nobody
        raise ConfigError(f"{key}: no such home directory: {path}") from None


def _thresholds(parsed: _File, stages: tuple[Chosen, ...], file: str) -> dict[str, float]:
    thresholds = dict(COMMON_THRESHOLDS)
    span = parsed.frames.span_s(1.0) if parsed.frames.stride is None else 0.0
    thresholds["min_duration_s"] = span
    for chosen in stages:
        thresholds |= ENGINE_THRESHOLDS.get((chosen.stage, chosen.engine), {})
    judged = {
        rule.threshold: (stage.name, chosen.engine)
        for stage, chosen in zip(STAGES, stages, strict=True)
        for rule in stage.rules
        if isinstance(rule.threshold, str)
    }
    judged[str(DUPLICATE.threshold)] = ("hash", "any")
    for key, value in parsed.thresholds.items():
        if key not in judged:
            raise ConfigError(f"{file}: thresholds.{key}: unknown threshold{_expected(key, judged)}")
        if value != value or value < 0:
            raise ConfigError(f"{file}: thresholds.{key}: expected a number of 0 or more, got {value}")
        if value > 1 and _is_share(key):
            raise ConfigError(f"{file}: thresholds.{key}: expected a number from 0 to 1, got {value}")
        thresholds[key] = value
    for key, (name, engine) in judged.items():
        if key not in thresholds:
            raise ConfigError(f"{file}: thresholds.{key}: is missing; engine {engine} of {name} has no default for it")
    if thresholds["min_duration_s"] < span:
        raise ConfigError(
            f"{file}: thresholds.min_duration_s: expected at least {span:g}, which {parsed.frames.count} frames at "
            f"{parsed.frames.fps:g} fps span; got {thresholds['min_duration_s']:g}"
        )
    return thresholds


def _is_share(key: str) -> bool:
    """Whether the column that the threshold is compared with has the range 0..1 in the schema."""
    rules = [(rule, stage) for stage in STAGES for rule in stage.rules if rule.threshold == key]
    metadata = [f.metadata or {} for rule, stage in rules for f in stage.fields if f.name == rule.column]
    return any(m.get(b"range") == b"0..1" for m in metadata)


def _first(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """The first problem as `key: what was expected`, and how many more there are."""
    problems = error.errors()
    first = problems[0]
    loc: tuple[int | str, ...] = first["loc"]
    if loc[:1] == ("sources",) and loc[2:3] and loc[2] in SOURCES:  # pydantic puts the kind between index and key
        model, loc, shown = SOURCES[str(loc[2])], loc[3:], (*loc[:2], *loc[3:])
    else:
        shown = loc
    key = prefix + ".".join(str(part) for part in shown)
    if first["type"] == "extra_forbidden":
        text = f"unknown key{_expected(str(loc[-1]), _keys_at(model, loc[:-1]))}"
    elif first["type"] == "missing":
        text = "is missing"
    elif first["type"] == "union_tag_not_found":
        key, text = f"{key}.kind", "is missing"
    elif first["type"] == "union_tag_invalid":
        kind = str(first["ctx"]["tag"])
        key, text = f"{key}.kind", f"unknown kind {kind!r}{_expected(kind, SOURCES)}"
    else:
        said = first["msg"].removeprefix("Value error, ")
        text = f"{said[0].lower()}{said[1:]}, got {first['input']!r}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{key}: {text}{more}"


def _keys_at(model: Any, loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the model has at this place."""
    for part in loc:
        if isinstance(part, int):
            continue
        model = model.model_fields[part].annotation
        while not hasattr(model, "model_fields"):  # the items of a list, the first choice of a union
            model = model.__args__[0]
    return list(model.model_fields)


def _expected(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(known)}"
