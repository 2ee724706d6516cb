"""Make the tables of field numbers that `pervade.cluster.apiserver.protobuf` decodes with (development time only).

Reads the Go types of the modules k8s.io/api, k8s.io/apimachinery and k8s.io/apiextensions-apiserver in a
module cache (`go mod download`): their struct tags name JSON field, field number, pointers and inlining,
all of which the decoder needs and `.proto` files do not say. One small JSON file per package.

    python tools/gen_protobuf_table.py "$(go env GOMODCACHE)" v0.36.6 v0.36.0
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

OUT = Path(__file__).parent.parent / "src/pervade/cluster/apiserver/protobuf/tables"
API = [
    "core/v1",
    "apps/v1",
    "batch/v1",
    "rbac/v1",
    "authentication/v1",
    "authorization/v1",
    "policy/v1",
    "coordination/v1",
    "discovery/v1",
    "networking/v1",
    "autoscaling/v1",
    "autoscaling/v2",
    "storage/v1",
    "scheduling/v1",
    "admissionregistration/v1",
    "events/v1",
    "certificates/v1",
    "node/v1",
]
# Types whose JSON form is not the form of their fields.
SPECIAL = {
    "metav1.Time": "time",
    "metav1.MicroTime": "microtime",
    "metav1.Duration": "duration",
    "metav1.FieldsV1": "raw",
    "resource.Quantity": "wrapped",
    "intstr.IntOrString": "intstr",
    "runtime.RawExtension": "raw",
    "runtime.Object": "raw",
    "JSON": "raw",
    "Verbs": "list",
    "ExtraValue": "list",
    "JSONSchemaPropsOrBool": "orbool",
    "JSONSchemaPropsOrArray": "orarray",
    "JSONSchemaPropsOrStringArray": "orarray",
}
SCALAR = {"string": "s", "bool": "b", "[]byte": "y", "float64": "d", "int64": "i", "int32": "i", "int": "i"}
SCALAR |= {"uint8": "i", "uint32": "i", "uint64": "i", "types.UID": "s", "types.NodeName": "s"}
_STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.M | re.S)
_FIELD = re.compile(r"^\s*(?:(\w+)\s+)?([\w.\[\]*]+)\s+`([^`]*)`", re.M)
_IMPORT = re.compile(r'^\s*(\w+)?\s*"(k8s\.io/[^"]+)"', re.M)


class Package:
    """The structs and named types of one folder of Go files."""

    def __init__(self, key: str, folder: Path) -> None:
        self.key = key
        self.structs: dict[str, str] = {}
        self.named: dict[str, str] = {}
        self.aliases: dict[str, str] = {}
        for file in sorted(folder.glob("*.go")):
            if file.name.endswith("_test.go") or file.name.startswith(("zz_", "generated")):
                continue
            text = re.sub(r"^\s*//.*$", "", file.read_text(), flags=re.M)
            self.structs |= dict(_STRUCT.findall(text))
            self.structs |= dict.fromkeys(re.findall(r"^type (\w+) struct\s*\{\s*\}$", text, re.M), "")
            for match in re.finditer(r"^type (\w+) ((?:\[\]|map\[[\w.]+\])?\*?[\w.]+)$", text, re.M):
                self.named[match[1]] = match[2]
            for alias, path in _IMPORT.findall(text):
                self.aliases[alias or path.rpartition("/")[2]] = path


def package_of(path: str) -> str:
    """`k8s.io/api/core/v1` as `core/v1`."""
    return "/".join(path.split("/")[-2:])


class Maker:
    def __init__(self, packages: dict[str, Package]) -> None:
        self.packages = packages

    def kind(self, package: Package, go: str) -> tuple[str, str]:
        """(code of a value, flags) of a Go type: `r` repeated, `p` pointer."""
        flags = ""
        if go.startswith("*"):
            go, flags = go[1:], "p"
        if go == "[]byte":
            return "y", flags
        if go.startswith("[]"):
            inner, _ = self.kind(package, go[2:])
            return inner, "r" + flags
        if match := re.fullmatch(r"map\[[\w.]+\](.+)", go):
            inner, more = self.kind(package, match[1])
            return f"m{'r' if 'r' in more else ''}:{inner}", flags
        if go in SCALAR:
            return SCALAR[go], flags
        alias, dot, name = go.rpartition(".")
        if not dot:
            here = package
        else:
            key = package_of(package.aliases.get(alias, alias))
            if (
                f"{alias if alias in ('resource', 'intstr', 'runtime', 'metav1') else 'metav1'}.{name}"
                in SPECIAL
            ):
                return "!" + SPECIAL[f"{alias if alias != 'v1' else 'metav1'}.{name}"], flags
            if key not in self.packages:
                if alias == "types":
                    return "s", flags
                raise SystemExit(f"{package.key}: {go} is in a package that is not read ({key})")
            here = self.packages[key]
        if name in SPECIAL and (not dot):
            return "!" + SPECIAL[name], flags
        if f"metav1.{name}" in SPECIAL and here.key == "meta/v1":
            return "!" + SPECIAL[f"metav1.{name}"], flags
        if name in here.named:
            code, more = self.kind(here, here.named[name])
            return code, "".join(sorted(set(flags + more)))
        if name not in here.structs:
            raise SystemExit(f"{package.key}: unknown type {go}")
        return f"@{here.key}.{name}", flags

    def fields(self, package: Package, body: str) -> dict[str, list[str]]:
        """Field number to [JSON name, code, flags]; `o` omitempty, `n` inlined."""
        out: dict[str, list[str]] = {}
        for _name, go, tags in _FIELD.findall(body):
            found = dict(re.findall(r'(\w+):"([^"]*)"', tags))
            if "protobuf" not in found or found["protobuf"] == "-":
                continue
            number = found["protobuf"].split(",")[1]
            name, *options = found.get("json", "").split(",")
            code, flags = self.kind(package, go)
            flags += ("o" if "omitempty" in options or "omitzero" in options else "") + (
                "n" if "inline" in options else ""
            )
            out[number] = [name, code, flags]
        return out


def main() -> None:
    cache, version, extensions = Path(sys.argv[1]) / "k8s.io", sys.argv[2], sys.argv[3]
    folders = {key: cache / f"api@{version}" / key for key in API}
    folders["meta/v1"] = cache / f"apimachinery@{version}/pkg/apis/meta/v1"
    folders["apiextensions/v1"] = cache / f"apiextensions-apiserver@{extensions}/pkg/apis/apiextensions/v1"
    packages = {key: Package(key, folder) for key, folder in folders.items()}
    maker = Maker(packages)
    OUT.mkdir(exist_ok=True)
    for key, package in packages.items():
        table = {
            name: fields
            for name, body in sorted(package.structs.items())
            if name not in SPECIAL
            and f"metav1.{name}" not in SPECIAL
            and (fields := maker.fields(package, body)) is not None
        }
        text = json.dumps(table, separators=(",", ":"), sort_keys=True)
        (OUT / f"{key.replace('/', '_')}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
