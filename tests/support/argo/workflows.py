"""Run a WorkflowTemplate: its DAGs, fan-outs, retries and parameters. Knows no flow."""

import json
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.argo.expressions import Result, Scope, holds, may_retry, may_run, substitute
from support.argo.pods import Pod, run_pod

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Cluster:
    """What there is besides templates."""

    folder: Path
    """Pods leave their files here."""
    secrets: Mapping[str, Mapping[str, str]]
    """Values by name of the secret."""
    absent: Callable[[str], Collection[str]] = lambda image: ()
    """Modules that an image does not hold."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Put into each pod's home, as a mounted volume would be."""


@dataclass
class Workflow:
    """One run of a template."""

    template: Manifest
    cluster: Cluster
    name: str
    parameters: Mapping[str, str]
    """Values are JSON, as in the template."""
    pods: list[tuple[str, Pod]] = field(default_factory=list)
    """Task and pod, in the order in which they ended; each attempt is one."""
    status: str = "Running"

    def run(self) -> "Workflow":
        """Run it to its end."""
        spec = self.template["spec"]
        defaults = {each["name"]: each["value"] for each in spec.get("arguments", {}).get("parameters", [])}
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        scope = Scope(self.name, created, {**defaults, **self.parameters})
        self.status = self._run(spec["entrypoint"], scope, path="").status
        return self

    def logs(self) -> str:
        """What its pods printed, failed ones last."""
        ordered = sorted(self.pods, key=lambda each: each[1].exit_code != 0)
        return "\n".join(f"--- {task}: exit {pod.exit_code}\n{pod.log[-3000:]}" for task, pod in ordered)

    def attempts(self, task: str) -> list[Pod]:
        """The pods of a task, of all items where it is a fan-out."""
        return [pod for name, pod in self.pods if name.split("/")[-1].partition("(")[0] == task]

    def tasks(self) -> list[str]:
        """Names of the tasks that had a pod, in order, each once."""
        return list(dict.fromkeys(name for name, _ in self.pods))

    def _run(self, name: str, scope: Scope, *, path: str) -> Result:
        (template,) = (each for each in self.template["spec"]["templates"] if each["name"] == name)
        return self._run_dag(template, scope, path) if "dag" in template else self._run_pods(template, scope, path)

    def _run_dag(self, template: Manifest, scope: Scope, path: str) -> Result:
        tasks: dict[str, Result] = {}
        for task in template["dag"]["tasks"]:
            here = scope.within(tasks=tasks)
            ready = may_run(task.get("depends") or "", tasks) and (not task.get("when") or holds(task["when"], here))
            where = f"{path}/{task['name']}"
            tasks[task["name"]] = self._run_task(task, here, where) if ready else Result("Omitted")
            if tasks[task["name"]].status == "Failed":
                return Result("Failed")  # failFast
        outputs = template.get("outputs", {}).get("parameters", [])
        found = scope.within(tasks=tasks)
        return Result(
            "Succeeded", {each["name"]: substitute(each["valueFrom"]["parameter"], found) for each in outputs}
        )

    def _run_task(self, task: Manifest, scope: Scope, path: str) -> Result:
        def run(item: str, where: str) -> Result:
            here = scope.within(item=item)
            given = task.get("arguments", {}).get("parameters", [])
            inputs = {each["name"]: substitute(each["value"], here) for each in given}
            return self._run(task["template"], scope.within(inputs=inputs, tasks={}), path=where)

        if "withParam" not in task:
            return run("", path)
        items = [str(each) for each in json.loads(substitute(task["withParam"], scope))]
        with ThreadPoolExecutor(len(items)) as pool:
            results = list(pool.map(lambda item: run(item, f"{path}({item})"), items))
        if any(each.status != "Succeeded" for each in results):
            return Result("Failed")
        names = results[0].outputs
        return Result("Succeeded", {name: json.dumps([each.outputs[name] for each in results]) for name in names})

    def _run_pods(self, template: Manifest, scope: Scope, path: str) -> Result:
        container, attempts = template["container"], 0
        while True:
            here = scope.within(retries=attempts)
            pod = run_pod(
                container,
                command=substitute(container["command"][2], here),
                environment=self._environment(container, here),
                folder=self.cluster.folder / self.name / f"{path.strip('/').replace('/', '.')}-{attempts}",
                seconds=float(template.get("activeDeadlineSeconds", 3600)),
                absent=self.cluster.absent(container["image"]),
                files=self.cluster.files,
            )
            attempts += 1
            self.pods.append((path, pod))
            if pod.exit_code == 0:
                break
            if not may_retry(template.get("retryStrategy") or {}, attempts=attempts, exit_code=pod.exit_code):
                return Result("Failed")
        outputs = template.get("outputs", {}).get("parameters", [])
        values = {each["name"]: pod.output(each["valueFrom"]["path"]) for each in outputs}
        return Result("Succeeded", {name: value for name, value in values.items() if value is not None})

    def _environment(self, container: Manifest, scope: Scope) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            found |= self.cluster.secrets[source["secretRef"]["name"]]
        for each in container.get("env", []):
            # What is filled in from the pod itself, as its name, matters to no step.
            found[each["name"]] = substitute(each["value"], scope) if "value" in each else each["name"].lower()
        return found
