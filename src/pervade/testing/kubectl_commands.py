"""The table: what a user types, in order, and the shape of what must be seen.

`{ns}` is the namespace of the client under test, `{dir}` the folder with the manifests below. A row's patterns are
searched in the output, line by line (`^` and `$` are ends of lines); code None means that any is fine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

AGE = r"\d+[smhd]\S*"


@dataclass(frozen=True)
class Row:
    """One command, its exit status, and patterns of its output; `absent` must not be there. `needs` is its input."""

    command: str
    shape: tuple[str, ...] = ()
    code: int | None = 0
    absent: tuple[str, ...] = ()
    stdin: str = ""
    retry: bool = False
    seconds: float = 100
    """After that the command is ended, with status 124."""


def row(command: str, *shape: str, **more: Any) -> Row:
    """A row; `more` are the other fields of Row."""
    return Row(command, shape, **{"code": 0, **more})


WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: nicolaka/netshoot
        command: [sh, -c, "echo started; exec python3 -m http.server 8080"]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
"""
CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gears.%(ns)s.example.com}
spec:
  group: %(ns)s.example.com
  scope: Namespaced
  names: {plural: gears, singular: gear, kind: Gear, shortNames: [gr%(ns)s]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Teeth, type: integer, jsonPath: .spec.teeth}]
    subresources: {status: {}, scale: {specReplicasPath: .spec.teeth, statusReplicasPath: .status.teeth}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, description: Shape of a gear., properties: {teeth: {type: integer, minimum: 3}}}
          status: {type: object, properties: {teeth: {type: integer}}}
"""
GEAR = "apiVersion: %(ns)s.example.com/v1\nkind: Gear\nmetadata: {name: big}\nspec: {teeth: 12}\n"
TYPO = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: typo}\ndatum: {a: b}\n"
FILES = {"web.yaml": WEB, "crd.yaml": CRD, "gear.yaml": GEAR, "typo.yaml": TYPO}

ROWS = [
    row("version", r"Server Version: v1\.33"),
    row("cluster-info", "Kubernetes control plane.* is running at .*https://127"),
    row("api-versions", "^apps/v1$", "^v1$", r"^rbac\.authorization\.k8s\.io/v1$"),
    row("api-resources", r"^pods +po +v1 +true +Pod$", r"^deployments +deploy +apps/v1 +true +Deployment$"),
    row("explain pod.spec.containers.image", "FIELD: image <string>", "Container image name"),
    row("explain deployment --recursive", "progressDeadlineSeconds"),
    row("get nodes", r"^NAME +STATUS +ROLES +AGE +VERSION$", rf"^node-1 +Ready +\S+ +{AGE} +v1\.33"),
    row(
        "get nodes -o wide",
        "INTERNAL-IP +EXTERNAL-IP +OS-IMAGE +KERNEL-VERSION +CONTAINER-RUNTIME",
        r"containerd://",
    ),
    row("describe node node-1", "^Name: +node-1$", "^Capacity:", "Ready +True", "^Non-terminated Pods:"),
    row("create namespace {ns}", "^namespace/{ns} created$"),
    row("get namespace {ns}", rf"^{{ns}} +Active +{AGE}$"),
    row("config set-context --current --namespace={ns}", "modified"),
    row("apply -f {dir}/web.yaml", "^deployment.apps/web created$", "^service/web created$"),
    row("apply -f {dir}/web.yaml", "^deployment.apps/web unchanged$", "^service/web unchanged$"),
    row("rollout status deployment/web --timeout=60s", 'deployment "web" successfully rolled out'),
    row("wait --for=condition=Available deployment/web --timeout=30s", "deployment.apps/web condition met"),
    row("wait --for=jsonpath={{.status.readyReplicas}}=2 deployment/web --timeout=30s", "condition met"),
    row("get deployment web", r"^NAME +READY +UP-TO-DATE +AVAILABLE +AGE$", rf"^web +2/2 +2 +2 +{AGE}$"),
    row("get pods", r"^NAME +READY +STATUS +RESTARTS +AGE$", rf"^web-\S+-\S+ +1/1 +Running +0 +{AGE}$"),
    row(
        "get pods -o wide",
        r"^NAME.*IP +NODE +NOMINATED NODE +READINESS GATES$",
        r"10\.\d+\.\d+\.\d+ +node-[12] +<none> +<none>",
    ),
    row("get pods -o name", r"^pod/web-"),
    row("get pods -o yaml", "^kind: List$", "phase: Running"),
    row("get pods -o custom-columns=N:.metadata.name,IP:.status.podIP", r"^N +IP$", r"^web-\S+ +10\.\d+\."),
    row("get pods -l app=web --field-selector=status.phase=Running --no-headers", r"^web-"),
    row("get pods --field-selector=spec.nope=1", "field label not supported", code=1),
    row("get pods -A --sort-by=.metadata.creationTimestamp", "^kube-system +cluster-dns", "^{ns} +web-"),
    row("get pods --chunk-size=1", "web-"),
    row(
        "get pod,svc,deploy,rs",
        "^pod/web-",
        "^service/web ",
        "^deployment.apps/web ",
        "^replicaset.apps/web-",
    ),
    row("get all", "^pod/web-", "^service/web +ClusterIP"),
    row(
        "get svc web",
        r"^NAME +TYPE +CLUSTER-IP +EXTERNAL-IP +PORT\(S\) +AGE$",
        rf"^web +ClusterIP +10\.\S+ +<none> +80/TCP +{AGE}$",
    ),
    row("get endpointslices", r"^NAME +ADDRESSTYPE +PORTS +ENDPOINTS +AGE$", r"^web-\S+ +IPv4 +8080"),
    row("get pods --watch-only --request-timeout=1s", code=None),
    row("get nothing", "the server doesn't have a resource type", code=1),
    row("get pod nope", r'Error from server \(NotFound\): pods "nope" not found', code=1),
    row("describe deployment web", "^Name: +web$", "NewReplicaSet: +web-", "ScalingReplicaSet"),
    row(
        # The newer client shows the events of several objects only when told to.
        "describe pod -l app=web --show-events=true",
        "^Node: +node-",
        "^Conditions:",
        "Started container web",
        retry=True,
    ),
    row("describe svc web", r"^Endpoints: +10\.\d+\.\d+\.\d+:8080"),
    row("logs deployment/web --tail=5", "^started$"),
    row("logs -f deployment/web", "^started$", code=124, seconds=3),
    row("logs -l app=web --prefix", r"^\[pod/web-\S+/web\] started$"),
    row("logs deployment/web --timestamps --since=1h", r"^20\d\d-\d\d-\d\dT\S+Z started$"),
    row("exec deployment/web -- sh -c 'echo out; echo err >&2; exit 3'", "^out$", "^err$", code=3),
    row("exec -i deployment/web -- cat", "^from stdin$", stdin="from stdin\n"),
    row("exec deployment/web -- wc -c", code=0),
    row("exec -i deployment/web -- wc -c", "^300000$", stdin="x" * 300000),
    row("cp {dir}/web.yaml {pod}:/tmp/web.yaml"),
    row("exec {pod} -- grep -c Deployment /tmp/web.yaml", "^1$"),
    row("cp {pod}:/tmp/web.yaml {dir}/back.yaml"),
    row("attach {pod}", code=124, seconds=3),
    row("label pod {pod} tier=front", "labeled$"),
    row("label pod {pod} tier=back", "already has a value", code=1),
    row("label pod {pod} tier=back --overwrite", "labeled$"),
    row("get pods -L tier", r"TIER$", r"back$"),
    row("label pod {pod} tier-", "unlabeled$"),
    row("annotate pod {pod} note=hello", "annotated$"),
    row('patch deployment web -p \'{{"spec":{{"revisionHistoryLimit":4}}}}\'', "deployment.apps/web patched"),
    row('patch deployment web --type=merge -p \'{{"metadata":{{"labels":{{"a":"b"}}}}}}\'', "patched$"),
    row(
        'patch deployment web --type=json -p \'[{{"op":"remove","path":"/metadata/labels/a"}}]\'', "patched$"
    ),
    row(
        'patch deployment web --subresource=status --type=merge -p \'{{"status":{{"collisionCount":0}}}}\'',
        "patched",
    ),
    row("scale deployment/web --replicas=3", "deployment.apps/web scaled"),
    row("rollout status deployment/web --timeout=60s", "successfully rolled out"),
    row("set env deployment/web ROUND=2", "env updated"),
    row("rollout status deployment/web --timeout=90s", "successfully rolled out"),
    row("rollout history deployment/web", r"^REVISION +CHANGE-CAUSE$", r"^1 +", r"^2 +"),
    row("rollout undo deployment/web", "rolled back"),
    row("rollout status deployment/web --timeout=90s", "successfully rolled out"),
    row("rollout restart deployment/web", "restarted"),
    row("rollout status deployment/web --timeout=90s", "successfully rolled out"),
    row("rollout pause deployment/web", "paused"),
    row("rollout resume deployment/web", "resumed"),
    row(
        "apply --server-side -f {dir}/web.yaml --force-conflicts", "^deployment.apps/web serverside-applied$"
    ),
    row("diff -f {dir}/web.yaml", code=None),
    row("create configmap conf --from-literal=a=1", "^configmap/conf created$"),
    row("create configmap conf --from-literal=a=1", "already exists", code=1),
    row("create secret generic key --from-literal=k=v", "^secret/key created$"),
    row("get secret key", r"^NAME +TYPE +DATA +AGE$", rf"^key +Opaque +1 +{AGE}$"),
    row("create serviceaccount robot", "^serviceaccount/robot created$"),
    row(
        "create role reader --verb=get,list --resource=pods",
        "^role.rbac.authorization.k8s.io/reader created$",
    ),
    row("create rolebinding reader --role=reader --serviceaccount={ns}:robot", "created$"),
    row("auth can-i list pods --as=system:serviceaccount:{ns}:robot", "^yes$"),
    row("auth can-i delete pods --as=system:serviceaccount:{ns}:robot", "^no$", code=1),
    row("get pods --as=system:serviceaccount:{ns}:robot", "^web-"),
    row("delete pods --all --as=system:serviceaccount:{ns}:robot", "Forbidden", code=1),
    row("create token robot", r"^ey[\w-]+\.[\w-]+\.[\w-]+$"),
    row("auth whoami", r"Username +\S+", r"system:masters"),
    row(
        "create deployment quick --image=busybox --replicas=1 -- sleep 3600",
        "^deployment.apps/quick created$",
    ),
    row("create job once --image=busybox -- true", "^job.batch/once created$"),
    row("wait --for=condition=Complete job/once --timeout=40s", "condition met"),
    row("get job once", r"^once +Complete +1/1"),
    row("create quota few --hard=pods=9", code=None),
    row("run lone --image=busybox --restart=Never -- sh -c 'sleep 3600'", "^pod/lone created$"),
    row("wait --for=condition=Ready pod/lone --timeout=40s", "condition met"),
    row("debug lone -q --image=busybox --target=lone -- true", code=0),
    row("get pod lone -o jsonpath={{.status.ephemeralContainerStatuses[0].name}}", "^debugger-", retry=True),
    row("debug lone -q --image=busybox --copy-to=copied --container=lone -- sleep 60", code=0),
    row("get pod copied", "^copied "),
    row("expose pod lone --name=lone --port=80", "^service/lone exposed$", code=None),
    row("run once-only -i --rm --restart=Never --image=busybox -q -- echo hello", "hello"),
    row("apply -f {dir}/crd.yaml", "created$"),
    row("apply -f {dir}/gear.yaml", r"^gear\.\S+/big created$"),
    row("get gears", r"^NAME +TEETH$", r"^big +12$"),
    row("explain gear.spec", "Shape of a gear."),
    row('patch gear big --type=merge -p \'{{"spec":{{"teeth":1}}}}\'', "Invalid value", code=1),
    row("scale gear/big --replicas=20", "scaled$"),
    row("get gear big", r"^big +20$"),
    row("apply -f {dir}/typo.yaml", 'unknown field "datum"', code=1),
    row("replace --force -f {dir}/gear.yaml", "replaced$"),
    row("events", r"^LAST SEEN +TYPE +REASON +OBJECT +MESSAGE$", "Started"),
    row("get events --field-selector=reason=Started", "Started"),
    row("taint node node-2 k=v:NoSchedule", "tainted$"),
    row("taint node node-2 k-", "untainted$"),
    row("cordon node-2", "cordoned$"),
    row("get node node-2", "Ready,SchedulingDisabled"),
    row("uncordon node-2", "uncordoned$"),
    row("get lease -n kube-node-lease", "^node-1 +node-1"),
    row("get crd", r"^NAME +CREATED AT$"),
    row("get clusterrole cluster-admin", "^cluster-admin +20"),
    row("get --raw /readyz", "^ok$"),
    row("get --raw /openapi/v3", "serverRelativeURL"),
    row("proxy --port=0 --help", code=0),
    row("delete pod lone copied --now", 'pod "lone".* deleted'),
    row(
        "drain node-2 --ignore-daemonsets --delete-emptydir-data --force --timeout=80s",
        "^node/node-2 cordoned$",
        "^node/node-2 drained$",
    ),
    row("get pods -A --field-selector=spec.nodeName=node-2", "No resources found", retry=True),
    row("uncordon node-2", "uncordoned$"),
    row("rollout status deployment/web --timeout=90s", "successfully rolled out"),
    row("delete gear --all", "deleted"),
    row("delete -f {dir}/crd.yaml", "deleted"),
    row("delete deployment web --cascade=foreground --timeout=60s", 'deployment.apps "web" deleted'),
    row("delete svc -l app=none", "No resources found"),
    row("delete namespace {ns} --timeout=90s", 'namespace "{ns}" deleted'),
    row("get pods", "No resources found in {ns} namespace."),
]
