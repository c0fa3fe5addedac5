"""Which printer a resource type has."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from query.tables import (
    access,
    admission,
    cluster,
    configuration,
    events,
    flowcontrol,
    network,
    pods,
    scaling,
    scheduling,
    storage,
    workloads,
)
from query.tables.columns import Printer, PrinterColumn
from query.tables.custom import DEFAULT_PRINTER_COLUMNS, NAME_AND_CREATION, CustomPrinter

BUILT_IN: dict[tuple[str, str], Printer] = {
    ("", "componentstatuses"): cluster.COMPONENT_STATUSES,
    ("", "configmaps"): configuration.CONFIG_MAPS,
    ("", "endpoints"): network.ENDPOINTS,
    ("", "events"): events.EVENTS,
    ("", "limitranges"): NAME_AND_CREATION,
    ("", "namespaces"): cluster.NAMESPACES,
    ("", "nodes"): cluster.NODES,
    ("", "persistentvolumeclaims"): storage.PERSISTENT_VOLUME_CLAIMS,
    ("", "persistentvolumes"): storage.PERSISTENT_VOLUMES,
    ("", "pods"): pods.PODS,
    ("", "podtemplates"): pods.POD_TEMPLATES,
    ("", "replicationcontrollers"): workloads.REPLICATION_CONTROLLERS,
    ("", "resourcequotas"): configuration.RESOURCE_QUOTAS,
    ("", "secrets"): configuration.SECRETS,
    ("", "serviceaccounts"): configuration.SERVICE_ACCOUNTS,
    ("", "services"): network.SERVICES,
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"): admission.MUTATING_POLICIES,
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"): admission.POLICY_BINDINGS,
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"): admission.WEBHOOK_CONFIGURATIONS,
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"): admission.VALIDATING_POLICIES,
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"): admission.POLICY_BINDINGS,
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"): admission.WEBHOOK_CONFIGURATIONS,
    ("apiextensions.k8s.io", "customresourcedefinitions"): NAME_AND_CREATION,
    ("apiregistration.k8s.io", "apiservices"): cluster.API_SERVICES,
    ("apps", "controllerrevisions"): workloads.CONTROLLER_REVISIONS,
    ("apps", "daemonsets"): workloads.DAEMON_SETS,
    ("apps", "deployments"): workloads.DEPLOYMENTS,
    ("apps", "replicasets"): workloads.REPLICA_SETS,
    ("apps", "statefulsets"): workloads.STATEFUL_SETS,
    ("autoscaling", "horizontalpodautoscalers"): scaling.HORIZONTAL_POD_AUTOSCALERS,
    ("batch", "cronjobs"): workloads.CRON_JOBS,
    ("batch", "jobs"): workloads.JOBS,
    ("certificates.k8s.io", "certificatesigningrequests"): access.CERTIFICATE_SIGNING_REQUESTS,
    ("certificates.k8s.io", "clustertrustbundles"): access.CLUSTER_TRUST_BUNDLES,
    ("certificates.k8s.io", "podcertificaterequests"): access.POD_CERTIFICATE_REQUESTS,
    ("coordination.k8s.io", "leasecandidates"): cluster.LEASE_CANDIDATES,
    ("coordination.k8s.io", "leases"): cluster.LEASES,
    ("discovery.k8s.io", "endpointslices"): network.ENDPOINT_SLICES,
    ("events.k8s.io", "events"): events.NEW_EVENTS,
    ("flowcontrol.apiserver.k8s.io", "flowschemas"): flowcontrol.FLOW_SCHEMAS,
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"): flowcontrol.PRIORITY_LEVELS,
    ("internal.apiserver.k8s.io", "storageversions"): cluster.STORAGE_VERSIONS,
    ("networking.k8s.io", "ingressclasses"): network.INGRESS_CLASSES,
    ("networking.k8s.io", "ingresses"): network.INGRESSES,
    ("networking.k8s.io", "ipaddresses"): network.IP_ADDRESSES,
    ("networking.k8s.io", "networkpolicies"): network.NETWORK_POLICIES,
    ("networking.k8s.io", "servicecidrs"): network.SERVICE_CIDRS,
    ("node.k8s.io", "runtimeclasses"): cluster.RUNTIME_CLASSES,
    ("policy", "poddisruptionbudgets"): scheduling.POD_DISRUPTION_BUDGETS,
    ("rbac.authorization.k8s.io", "clusterrolebindings"): access.CLUSTER_ROLE_BINDINGS,
    ("rbac.authorization.k8s.io", "clusterroles"): NAME_AND_CREATION,
    ("rbac.authorization.k8s.io", "rolebindings"): access.ROLE_BINDINGS,
    ("rbac.authorization.k8s.io", "roles"): NAME_AND_CREATION,
    ("resource.k8s.io", "deviceclasses"): scheduling.DEVICE_CLASSES,
    ("resource.k8s.io", "resourceclaims"): scheduling.RESOURCE_CLAIMS,
    ("resource.k8s.io", "resourceclaimtemplates"): scheduling.RESOURCE_CLAIM_TEMPLATES,
    ("resource.k8s.io", "resourceslices"): scheduling.RESOURCE_SLICES,
    ("scheduling.k8s.io", "priorityclasses"): scheduling.PRIORITY_CLASSES,
    ("storage.k8s.io", "csidrivers"): storage.CSI_DRIVERS,
    ("storage.k8s.io", "csinodes"): storage.CSI_NODES,
    ("storage.k8s.io", "csistoragecapacities"): NAME_AND_CREATION,
    ("storage.k8s.io", "storageclasses"): storage.STORAGE_CLASSES,
    ("storage.k8s.io", "volumeattachments"): storage.VOLUME_ATTACHMENTS,
    ("storage.k8s.io", "volumeattributesclasses"): storage.VOLUME_ATTRIBUTES_CLASSES,
    ("storagemigration.k8s.io", "storageversionmigrations"): cluster.STORAGE_VERSION_MIGRATIONS,
}
"""By group and resource: the versions of a type print alike."""


def printer_for(group: str, resource: str, printer_columns: Sequence[PrinterColumn] | None = None) -> Printer:
    """The printer of a resource type: its own, else one of these columns, else one of name and age.

    An empty sequence of columns means the same as none: a custom resource that defines no columns shows its age.
    The same arguments give the same printer.
    """
    built_in = BUILT_IN.get((group, resource))
    if built_in is not None:
        return built_in
    return _custom(tuple(printer_columns or DEFAULT_PRINTER_COLUMNS))


@lru_cache(maxsize=1024)
def _custom(columns: tuple[PrinterColumn, ...]) -> Printer:
    return CustomPrinter(columns)
