"""Writes the chart's values.schema.json: what values.yaml may say, so that a typo stops at `helm lint`.

A value's type is that of its default, and its description the comment above it. A comment's line
`# @schema {…}` adds to that in JSON Schema's words, with two more of this file's own: `k8s: Toleration`
is Kubernetes' type of that name, `ref: trigger` a definition below.
"""

import json
import math
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from gateway.settings import Settings

CHART = Path(__file__).parent / "visiongate"
SCHEMA = CHART / "values.schema.json"

OF_THE_CHART = {
    *("host", "port", "http_host", "http_port", "metrics_host", "metrics_port"),
    *("triton", "repository", "api_keys", "image_id_secret"),
    *("tls_certificate", "tls_key", "tls_client_ca"),
}
"""Settings that the chart's templates set themselves: gateway.settings may not."""

Schema = dict[str, Any]

_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "null": "null"}
_TRIGGER = {
    "name": {"type": "string"},
    "query": {"type": "string"},
    "threshold": {"type": ["string", "number"], "pattern": r"^[0-9.]+$"},
    "metricType": {"enum": ["AverageValue", "Value"]},
}
_BATCH_TASKS = ["embed", "classify", "detect", "segment", "ocr", "gaze"]
_PARENT = {name: {"type": "string"} for name in ("group", "kind", "namespace", "name", "sectionName")}


def values_schema() -> Schema:
    """Return the schema of values.yaml."""
    text = (CHART / "values.yaml").read_text()
    root = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    values = _mapping(root, text.splitlines())
    # Of a parent chart.
    values["properties"]["global"] = {"type": "object"}
    own = {
        "settings": _settings(),
        "quantity": {"type": ["string", "integer"], "pattern": r"^[0-9.]+(m|k|[KMGTPE]i?)?$"},
        "trigger": _strict(_TRIGGER, required=list(_TRIGGER)),
        "parentRef": _strict({**_PARENT, "port": {"type": "integer"}}, required=["name"]),
        "batchJob": _batch_job(),
    }
    used = {name for name in _referred(json.dumps([values, own])) if name not in own}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **values,
        "definitions": {**own, **_kubernetes(used)},
    }


def text() -> str:
    """Return the text of values.schema.json: a line for each definition, as nobody reads those."""
    schema = values_schema()
    lines = [f"    {json.dumps(name)}: {json.dumps(it)}" for name, it in schema.pop("definitions").items()]
    definitions = ",\n".join(lines)
    rest = json.dumps(schema, indent=2).removesuffix("\n}")
    return f'{rest},\n  "definitions": {{\n{definitions}\n  }}\n}}\n'


def _mapping(node: yaml.MappingNode, lines: list[str]) -> Schema:
    return _strict({key.value: _value(key, value, lines) for key, value in node.value})


def _strict(properties: Schema, **more: object) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": properties, **more}


def _value(key: yaml.ScalarNode, node: yaml.Node, lines: list[str]) -> Schema:
    """Return the schema of one value."""
    description, more = _comment(key, lines)
    kind = node.tag.rpartition(":")[2]
    if "k8s" in more or "ref" in more:
        schema = _resolved(more)
    elif isinstance(node, yaml.MappingNode) and "additionalProperties" not in more:
        schema = _mapping(node, lines)
    elif isinstance(node, yaml.MappingNode):
        schema = {"type": "object", **more}
    elif isinstance(node, yaml.SequenceNode):
        schema = {"type": "array", "items": _resolved(more.pop("items")), **more}
    else:
        schema = more if "enum" in more else {"type": _TYPES[kind], **more}
    return {"description": description, **schema} if description else schema


def _resolved(schema: Schema) -> Schema:
    """Put references into JSON Schema's words."""
    if name := schema.get("ref"):
        return {"$ref": f"#/definitions/{name}"}
    if name := schema.get("k8s"):
        return {"$ref": f"#/definitions/{_full_name(name)}"}
    return schema


def _comment(key: yaml.ScalarNode, lines: list[str]) -> tuple[str, Schema]:
    """Return the description in the comment above a key, and its `@schema`."""
    words: list[str] = []
    more: Schema = {}
    for line in reversed(lines[: key.start_mark.line]):
        if not (comment := re.match(r"\s*# ?(.*)", line)):
            break
        text = comment[1]
        if text.startswith("@schema "):
            more = yaml.safe_load(text.removeprefix("@schema "))
        else:
            words.insert(0, text.removeprefix("-- "))
        if text.startswith("-- "):
            break
    return " ".join(words), more


def _settings() -> Schema:
    """Return the schema of the gateway's settings."""
    properties = {}
    for name, setting in Settings.model_json_schema()["properties"].items():
        if name in OF_THE_CHART:
            continue
        kept = {key: it for key, it in setting.items() if key not in {"title", "default", "group", "format"}}
        if setting.get("default") == math.inf:
            number = {key: kept.pop(key) for key in list(kept) if key != "description"}
            kept["anyOf"] = [number, {"const": "inf"}]
        properties[name] = kept
    return _strict(properties)


def _batch_job() -> Schema:
    """Return the schema of an item of batch.jobs."""
    text, number = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}
    texts = {"type": "array", "items": {"type": "string"}}
    named = {"existingSecret": text, "key": text}
    properties = {
        # Of the Job's name, and its pods' host names: 63 letters.
        "name": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$"},
        "task": {"enum": _BATCH_TASKS},
        "inputs": {**texts, "minItems": 1},
        "out": text,
        "args": texts,
        "shards": {**number, "maximum": 100_000},
        "parallelism": number,
        "servers": {**texts, "minItems": 1},
        "apiKey": _strict(named, required=list(named)),
        "resources": _resolved({"k8s": "ResourceRequirements"}),
        "nodeSelector": {"type": "object", "additionalProperties": {"type": "string"}},
        "tolerations": {"type": "array", "items": _resolved({"k8s": "Toleration"})},
        "extraEnv": {"type": "array", "items": _resolved({"k8s": "EnvVar"})},
        "extraVolumes": {"type": "array", "items": _resolved({"k8s": "Volume"})},
        "extraVolumeMounts": {"type": "array", "items": _resolved({"k8s": "VolumeMount"})},
        "retries": {"type": "integer", "minimum": 0},
        "activeDeadlineSeconds": number,
        "ttlSecondsAfterFinished": {"type": "integer", "minimum": 0},
    }
    return _strict(properties, required=["name", "task", "inputs", "out"])


@cache
def _kubernetes_definitions() -> Schema:
    version = kubernetes_validate.latest_version()
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    definitions: Schema = json.loads((folder / "_definitions.json").read_text())["$defs"]
    return definitions


def _full_name(kind: str) -> str:
    """Return the name of the newest stable definition of a kind: io.k8s.api.core.v1.Toleration."""
    (name, *_) = sorted(
        (it for it in _kubernetes_definitions() if re.search(rf"\.v\d+\.{kind}$", it)), reverse=True
    )
    return name


def _kubernetes(names: set[str]) -> Schema:
    """Return these definitions of Kubernetes', and those that they refer to."""
    found: Schema = {}
    wanted = sorted(names)
    while wanted:
        name = wanted.pop(0)
        if name not in found:
            line = json.dumps(_bare(_kubernetes_definitions()[name])).replace("#/$defs/", "#/definitions/")
            wanted += _referred(line)
            found[name] = json.loads(line)
    return dict(sorted(found.items()))


def _referred(schema: str) -> list[str]:
    """Return the names of the definitions that a schema refers to."""
    return re.findall(r'"#/definitions/([\w.]+)"', schema)


def _bare(schema: Any) -> Any:
    """Leave out what only people read."""
    if isinstance(schema, dict):
        return {
            key: _bare(it)
            for key, it in schema.items()
            if not (key == "description" and isinstance(it, str)) and not key.startswith("x-kubernetes-")
        }
    return [_bare(it) for it in schema] if isinstance(schema, list) else schema


if __name__ == "__main__":
    SCHEMA.write_text(text())
