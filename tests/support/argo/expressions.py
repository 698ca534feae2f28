"""Argo's `{{...}}` in compiled templates, `when`, `depends`, and the expression of a retry strategy."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace


class UnknownExpression(NotImplementedError):
    """Metaflow compiles no such expression from these flows; Argo may know it."""


@dataclass(frozen=True)
class Result:
    """What is known of a task of a DAG, or of a pod."""

    status: str
    """Succeeded, Failed or Omitted."""
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scope:
    """What an expression can refer to."""

    name: str
    """Of the workflow."""
    created: str
    """Time of its creation."""
    parameters: Mapping[str, str]
    """Of the workflow; values are JSON."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, Result] = field(default_factory=dict)
    retries: int = 0
    item: str = ""

    def within(self, **changed: object) -> "Scope":
        """A scope with other inputs, tasks, retries or item."""
        return replace(self, **changed)  # type: ignore[arg-type]


SWITCH = re.compile(
    r"\(tasks\['(?P<task>[\w-]+)'\]\.status == 'Succeeded' \? "
    r"tasks\['(?P=task)'\]\.outputs\.parameters\['switch-step'\] : nil\) == '(?P<step>\w+)'"
)
ENCODED = re.compile(r"toBase64\((?P<where>inputs|workflow)\.parameters\['(?P<name>[\w-]+)'\]\)")


def substitute(text: str, scope: Scope) -> str:
    """Replace each `{{...}}`. One that names outputs of a task which did not run stays, as Argo leaves it."""
    return re.sub(r"\{\{(.+?)\}\}", lambda match: _value(match[1].strip(), scope, unresolved=match[0]), text)


def holds(condition: str, scope: Scope) -> bool:
    """Whether a `when` holds: comparisons of words, joined by `||` and `&&`, once values are substituted."""
    text = substitute(condition, scope)
    text = re.sub(r"([\w{}.'-]+) ?== ?([\w-]+)", lambda match: str(match[1] == match[2]).lower(), text)
    words = {"true": "True", "false": "False", "||": "or", "&&": "and", "(": "(", ")": ")"}
    found = re.findall(r"true|false|\|\||&&|[()]|\S+", text)
    if unknown := set(found) - set(words):
        raise UnknownExpression(f"{condition} became {text}: {unknown}")
    return bool(eval(" ".join(words[each] for each in found), {"__builtins__": {}}))


def may_run(depends: str, tasks: Mapping[str, Result]) -> bool:
    """Whether a task's `depends` holds: all, or any, of the tasks that it names have succeeded."""
    names = [part.strip() for part in re.split(r"\|\||&&", depends) if part.strip()]
    if any(not name.endswith(".Succeeded") for name in names) or ("||" in depends and "&&" in depends):
        raise UnknownExpression(depends)
    succeeded = [tasks[name.removesuffix(".Succeeded")].status == "Succeeded" for name in names]
    return any(succeeded) if "||" in depends else all(succeeded)


def may_retry(strategy: Mapping[str, object], *, attempts: int, exit_code: int) -> bool:
    """Whether Argo runs a failed pod again.

    Args:
        strategy: the template's `retryStrategy`.
        attempts: pods that have run.
        exit_code: of the last one; -1 where it has none.
    """
    if not strategy or attempts > int(str(strategy["limit"])):
        return False
    if strategy["retryPolicy"] != "Always":
        raise UnknownExpression(str(strategy["retryPolicy"]))
    expression = str(strategy.get("expression", "true"))
    if expression == "true":
        return True
    if match := re.fullmatch(r"asInt\(lastRetry\.exitCode\) != (\d+)", expression):
        return exit_code != int(match[1])
    raise UnknownExpression(expression)


def _value(name: str, scope: Scope, *, unresolved: str) -> str:
    if name.startswith("="):
        return _evaluated(name[1:], scope)
    plain = {
        "workflow.name": scope.name,
        "workflow.namespace": "default",
        "workflow.creationTimestamp": scope.created,
        "retries": str(scope.retries),
        "item": scope.item,
    }
    if name in plain:
        return plain[name]
    if match := re.fullmatch(r"(inputs|workflow)\.parameters\.([\w-]+)", name):
        return (scope.inputs if match[1] == "inputs" else scope.parameters)[match[2]]
    if match := re.fullmatch(r"tasks\.([\w-]+)\.status", name):
        return scope.tasks[match[1]].status if match[1] in scope.tasks else unresolved
    if match := re.fullmatch(r"tasks\.([\w-]+)\.outputs\.parameters\.([\w-]+)", name):
        task = scope.tasks.get(match[1])
        return task.outputs.get(match[2], unresolved) if task else unresolved
    raise UnknownExpression(name)


def _evaluated(expression: str, scope: Scope) -> str:
    if match := SWITCH.fullmatch(expression):
        task = scope.tasks.get(match["task"])
        chosen = task is not None and task.status == "Succeeded" and task.outputs.get("switch-step") == match["step"]
        return str(chosen).lower()
    if match := ENCODED.fullmatch(expression):
        values = scope.inputs if match["where"] == "inputs" else scope.parameters
        return base64.b64encode(values[match["name"]].encode()).decode()
    raise UnknownExpression(expression)
