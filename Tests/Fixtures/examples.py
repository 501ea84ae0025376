"""Checks the examples for orchestrators: examples.py PACKAGING PAGEFERRY

Kubernetes objects are checked against the schema of Kubernetes, strictly. The Nomad job is parsed, and checked for what
Nomad requires. The configuration files in both are checked by pageferry itself.
"""
import os
import subprocess
import sys
import tempfile

import hcl2
import kubernetes_validate
import yaml

packaging, pageferry = sys.argv[1:]


def check_configuration(text, *words):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        subprocess.run([pageferry, "config", "attach", "--config", file.name, *words], check=True, stdout=sys.stderr)


def plain(value):
    """Some releases of hcl2 keep the quotes of a text."""
    return value.strip('"') if isinstance(value, str) else value


def member(block, name):
    value = block.get(name, block.get('"%s"' % name))
    assert value is not None, "%s is missing" % name
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def main():
    with open(f"{packaging}/kubernetes/daemonset.yaml") as file:
        objects = list(yaml.safe_load_all(file))
    for entry in objects:
        kubernetes_validate.validate(entry, kubernetes_validate.latest_version(), strict=True)
    (settings,) = [entry for entry in objects if entry["kind"] == "ConfigMap"]
    check_configuration(settings["data"]["config.yaml"])
    (daemons,) = [entry for entry in objects if entry["kind"] == "DaemonSet"]
    pod = daemons["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["hostPID"] and set(container["securityContext"]["capabilities"]["add"]) == {"KILL", "SYS_PTRACE"}
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    options = yaml.safe_load(settings["data"]["config.yaml"])["attach"]
    for path in (options["socket"], options["state"]):
        assert any(path.startswith(mount + "/") for mount in mounts), path
    assert container["args"][:2] == ["attach", "--config"]
    assert os.path.dirname(container["args"][2]) in mounts

    with open(f"{packaging}/nomad/pageferry.nomad.hcl") as file:
        (job,) = hcl2.load(file)["job"]
    job = member(job, "pageferry-attach")
    assert plain(member(job, "type")) == "system"
    task = member(member(member(job, "group"), "attach"), "task")
    task = member(task, "attach")
    assert plain(member(task, "driver")) == "raw_exec"
    assert plain(member(member(task, "config"), "command")) == "/usr/bin/pageferry"
    template = member(task, "template")
    assert plain(member(template, "change_signal")) == "SIGHUP"
    text = member(template, "data")
    lines = [line for line in text.strip('"').splitlines() if "EOF" not in line]
    check_configuration("\n".join(lines) + "\n")
    print(f"{len(objects)} objects of Kubernetes, 1 job of Nomad, 2 configurations")


main()
