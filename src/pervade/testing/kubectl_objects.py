"""What needs the API server alone: commands in order and the shape of their output, for every kind a user lists.

The rows are read as those of `kubectl_commands`.
"""

from __future__ import annotations

from pervade.testing.kubectl_commands import AGE, CRD, GEAR, TYPO, row

_KINDS = """
apiVersion: v1
kind: Pod
metadata: {name: lone, labels: {app: lone, tier: a}}
spec: {containers: [{name: c, image: busybox, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: second, labels: {app: lone, tier: b}}
spec: {containers: [{name: c, image: busybox}], readinessGates: [{conditionType: example.com/up}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec: &of
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: busybox}]}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: rs}
spec: {replicas: 0, selector: {matchLabels: {app: rs}}, template: {metadata: {labels: {app: rs}}, spec: {containers: [{name: c, image: busybox}]}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: ds}
spec: {selector: {matchLabels: {app: ds}}, template: {metadata: {labels: {app: ds}}, spec: {containers: [{name: c, image: busybox}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: sts}
spec: {serviceName: sts, selector: {matchLabels: {app: sts}}, template: {metadata: {labels: {app: sts}}, spec: {containers: [{name: c, image: busybox}]}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: job}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: busybox}]}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: cron}
spec: {schedule: "*/5 * * * *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: busybox}]}}}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: conf, labels: {app: conf}}
data: {a: "1", b: before-the-edit}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
data: {k: dg==}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: slice, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 80, protocol: TCP}]
endpoints: [{addresses: [192.0.2.1], conditions: {ready: true}}]
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: lease}
spec: {holderIdentity: me, leaseDurationSeconds: 40}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: budget}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: policy}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: ingress}
spec: {rules: [{host: a.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: scaler}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 5
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: claim}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: robot, namespace: %(ns)s}]
---
apiVersion: v1
kind: Event
metadata: {name: event}
involvedObject: {apiVersion: v1, kind: Pod, name: lone, namespace: %(ns)s}
reason: Started
type: Normal
message: Started container c
count: 3
firstTimestamp: "2026-01-01T00:00:00Z"
lastTimestamp: "2026-01-01T00:00:10Z"
""".replace(" &of", "")
_CLUSTER = """
apiVersion: v1
kind: Node
metadata: {name: n%(ns)s, labels: {node-role.kubernetes.io/worker: ""}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: v%(ns)s}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteMany], storageClassName: s, hostPath: {path: /tmp}}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: s%(ns)s}
provisioner: example.com/none
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: p%(ns)s}
value: 7
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: i%(ns)s}
spec: {controller: example.com/none}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: w%(ns)s}
webhooks: []
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: r%(ns)s}
handler: runc
"""
_PRUNE = """
apiVersion: v1
kind: ConfigMap
metadata: {name: %s, labels: {set: pruned}}
data: {a: "1"}
"""
_STATUS = """{"status": {"phase": "Running", "podIP": "10.0.0.9",
 "conditions": [{"type": "Ready", "status": "False"}, {"type": "Initialized", "status": "True"}],
 "containerStatuses": [{"name": "c", "image": "busybox", "imageID": "x", "ready": false, "restartCount": 2,
  "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
  "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z"}}}]}}"""
_STALE = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf, resourceVersion: "1"}\n'
_BAD = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: bad}
spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: x}]}}}
"""
_ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: %(ns)s}
rules: [{apiGroups: [""], resources: [pods], verbs: [get, list]}]
"""
_NAMELESS = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: nameless, labels: {kubernetes.io/service-name: headless}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [192.0.2.2]}]
"""
_TYPE = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: t}\ndata: {a: [1]}\n"
FILES = {
    "all.yaml": _KINDS, "cluster.yaml": _CLUSTER, "crd.yaml": CRD, "gear.yaml": GEAR, "typo.yaml": TYPO,
    "one.yaml": _PRUNE % "one", "two.yaml": _PRUNE % "two", "status.json": _STATUS, "stale.yaml": _STALE,
    "role.yaml": _ROLE,
    "bad.yaml": _BAD, "type.yaml": _TYPE,
    "conf.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf, labels: {app: conf}}\ndata: {a: '2', b: other}\n",
}  # fmt: skip

_SERVER = [
    row("version", r"^Client Version: v1\.3", r"^Server Version: v1\.33"),
    row("version -o json", '"gitVersion": "v1.33'),
    row("cluster-info", "control plane.* is running at"),
    row("api-versions", "^apps/v1$", "^v1$", r"^batch/v1$", r"^autoscaling/v2$"),
    row("api-resources", r"^NAME +SHORTNAMES +APIVERSION +NAMESPACED +KIND$", "^pods +po +v1 +true +Pod$"),
    row("api-resources --api-group=apps -o name", r"^deployments\.apps$", absent=("^pods$",)),
    row("api-resources --namespaced=false --verbs=list -o name", "^nodes$", absent=("^pods$",)),
    row("api-resources --categories=all -o wide", "^pods .*create,delete,deletecollection,get,list,patch"),
    row("explain pod.spec.containers.image", "FIELD: image <string>"),
    row("explain deployments --recursive", "progressDeadlineSeconds"),
    row("explain hpa --api-version=autoscaling/v1", "VERSION: +v1$"),
    row("explain nothing", "the server doesn't have a resource type", code=1),
    row("get --raw /readyz", "^ok$"),
    row("get --raw /api/v1/namespaces/default", '"kind":"Namespace"'),
    row("get --raw /apis/none.example.com", "could not find|NotFound", code=1),
]
_APPLY = [
    row("create namespace {ns} --dry-run=server", r"^namespace/{ns} created \(server dry run\)$"),
    row("get namespace {ns}", r'namespaces "{ns}" not found', code=1),
    row("create namespace {ns}", "^namespace/{ns} created$"),
    row("create namespace {ns}", r'\(AlreadyExists\).*namespaces "{ns}" already exists', code=1),
    row("config set-context --current --namespace={ns}", "modified"),
    row("apply -f {dir}/all.yaml --dry-run=server", r"^pod/lone created \(server dry run\)$"),
    row("get pods", "^No resources found in {ns} namespace.$"),
    row(
        "apply -f {dir}/all.yaml",
        "^pod/lone created$",
        "^deployment.apps/web created$",
        "^event/event created$",
    ),
    row(
        "apply -f {dir}/all.yaml",
        "^pod/lone unchanged$",
        "^job.batch/job unchanged$",
        absent=("^(?!poddisruptionbudget).* configured$",),
    ),
    row("apply -f {dir}/cluster.yaml", "^node/n{ns} created$", "^runtimeclass.node.k8s.io/r{ns} created$"),
    row("create -f {dir}/conf.yaml", 'configmaps "conf" already exists', code=1),
    row("diff -f {dir}/conf.yaml", r'^-  a: "1"$', r'^\+  a: "2"$', code=1),
    row("diff --server-side --force-conflicts -f {dir}/conf.yaml", r'^\+  a: "2"$', code=1),
    row("apply -f {dir}/conf.yaml", "^configmap/conf configured$"),
    row("diff -f {dir}/conf.yaml", absent=(".",)),
    row("apply view-last-applied configmap conf", '^  a: "2"$'),
    row("apply set-last-applied -f {dir}/conf.yaml", "^configmap/conf (configured|unchanged)$"),
    row("apply --server-side -f {dir}/conf.yaml", "^configmap/conf serverside-applied$"),
    row("apply --server-side --field-manager=second -f {dir}/conf.yaml", "serverside-applied$"),
    row("get configmap conf -o yaml --show-managed-fields", "manager: second", "operation: Apply"),
    row("apply -f {dir}/one.yaml -f {dir}/two.yaml", "^configmap/one created$", "^configmap/two created$"),
    row(
        "apply --prune -l set=pruned --prune-allowlist=core/v1/ConfigMap -f {dir}/one.yaml",
        "^configmap/two pruned$",
    ),
    row("apply -f {dir}/typo.yaml", 'unknown field "datum"', code=1),
    row("apply --validate=warn -f {dir}/typo.yaml", 'Warning: unknown field "datum"', "created$"),
    row("apply -f {dir}/type.yaml", "cannot (be handled as|unmarshal)|error validating", code=1),
    row("apply -f {dir}/bad.yaml", 'The Deployment "bad" is invalid: spec.template.metadata.labels', code=1),
    row("replace -f {dir}/stale.yaml", r"\(Conflict\)|the object has been modified", code=1),
    row("replace -f {dir}/conf.yaml", "^configmap/conf replaced$"),
    row("replace --force -f {dir}/one.yaml", 'configmap "one" deleted', "^configmap/one replaced$"),
]
_N, _A = "^NAME +", rf"{AGE}$"
_GET = [
    row("get pods", rf"{_N}READY +STATUS +RESTARTS +AGE$", rf"^lone +0/1 +Pending +0 +{AGE}$"),
    row("patch pod lone --subresource=status --type=merge --patch-file={dir}/status.json", "patched$"),
    row("get pods", rf"^lone +0/1 +CrashLoopBackOff +2 \({AGE} ago\) +{AGE}$"),
    row(
        "get pods -o wide",
        r"IP +NODE +NOMINATED NODE +READINESS GATES$",
        r"^lone .* 10\.0\.0\.9 +<none> +<none> +<none>$",
        "^second .* 0/1$",
    ),
    row("get pod lone -o name", "^pod/lone$"),
    row("get pod lone -o json", '"phase": "Running"'),
    row("get pod lone -o yaml", "^  name: lone$", absent=("managedFields",)),
    row("get pods -o jsonpath={{.items[*].metadata.name}}", "^lone second$"),
    row("get pods -o go-template={{{{range.items}}}}{{{{.metadata.name}}}};{{{{end}}}}", "^lone;second;$"),
    row("get pods -o custom-columns=N:.metadata.name,P:.status.phase", "^N +P$", "^lone +Running$"),
    row("get pods --no-headers", "^lone ", absent=("^NAME",)),
    row("get pods --show-labels", "LABELS$", "app=lone,tier=a$"),
    row("get pods -L tier", "TIER$", "^lone .* a$"),
    row("get pods -l tier=b", "^second ", absent=("^lone",)),
    row("get pods -l 'tier in (a,c),app'", "^lone ", absent=("^second",)),
    row("get pods -l '!tier'", "No resources found"),
    row("get pods -l 'tier=('", "(?i)unable to parse|invalid|not validate", code=1),
    row("get pods --field-selector=status.phase=Running", "^lone ", absent=("^second",)),
    row("get pods --field-selector=metadata.name!=lone", "^second ", absent=("^lone",)),
    row("get pods --field-selector=spec.nope=1", "field label not supported", code=1),
    row("get pods --sort-by=.metadata.labels.tier", r"(?s)lone.*second"),
    row("get pods -A", "^NAMESPACE +NAME", "^{ns} +lone "),
    row("get pods --chunk-size=1", "^lone ", "^second "),
    row("get pod lone nope", "^lone ", r'\(NotFound\): pods "nope" not found', code=1),
    row("get pod nope --ignore-not-found", absent=(".",)),
    row("get nothing", "the server doesn't have a resource type", code=1),
    row("get pod/lone svc/web", "^pod/lone ", "^service/web "),
    row(
        "get all",
        "^pod/lone ",
        "^service/web ",
        "^daemonset.apps/ds ",
        "^job.batch/job ",
        "^horizontalpodautoscaler",
    ),
    row(
        "get deploy -o wide",
        rf"{_N}READY +UP-TO-DATE +AVAILABLE +AGE +CONTAINERS +IMAGES +SELECTOR$",
        rf"^web +0/1 +0 +0 +{AGE} +c +busybox +app=web$",
    ),
    row("get rs", rf"{_N}DESIRED +CURRENT +READY +AGE$", rf"^rs +0 +0 +0 +{_A}"),
    row(
        "get ds",
        rf"{_N}DESIRED +CURRENT +READY +UP-TO-DATE +AVAILABLE +NODE SELECTOR +AGE$",
        rf"^ds +0 +0 +0 +0 +0 +<none> +{_A}",
    ),
    row("get sts -o wide", rf"{_N}READY +AGE +CONTAINERS +IMAGES$", rf"^sts +0/1 +{AGE} +c +busybox$"),
    row("get jobs", rf"{_N}STATUS +COMPLETIONS +DURATION +AGE$", rf"^job +Running +0/1 +{_A}"),
    row(
        "get cj",
        rf"{_N}SCHEDULE +TIMEZONE +SUSPEND +ACTIVE +LAST SCHEDULE +AGE$",
        rf"^cron +\*/5 \* \* \* \* +<none> +False +0 +<none> +{_A}",
    ),
    row(
        "get svc -o wide",
        rf"{_N}TYPE +CLUSTER-IP +EXTERNAL-IP +PORT\(S\) +AGE +SELECTOR$",
        rf"^web +NodePort +10\.96\.\S+ +<none> +80:3\d+/TCP,53:3\d+/UDP +{AGE} +app=web$",
        r"^headless +ClusterIP +None ",
    ),
    row(
        "get endpointslices",
        rf"{_N}ADDRESSTYPE +PORTS +ENDPOINTS +AGE$",
        rf"^slice +IPv4 +80 +192\.0\.2\.1 +{_A}",
    ),
    row("get cm", rf"{_N}DATA +AGE$", rf"^conf +2 +{_A}"),
    row("get secrets", rf"{_N}TYPE +DATA +AGE$", rf"^key +Opaque +1 +{_A}"),
    row("get sa", rf"{_N}(SECRETS +)?AGE$", "^robot "),
    row("get lease", rf"{_N}HOLDER +AGE$", "^lease +me "),
    row(
        "get pdb",
        rf"{_N}MIN AVAILABLE +MAX UNAVAILABLE +ALLOWED DISRUPTIONS +AGE$",
        rf"^budget +1 +N/A +0 +{_A}",
    ),
    row("get netpol", rf"{_N}POD-SELECTOR +AGE$", "^policy +app=web "),
    row("get ing", rf"{_N}CLASS +HOSTS +ADDRESS +PORTS +AGE$", rf"^ingress +<none> +a.example.com +80 +{_A}"),
    row(
        "get hpa",
        rf"{_N}REFERENCE +TARGETS +MINPODS +MAXPODS +REPLICAS +AGE$",
        "^scaler +Deployment/web +cpu: <unknown>/80% +1 +5 +0 ",
    ),
    row(
        "get pvc",
        rf"{_N}STATUS +VOLUME +CAPACITY +ACCESS MODES +STORAGECLASS +VOLUMEATTRIBUTESCLASS +AGE$",
        "^claim +Pending ",
    ),
    row(
        "get pv",
        rf"{_N}CAPACITY +ACCESS MODES +RECLAIM POLICY +STATUS +CLAIM",
        "^v{ns} +1Gi +RWX +Retain +Pending ",
    ),
    row(
        "get sc",
        rf"{_N}PROVISIONER +RECLAIMPOLICY +VOLUMEBINDINGMODE",
        "^s{ns} +example.com/none +Delete +Immediate +false ",
    ),
    row(
        "get nodes -o wide",
        r"INTERNAL-IP +EXTERNAL-IP +OS-IMAGE +KERNEL-VERSION +CONTAINER-RUNTIME$",
        "^n{ns} +Unknown +worker ",
    ),
    row("get ns", rf"{_N}STATUS +AGE$", rf"^{{ns}} +Active +{_A}"),
    row("get role", rf"{_N}CREATED AT$", r"^reader +20\d\d-"),
    row(
        "get rolebinding -o wide",
        rf"{_N}ROLE +AGE +USERS +GROUPS +SERVICEACCOUNTS$",
        rf"^reader +Role/reader +{AGE} +{{ns}}/robot$",
    ),
    row("get pc", rf"{_N}VALUE +GLOBAL-DEFAULT +AGE", "^p{ns} +7 +false "),
    row("get ingressclass", rf"{_N}CONTROLLER +PARAMETERS +AGE$", "^i{ns} +example.com/none +<none> "),
    row("get validatingwebhookconfigurations", rf"{_N}WEBHOOKS +AGE$", "^w{ns} +0 "),
    row("get runtimeclass", rf"{_N}HANDLER +AGE$", "^r{ns} +runc "),
    row(
        "get ev",
        r"^LAST SEEN +TYPE +REASON +OBJECT +MESSAGE$",
        rf"^{AGE} \(x3 over {AGE}\) +Normal +Started +pod/lone +Started container c$",
    ),
    row("get events.events.k8s.io --field-selector=regarding.name=lone", "pod/lone +Started container c$"),
    row(
        "events --for pod/lone",
        r"^LAST SEEN +TYPE +REASON +OBJECT +MESSAGE$",
        "Pod/lone +Started container c$",
    ),
]
_DESCRIBE = [
    row("describe pod lone", "^Name: +lone$", "Reason: +CrashLoopBackOff"),
    row("describe deploy,rs,ds,sts", "^Name: +web$", "^Name: +rs$", "^Name: +ds$", "^Name: +sts$"),
    row("describe job,cj", "^Name: +job$", r"^Schedule: +\*/5"),
    row("describe svc web", "^Type: +NodePort$", r"^Endpoints: +192\.0\.2\.1:80$"),
    row("create -f -", "created$", stdin=_NAMELESS),
    row("describe svc headless", r"^Endpoints: +192\.0\.2\.2:80$"),
    row("describe cm,secret,sa", "^Name: +conf$", "^k: +1 bytes$", "^Name: +robot$"),
    row("describe role,rolebinding", r"^  pods +\[\] +\[\] +\[get\]$", "ServiceAccount +robot +{ns}"),
    row(
        "describe hpa,pdb,netpol,ing,pvc",
        "^Name: +scaler$",
        "^Name: +budget$",
        "^Name: +policy$",
        "^Name: +ingress$",
        "^Name: +claim$",
    ),
    row("describe node n{ns}", "^Roles: +worker$", "^Taints: +"),
    row("describe pv,sc,pc,ns {ns}", code=1),
    row("describe ns {ns}", "^Name: +{ns}$", "^Status: +Active$"),
    row("describe lease lease", "Holder Identity: +me$"),
]
_CHANGE = [
    row("label cm conf a=b", "^configmap/conf labeled$"),
    row("label cm conf a=c", "already has a value", code=1),
    row("label cm --all z=y", "^configmap/conf labeled$", "^configmap/one labeled$"),
    row("label cm conf --list", "^a=b$"),
    row("label cm conf a-", "^configmap/conf unlabeled$"),
    row("label cm conf 'a=not valid'", "(?i)invalid", code=1),
    row("annotate cm conf note=hello", "^configmap/conf annotated$"),
    row("annotate cm conf note=x --overwrite --resource-version=1", "(?i)conflict|has been modified", code=1),
    row(
        'patch deploy web -p \'{{"spec":{{"template":{{"spec":{{"containers":[{{"name":"d","image":"x"}}]}}}}}}}}\'',
        "patched$",
    ),
    row("get deploy web -o jsonpath={{.spec.template.spec.containers[*].name}}", "^d c$"),
    row(
        'patch deploy web -p \'{{"spec":{{"template":{{"spec":{{"containers":[{{"name":"d","$patch":"delete"}}]}}}}}}}}\'',
        "patched$",
    ),
    row("get deploy web -o jsonpath={{.spec.template.spec.containers[*].name}}", "^c$"),
    row(
        'patch cm conf --type=json -p \'[{{"op":"test","path":"/data/a","value":"no"}}]\'', "(?i)test", code=1
    ),
    row('patch cm conf --type=merge -p \'{{"data":{{"c":null}}}}\'', r"patched \(no change\)$"),
    row(
        "patch cm conf -p nonsense", "(?i)unable to parse|invalid|cannot unmarshal|must be an object", code=1
    ),
    row("edit cm conf", "Edit cancelled, no changes made"),
    row("edit deploy web --subresource=status", "Edit cancelled"),
    row('patch cm conf --type=merge -p \'{{"data":{{"b":"before-the-edit"}}}}\'', "patched$"),
    row("edit cm conf", "^configmap/conf edited$"),
    row("get cm conf -o jsonpath={{.data.b}}", "^after-the-edit$"),
    row("scale deploy/web --replicas=3", "^deployment.apps/web scaled$"),
    row("scale deploy/web --current-replicas=1 --replicas=2", "Expected replicas to be 1, was 3", code=1),
    row("get deploy web --subresource=scale -o jsonpath={{.spec.replicas}}", "^3$"),
    row("get deploy web", "^web +0/3 "),
    row("set image deploy/web c=other", "image updated$"),
    row("set env deploy/web ROUND=2", "env updated$"),
    row("set env deploy/web --list", "^ROUND=2$"),
    row("set resources deploy/web --limits=cpu=1", "resource requirements updated$"),
    row("set serviceaccount deploy/web robot", "serviceaccount updated$"),
    row("set selector svc/web app=other", "selector updated$"),
    row("set subject rolebinding reader --user=ann", "subjects updated$"),
    row("rollout restart deploy/web", "restarted$"),
    row("rollout pause deploy/web", "paused$"),
    row("rollout pause deploy/web", "already paused", code=1),
    row("rollout resume deploy/web", "resumed$"),
    row("rollout status deploy/web --watch=false", "Waiting for deployment"),
    row("expose deploy/web --name=shown --port=80", "^service/shown exposed$"),
    row("autoscale rs rs --max=3 --cpu-percent=50", "autoscaled$"),
    row("wait pod/lone --for=jsonpath={{.status.phase}}=Running --timeout=5s", "condition met$"),
    row("wait pod/lone --for=condition=Ready --timeout=1s", "timed out waiting", code=1),
    row("wait cm/conf --for=create --timeout=5s", "condition met$"),
    row("wait cm/none --for=delete --timeout=5s"),
    row("taint node n{ns} k=v:NoSchedule", "tainted$"),
    row("taint node n{ns} k=v:NoSchedule", "already has", code=1),
    row("taint node n{ns} k-", "untainted$"),
    row("cordon n{ns}", "cordoned$"),
    row("get node n{ns}", "Unknown,SchedulingDisabled"),
    row("drain n{ns}", "drained$"),
    row("uncordon n{ns}", "uncordoned$"),
]
_CREATE = [
    row("create cm made --from-literal=a=1 --from-file=f={dir}/one.yaml", "^configmap/made created$"),
    row("create cm made --from-literal=a=1", "already exists", code=1),
    row("create secret generic made --from-literal=k=v", "^secret/made created$"),
    row(
        "create secret docker-registry pull --docker-server=r --docker-username=u --docker-password=p",
        "created$",
    ),
    row("get secret pull", r"kubernetes\.io/dockerconfigjson +1 "),
    row("create sa made", "^serviceaccount/made created$"),
    row("create role made --verb=get --resource=pods,deployments.apps", "created$"),
    row("create clusterrole made{ns} --verb=get --resource=nodes", "created$"),
    row("create rolebinding made --role=made --user=ann", "created$"),
    row("create clusterrolebinding made{ns} --clusterrole=made{ns} --group=g", "created$"),
    row("create deploy made --image=busybox --port=80 -- sleep 1", "^deployment.apps/made created$"),
    row("create job made --image=busybox -- true", "^job.batch/made created$"),
    row("create job from --from=cronjob/cron", "^job.batch/from created$"),
    row("create cronjob made --image=busybox --schedule='1 * * * *' -- true", "created$"),
    row("create svc clusterip made --tcp=80:8080", "^service/made created$"),
    row("create svc nodeport port --tcp=80", "^service/port created$"),
    row("create svc externalname far --external-name=a.example.com", "created$"),
    row("get svc far", "^far +ExternalName +<none> +a.example.com +<none> "),
    row("create svc loadbalancer lb --tcp=80", "created$"),
    row("get svc lb", r"^lb +LoadBalancer +10\.\S+ +<pending> +80:3\d+/TCP "),
    row("create ingress made --rule=a.example.com/*=web:80", "created$"),
    row("create pdb made --selector=a=b --min-available=1", "created$"),
    row("create pc made{ns} --value=5", "created$"),
    row("create quota made --hard=pods=9", "created$"),
    row("run made --image=busybox --labels=run=x", "^pod/made created$"),
    row("run made2 --image=busybox --dry-run=client -o yaml", "^kind: Pod$"),
    row(
        "create -f -",
        "^configmap/piped created$",
        stdin='{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"piped"}}',
    ),
    row(
        "create -f -",
        "metadata.name: Invalid value",
        code=1,
        stdin='{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"No_Name"}}',
    ),
    row(
        "create -f -",
        "^configmap/gen-[a-z0-9]{{5}} created$".replace("{{", "{").replace("}}", "}"),
        stdin='{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"gen-"}}',
    ),
    row("auth can-i delete pods", "^yes$"),
    row("auth can-i --list", r"^Resources +Non-Resource URLs", r"\*\.\* "),
    row("auth whoami", "^Username +"),
    row("auth reconcile -f {dir}/role.yaml", "role.rbac.authorization.k8s.io/reader reconciled"),
]
_CUSTOM = [
    row("apply -f {dir}/crd.yaml", "created$"),
    row("wait crd/gears.{ns}.example.com --for=condition=Established --timeout=10s", "condition met$"),
    row("get crd gears.{ns}.example.com", rf"{_N}CREATED AT$"),
    row("apply -f {dir}/gear.yaml", r"^gear\.{ns}\.example\.com/big created$"),
    row("get gr{ns}", r"^NAME +TEETH$", "^big +12$"),
    row("explain gears.spec --api-version={ns}.example.com/v1", "Shape of a gear."),
    row("describe gear big", "Teeth: +12$"),
    row("scale gear/big --replicas=20", "scaled$"),
    row("get gears", "^big +20$"),
    row('patch gear big --type=merge -p \'{{"spec":{{"teeth":1}}}}\'', "Invalid value", code=1),
    row("patch gear big -p '{{}}'", "(?i)not supported|unsupported|415", code=1),
    row("apply --server-side -f {dir}/gear.yaml --force-conflicts", "serverside-applied$"),
    row("get gears", "^big +12$"),
    row("replace -f {dir}/gear.yaml", "replaced$"),
    row("delete crd gears.{ns}.example.com", "deleted", seconds=30),
]
_DELETE = [
    row("delete cm conf --dry-run=server", r'configmap "conf" deleted.* \(server dry run\)'),
    row("delete cm conf", 'configmap "conf" deleted'),
    row("delete cm conf", "NotFound", code=1),
    row("delete cm conf --ignore-not-found"),
    row("delete cm -l set=pruned", 'configmap "one" deleted'),
    row("delete pod second --grace-period=0 --force", 'pod "second" force deleted'),
    row("delete deploy made --cascade=orphan --wait=false", "deleted"),
    row("delete secrets --all", 'secret "key" deleted'),
    row("delete -f {dir}/cluster.yaml", 'node "n{ns}" deleted'),
    row("delete clusterrole,clusterrolebinding,pc made{ns}", "deleted"),
    row("delete ns {ns} --wait=false", 'namespace "{ns}" deleted'),
    row("get ns {ns}", "^{ns} +Terminating "),
    row("create cm late", "(?i)forbidden.*being terminated|because it is being terminated", code=1),
]
ROWS = [*_SERVER, *_APPLY, *_GET, *_DESCRIBE, *_CHANGE, *_CREATE, *_CUSTOM, *_DELETE]
