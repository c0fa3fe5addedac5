"""Networking: Service, Ingress, Endpoints, EndpointSlice, NetworkPolicy, ServiceCIDR and IPAddress."""

from __future__ import annotations

import msgspec

from deltalog.wire.kubernetes import GroupResource
from query.tables.columns import AGE, NAME, Column, Metadata, Part, Row, TypedPrinter, aged, described, wide
from query.tables.labels import NONE, LabelSelector, format_labels, format_selector, list_with_more


class _ServicePort(Part, frozen=True, gc=False):
    port: int = 0
    node_port: int = 0
    protocol: str = "TCP"


class _ServiceSpec(Part, frozen=True, gc=False):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: tuple[str, ...] = msgspec.field(name="clusterIPs", default=())
    external_ips: tuple[str, ...] = msgspec.field(name="externalIPs", default=())
    external_name: str = ""
    ports: tuple[_ServicePort, ...] = ()
    selector: dict[str, str] | None = None


class _LoadBalancerIngress(Part, frozen=True, gc=False):
    ip: str = ""
    hostname: str = ""


class _LoadBalancer(Part, frozen=True, gc=False):
    ingress: tuple[_LoadBalancerIngress, ...] = ()


class _LoadBalanced(Part, frozen=True, gc=False):
    load_balancer: _LoadBalancer = _LoadBalancer()


class _Service(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _ServiceSpec = _ServiceSpec()
    status: _LoadBalanced = _LoadBalanced()


def _addresses(status: _LoadBalanced) -> str:
    """The load balancer's addresses, sorted (printers.go: loadBalancerStatusStringer).

    Never clipped: the server always makes the wide form and leaves it to the client to hide columns.
    """
    return ",".join(sorted({each.ip or each.hostname for each in status.load_balancer.ingress} - {""}))


def _external_ip(service: _Service) -> str:
    """printers.go: getServiceExternalIP."""
    spec = service.spec
    if spec.type in ("ClusterIP", "NodePort"):
        return ",".join(spec.external_ips) if spec.external_ips else NONE
    if spec.type == "LoadBalancer":
        addresses = _addresses(service.status)
        if spec.external_ips:
            return ",".join([addresses, *spec.external_ips] if addresses else spec.external_ips)
        return addresses or "<pending>"
    return spec.external_name if spec.type == "ExternalName" else "<unknown>"


def _service(each: _Service) -> Row:
    """printers.go: printService."""
    spec = each.spec
    ports = ",".join(
        [
            f"{port.port}:{port.node_port}/{port.protocol}" if port.node_port > 0 else f"{port.port}/{port.protocol}"
            for port in spec.ports
        ]
    )
    cells = [
        each.metadata.name,
        spec.type,
        # Servers older than 1.20 know one cluster IP only.
        spec.cluster_ips[0] if spec.cluster_ips else spec.cluster_ip or NONE,
        _external_ip(each),
        ports or NONE,
        None,
        format_labels(spec.selector),
    ]
    return aged(cells, (5, each.metadata.creation_timestamp))


class _IngressRule(Part, frozen=True, gc=False):
    host: str = ""


class _IngressSpec(Part, frozen=True, gc=False):
    ingress_class_name: str | None = None
    rules: tuple[_IngressRule, ...] = ()
    tls: tuple[msgspec.Raw, ...] = ()


class _Ingress(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _IngressSpec = _IngressSpec()
    status: _LoadBalanced = _LoadBalanced()


def _hosts(rules: tuple[_IngressRule, ...]) -> str:
    """printers.go: formatHosts, which counts rules without a host among those left out."""
    hosts: list[str] = []
    more = False
    for rule in rules:
        if len(hosts) == 3:
            more = True
            break
        if rule.host:
            hosts.append(rule.host)
    text = ",".join(hosts) or "*"
    return f"{text} + {len(rules) - 3} more..." if more else text


def _ingress(each: _Ingress) -> Row:
    """printers.go: printIngress."""
    spec = each.spec
    cells = [
        each.metadata.name,
        NONE if spec.ingress_class_name is None else spec.ingress_class_name,
        _hosts(spec.rules),
        _addresses(each.status),
        "80, 443" if spec.tls else "80",
        None,
    ]
    return aged(cells, (5, each.metadata.creation_timestamp))


class _Parameters(Part, frozen=True, gc=False):
    api_group: str | None = None
    kind: str = ""
    name: str = ""


class _IngressClassSpec(Part, frozen=True, gc=False):
    controller: str = ""
    parameters: _Parameters | None = None


class _IngressClass(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _IngressClassSpec = _IngressClassSpec()


def _ingress_class(each: _IngressClass) -> Row:
    """printers.go: printIngressClass."""
    at = each.spec.parameters
    parameters = NONE
    if at is not None:
        kind = at.kind if at.api_group is None else f"{at.kind}.{at.api_group}"
        parameters = f"{kind}/{at.name}"
    cells = [each.metadata.name, each.spec.controller, parameters, None]
    return aged(cells, (3, each.metadata.creation_timestamp))


class _Address(Part, frozen=True, gc=False):
    ip: str = ""


class _Port(Part, frozen=True, gc=False):
    port: int = 0


class _Subset(Part, frozen=True, gc=False):
    addresses: tuple[_Address, ...] = ()
    ports: tuple[_Port, ...] = ()


class _Endpoints(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    subsets: tuple[_Subset, ...] = ()


def _host_port(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _endpoints(each: _Endpoints) -> Row:
    """printers.go: printEndpoints, formatEndpoints: three addresses, each port of a subset with each address."""
    found: list[str] = []
    count = 0
    for subset in each.subsets:
        room = subset.addresses[:3]
        if subset.ports:
            count += len(subset.addresses) * len(subset.ports)
            if len(found) <= 3:
                found += [_host_port(at.ip, port.port) for port in subset.ports for at in room]
        else:
            count += len(subset.addresses)
            found += [at.ip for at in room]
    text = ",".join(found[:3]) if each.subsets else NONE
    if count > 3:
        text = f"{text} + {count - 3} more..."
    return aged([each.metadata.name, text, None], (2, each.metadata.creation_timestamp))


class _SlicePort(Part, frozen=True, gc=False):
    name: str | None = None
    port: int | None = None


class _Endpoint(Part, frozen=True, gc=False):
    addresses: tuple[str, ...] = ()


class _EndpointSlice(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    address_type: str = ""
    ports: tuple[_SlicePort, ...] | None = None
    endpoints: tuple[_Endpoint, ...] | None = None


def _slice_port(at: _SlicePort) -> str:
    if at.port is not None:
        return str(at.port)
    return "*" if at.name is None else at.name


def _endpoint_slice(each: _EndpointSlice) -> Row:
    """printers.go: printEndpointSlice."""
    cells = [
        each.metadata.name,
        each.address_type,
        list_with_more([_slice_port(port) for port in each.ports or ()]),
        list_with_more([address for endpoint in each.endpoints or () for address in endpoint.addresses]),
        None,
    ]
    return aged(cells, (4, each.metadata.creation_timestamp))


class _NetworkPolicySpec(Part, frozen=True, gc=False):
    pod_selector: LabelSelector | None = None


class _NetworkPolicy(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _NetworkPolicySpec = _NetworkPolicySpec()


def _network_policy(each: _NetworkPolicy) -> Row:
    """printers.go: printNetworkPolicy."""
    cells = [each.metadata.name, format_selector(each.spec.pod_selector), None]
    return aged(cells, (2, each.metadata.creation_timestamp))


class _ServiceCIDRSpec(Part, frozen=True, gc=False):
    cidrs: tuple[str, ...] = ()


class _ServiceCIDR(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _ServiceCIDRSpec = _ServiceCIDRSpec()


def _service_cidr(each: _ServiceCIDR) -> Row:
    """printers.go: printServiceCIDR."""
    return aged([each.metadata.name, ",".join(each.spec.cidrs), None], (2, each.metadata.creation_timestamp))


class _ParentReference(Part, frozen=True, gc=False):
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""


class _IPAddressSpec(Part, frozen=True, gc=False):
    parent_ref: _ParentReference | None = None


class _IPAddress(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _IPAddressSpec = _IPAddressSpec()


def _ip_address(each: _IPAddress) -> Row:
    """printers.go: printIPAddress, without the age for which the server's table has no column."""
    at = each.spec.parent_ref
    parent = NONE
    if at is not None:
        resource = str(GroupResource(at.group, at.resource))
        parent = "/".join([part for part in (resource.lower(), at.namespace) if part] + [at.name])
    return Row([each.metadata.name, parent])


SERVICES = TypedPrinter(
    (
        NAME,
        Column("Type", description=described("ServiceSpec.type")),
        Column("Cluster-IP", description=described("ServiceSpec.clusterIP")),
        Column("External-IP", description=described("ServiceSpec.externalIPs")),
        Column("Port(s)", description=described("ServiceSpec.ports")),
        AGE,
        wide("Selector", described("ServiceSpec.selector")),
    ),
    _Service,
    _service,
)

INGRESSES = TypedPrinter(
    (
        NAME,
        Column(
            "Class",
            description="The name of the IngressClass resource that should be used for additional configuration",
        ),
        Column("Hosts", description="Hosts that incoming requests are matched against before the ingress rule"),
        Column("Address", description="Address is a list containing ingress points for the load-balancer"),
        Column("Ports", description="Ports of TLS configurations that open"),
        AGE,
    ),
    _Ingress,
    _ingress,
)

INGRESS_CLASSES = TypedPrinter(
    (
        NAME,
        Column("Controller", description="Controller that is responsible for handling this class"),
        Column("Parameters", description="A reference to a resource with additional parameters"),
        AGE,
    ),
    _IngressClass,
    _ingress_class,
)

ENDPOINTS = TypedPrinter(
    (NAME, Column("Endpoints", description=described("Endpoints.subsets")), AGE), _Endpoints, _endpoints
)

ENDPOINT_SLICES = TypedPrinter(
    (
        NAME,
        Column("AddressType", description=described("EndpointSlice.addressType")),
        Column("Ports", description=described("EndpointSlice.ports")),
        Column("Endpoints", description=described("EndpointSlice.endpoints")),
        AGE,
    ),
    _EndpointSlice,
    _endpoint_slice,
)

NETWORK_POLICIES = TypedPrinter(
    (NAME, Column("Pod-Selector", description=described("NetworkPolicySpec.podSelector")), AGE),
    _NetworkPolicy,
    _network_policy,
)

SERVICE_CIDRS = TypedPrinter(
    (NAME, Column("CIDRs", description=described("ServiceCIDRSpec.cidrs")), AGE), _ServiceCIDR, _service_cidr
)

IP_ADDRESSES = TypedPrinter(
    (NAME, Column("ParentRef", description=described("IPAddressSpec.parentRef"))), _IPAddress, _ip_address
)
