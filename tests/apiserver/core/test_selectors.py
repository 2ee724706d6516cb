"""What selectors select, and what they refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pervade.cluster.apiserver.rest.negotiate import Format, NotAcceptable, choose, wants_aggregated
from pervade.cluster.apiserver.rest.selectors import fields, labels

WEB = {"app": "web", "tier": "front", "n": "5", "example.com/x": ""}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier=front", True),
        ("app=web,tier=back", False),
        ("app!=db", True),
        ("missing!=x", True),
        ("app in (web, db)", True),
        ("app notin (web)", False),
        ("missing notin (a,b)", True),
        ("app", True),
        ("!app", False),
        ("!missing", True),
        ("n>4", True),
        ("n<5", False),
        ("app>4", False),
        ("example.com/x", True),
        ("example.com/x=", True),
        ("app=", False),
        (" app = web , tier in ( front ) ", True),
        ("in=x", False),
    ],
)
def test_labels(text: str, selected: bool) -> None:
    assert labels(text)(WEB) is selected


@pytest.mark.parametrize(
    "text",
    [
        "a=b=c",
        "=a",
        "a in",
        "a in (b",
        "a in b",
        "a,,b",
        "a b",
        "-a=b",
        "a=b,",
        "!",
        "a=-x",
        "a>x",
        "A_/b=c",
        "a in (b c)",
    ],
)
def test_malformed_label_selectors_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        labels(text)


@given(st.text(alphabet="ab=!(), in<>notin/.", max_size=25))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        labels(text)(WEB)
    except ValueError as error:
        assert str(error)


POD = {"metadata": {"name": "a,b"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}
ALLOWED = frozenset({"metadata.name", "spec.nodeName", "spec.hostNetwork", "status.phase"})


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("spec.nodeName=n1", True),
        ("spec.nodeName==n1,status.phase!=Failed", True),
        ("spec.nodeName=", False),
        ("spec.hostNetwork=false", True),
        (r"metadata.name=a\,b", True),
    ],
)
def test_fields(text: str, selected: bool) -> None:
    assert fields(text, ALLOWED)(POD) is selected


@pytest.mark.parametrize("text", ["spec.foo=1", "nonsense", "=x"])
def test_unknown_and_malformed_fields_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        fields(text, ALLOWED)


KUBECTL = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
AGG = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Format()),
        ("*/*", Format()),
        (KUBECTL, Format("table")),
        ("application/vnd.kubernetes.protobuf,application/json", Format()),
        ("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", Format("partial")),
        (
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
            Format("partial-list"),
        ),
        ("application/json;as=Nonsense;g=meta.k8s.io;v=v1,application/json", Format()),
        ("application/json;q=0.1, application/yaml", Format(yaml=True)),
    ],
)
def test_the_first_form_we_speak_is_chosen(accept: str, form: Format) -> None:
    assert choose(accept) == form


@pytest.mark.parametrize(
    "accept", ["text/html", "application/vnd.kubernetes.protobuf", "application/json;q=0"]
)
def test_what_we_do_not_speak_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable):
        choose(accept)


def test_aggregated_discovery_is_given_to_those_who_prefer_it() -> None:
    assert wants_aggregated(AGG) == "v2"
    assert wants_aggregated("application/json") is None
    assert wants_aggregated("") is None
