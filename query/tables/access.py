"""Who may do what: role bindings, certificate requests and trust bundles."""

from __future__ import annotations

from query.tables.ages import human_duration
from query.tables.columns import AGE, NAME, Column, Metadata, Part, Row, TypedPrinter, aged, described, wide
from query.tables.labels import NONE
from query.tables.pods import ObjectCondition


class _RoleReference(Part, frozen=True, gc=False):
    kind: str = ""
    name: str = ""


class _Subject(Part, frozen=True, gc=False):
    kind: str = ""
    name: str = ""
    namespace: str = ""


class _Binding(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    role_ref: _RoleReference = _RoleReference()
    subjects: tuple[_Subject, ...] = ()


def _binding(each: _Binding) -> Row:
    """printers.go: printRoleBinding, printClusterRoleBinding; apis/rbac: SubjectsStrings."""
    subjects = each.subjects
    cells = [
        each.metadata.name,
        f"{each.role_ref.kind}/{each.role_ref.name}",
        None,
        ", ".join([at.name for at in subjects if at.kind == "User"]),
        ", ".join([at.name for at in subjects if at.kind == "Group"]),
        ", ".join([f"{at.namespace}/{at.name}" for at in subjects if at.kind == "ServiceAccount"]),
    ]
    return aged(cells, (2, each.metadata.creation_timestamp))


class _RequestSpec(Part, frozen=True, gc=False):
    signer_name: str = ""
    username: str = ""
    expiration_seconds: int | None = None


class _RequestStatus(Part, frozen=True, gc=False):
    conditions: tuple[ObjectCondition, ...] = ()
    certificate: str | None = None


class _Request(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _RequestSpec = _RequestSpec()
    status: _RequestStatus = _RequestStatus()


def _request(each: _Request) -> Row:
    """printers.go: printCertificateSigningRequest, extractCSRStatus."""
    spec = each.spec
    conditions = {at.type for at in each.status.conditions}
    condition = "Denied" if "Denied" in conditions else "Approved" if "Approved" in conditions else "Pending"
    if "Failed" in conditions:
        condition += ",Failed"
    if each.status.certificate:
        condition += ",Issued"
    cells = [
        each.metadata.name,
        None,
        spec.signer_name or NONE,
        spec.username,
        NONE if spec.expiration_seconds is None else human_duration(spec.expiration_seconds),
        condition,
    ]
    return aged(cells, (1, each.metadata.creation_timestamp))


class _BundleSpec(Part, frozen=True, gc=False):
    signer_name: str = ""


class _Bundle(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _BundleSpec = _BundleSpec()


def _bundle(each: _Bundle) -> Row:
    """printers.go: printClusterTrustBundle."""
    return Row([each.metadata.name, each.spec.signer_name or NONE])


class _PodRequestSpec(Part, frozen=True, gc=False):
    pod_name: str = ""
    service_account_name: str = ""
    node_name: str = ""
    signer_name: str = ""


class _PodRequestStatus(Part, frozen=True, gc=False):
    conditions: tuple[ObjectCondition, ...] = ()


class _PodRequest(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _PodRequestSpec = _PodRequestSpec()
    status: _PodRequestStatus = _PodRequestStatus()


def _pod_request(each: _PodRequest) -> Row:
    """printers.go: printPodCertificateRequest. One condition at most says how it ended."""
    spec = each.spec
    ended = [at.type for at in each.status.conditions if at.type in ("Issued", "Denied", "Failed")]
    state = ended[-1] if ended else "Pending"
    return Row([each.metadata.name, spec.pod_name, spec.service_account_name, spec.node_name, spec.signer_name, state])


def _binding_columns(kind: str) -> tuple[Column, ...]:
    word = kind[0].lower() + kind[1:]
    return (
        NAME,
        Column("Role", description=described(f"{kind}.roleRef")),
        AGE,
        wide("Users", f"Users in the {word}"),
        wide("Groups", f"Groups in the {word}"),
        wide("ServiceAccounts", f"ServiceAccounts in the {word}"),
    )


ROLE_BINDINGS = TypedPrinter(_binding_columns("RoleBinding"), _Binding, _binding)
CLUSTER_ROLE_BINDINGS = TypedPrinter(_binding_columns("ClusterRoleBinding"), _Binding, _binding)

CERTIFICATE_SIGNING_REQUESTS = TypedPrinter(
    (
        NAME,
        AGE,
        Column("SignerName", description=described("CertificateSigningRequestSpec.signerName")),
        Column("Requestor", description=described("CertificateSigningRequestSpec.request")),
        Column("RequestedDuration", description=described("CertificateSigningRequestSpec.expirationSeconds")),
        Column("Condition", description=described("CertificateSigningRequestStatus.conditions")),
    ),
    _Request,
    _request,
)

CLUSTER_TRUST_BUNDLES = TypedPrinter(
    (NAME, Column("SignerName", description=described("ClusterTrustBundleSpec.signerName"))), _Bundle, _bundle
)

POD_CERTIFICATE_REQUESTS = TypedPrinter(
    (
        NAME,
        Column("PodName", description=described("PodCertificateRequestSpec.podName")),
        Column("ServiceAccountName", description=described("PodCertificateRequestSpec.serviceAccountName")),
        Column("NodeName", description=described("PodCertificateRequestSpec.nodeName")),
        Column("SignerName", description=described("PodCertificateRequestSpec.signerName")),
        Column("State", description="Is the request Pending, Issued, Denied, or Failed?"),
    ),
    _PodRequest,
    _pod_request,
)
