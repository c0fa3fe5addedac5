"""Storage: volumes, claims, classes, attachments and the CSI types."""

from __future__ import annotations

import msgspec

from query.tables.columns import (
    AGE,
    NAME,
    Column,
    DeletableMetadata,
    Metadata,
    Part,
    Row,
    TypedPrinter,
    aged,
    described,
    wide,
)
from query.tables.labels import NONE

UNSET = "<unset>"

Quantity = str | int
"""A resource quantity as servers send it: in canonical form already, so it is printed as it stands."""

_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
_DEFAULT_STORAGE_CLASS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_DEFAULT_ATTRIBUTES_CLASS = ("volumeattributesclass.alpha.kubernetes.io/is-default-class",)
_SHORT_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


class _VolumeMetadata(DeletableMetadata, frozen=True, gc=False):
    annotations: dict[str, str] | None = None


class _AnnotatedMetadata(Metadata, frozen=True, gc=False):
    annotations: dict[str, str] | None = None


def _unset(text: str | None) -> str:
    return UNSET if text is None else text


def _modes(modes: tuple[str, ...]) -> str:
    """`RWO,ROX,RWX,RWOP`, always in this order (apis/core/v1/helper: GetAccessModesAsString)."""
    return ",".join([short for mode, short in _SHORT_MODES.items() if mode in modes])


def _class(metadata: _VolumeMetadata, name: str | None) -> str:
    """The annotation of old beats the field (apis/core/helper: GetPersistentVolumeClass)."""
    annotations = metadata.annotations
    if annotations and _BETA_CLASS in annotations:
        return annotations[_BETA_CLASS]
    return name or ""


class _ClaimReference(Part, frozen=True, gc=False):
    namespace: str = ""
    name: str = ""


class _VolumeSpec(Part, frozen=True, gc=False):
    capacity: dict[str, Quantity] | None = None
    access_modes: tuple[str, ...] = ()
    persistent_volume_reclaim_policy: str = ""
    claim_ref: _ClaimReference | None = None
    storage_class_name: str = ""
    volume_attributes_class_name: str | None = None
    volume_mode: str | None = None


class _VolumeStatus(Part, frozen=True, gc=False):
    phase: str = ""
    reason: str = ""


class _Volume(Part, frozen=True, gc=False):
    metadata: _VolumeMetadata = _VolumeMetadata()
    spec: _VolumeSpec = _VolumeSpec()
    status: _VolumeStatus = _VolumeStatus()


def _volume(each: _Volume) -> Row:
    """printers.go: printPersistentVolume."""
    metadata, spec, status = each.metadata, each.spec, each.status
    claim = spec.claim_ref
    cells = [
        metadata.name,
        str((spec.capacity or {}).get("storage", "0")),
        _modes(spec.access_modes),
        spec.persistent_volume_reclaim_policy,
        status.phase if metadata.deletion_timestamp is None else "Terminating",
        "" if claim is None else f"{claim.namespace}/{claim.name}",
        _class(metadata, spec.storage_class_name),
        _unset(spec.volume_attributes_class_name),
        status.reason,
        None,
        _unset(spec.volume_mode),
    ]
    return aged(cells, (9, metadata.creation_timestamp))


class _ClaimSpec(Part, frozen=True, gc=False):
    volume_name: str = ""
    storage_class_name: str | None = None
    volume_attributes_class_name: str | None = None
    volume_mode: str | None = None


class _ClaimStatus(Part, frozen=True, gc=False):
    phase: str = ""
    access_modes: tuple[str, ...] = ()
    capacity: dict[str, Quantity] | None = None


class _Claim(Part, frozen=True, gc=False):
    metadata: _VolumeMetadata = _VolumeMetadata()
    spec: _ClaimSpec = _ClaimSpec()
    status: _ClaimStatus = _ClaimStatus()


def _claim(each: _Claim) -> Row:
    """printers.go: printPersistentVolumeClaim. Size and modes are those of the volume, once there is one."""
    metadata, spec, status = each.metadata, each.spec, each.status
    bound = bool(spec.volume_name)
    cells = [
        metadata.name,
        status.phase if metadata.deletion_timestamp is None else "Terminating",
        spec.volume_name,
        str((status.capacity or {}).get("storage", "0")) if bound else "",
        _modes(status.access_modes) if bound else "",
        _class(metadata, spec.storage_class_name),
        _unset(spec.volume_attributes_class_name),
        None,
        _unset(spec.volume_mode),
    ]
    return aged(cells, (7, metadata.creation_timestamp))


class _StorageClass(Part, frozen=True, gc=False):
    metadata: _AnnotatedMetadata = _AnnotatedMetadata()
    provisioner: str = ""
    reclaim_policy: str | None = None
    volume_binding_mode: str | None = None
    allow_volume_expansion: bool | None = None


def _name_of_class(metadata: _AnnotatedMetadata, marks: tuple[str, ...]) -> str:
    annotations = metadata.annotations or {}
    default = any(annotations.get(mark) == "true" for mark in marks)
    return f"{metadata.name} (default)" if default else metadata.name


def _storage_class(each: _StorageClass) -> Row:
    """printers.go: printStorageClass."""
    cells = [
        _name_of_class(each.metadata, _DEFAULT_STORAGE_CLASS),
        each.provisioner,
        "Delete" if each.reclaim_policy is None else each.reclaim_policy,
        "Immediate" if each.volume_binding_mode is None else each.volume_binding_mode,
        bool(each.allow_volume_expansion),
        None,
    ]
    return aged(cells, (5, each.metadata.creation_timestamp))


class _AttributesClass(Part, frozen=True, gc=False):
    metadata: _AnnotatedMetadata = _AnnotatedMetadata()
    driver_name: str = ""


def _attributes_class(each: _AttributesClass) -> Row:
    """printers.go: printVolumeAttributesClass."""
    cells = [_name_of_class(each.metadata, _DEFAULT_ATTRIBUTES_CLASS), each.driver_name, None]
    return aged(cells, (2, each.metadata.creation_timestamp))


class _AttachmentSource(Part, frozen=True, gc=False):
    persistent_volume_name: str | None = None


class _AttachmentSpec(Part, frozen=True, gc=False):
    attacher: str = ""
    node_name: str = ""
    source: _AttachmentSource = _AttachmentSource()


class _AttachmentStatus(Part, frozen=True, gc=False):
    attached: bool = False


class _Attachment(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _AttachmentSpec = _AttachmentSpec()
    status: _AttachmentStatus = _AttachmentStatus()


def _attachment(each: _Attachment) -> Row:
    """printers.go: printVolumeAttachment."""
    spec = each.spec
    volume = spec.source.persistent_volume_name or ""
    cells = [each.metadata.name, spec.attacher, volume, spec.node_name, each.status.attached, None]
    return aged(cells, (5, each.metadata.creation_timestamp))


class _CSINodeSpec(Part, frozen=True, gc=False):
    drivers: tuple[msgspec.Raw, ...] | None = None


class _CSINode(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _CSINodeSpec = _CSINodeSpec()


def _csi_node(each: _CSINode) -> Row:
    """printers.go: printCSINode."""
    return aged([each.metadata.name, len(each.spec.drivers or ()), None], (2, each.metadata.creation_timestamp))


class _TokenRequest(Part, frozen=True, gc=False):
    audience: str = ""


class _CSIDriverSpec(Part, frozen=True, gc=False):
    attach_required: bool | None = None
    pod_info_on_mount: bool | None = None
    storage_capacity: bool | None = None
    token_requests: tuple[_TokenRequest, ...] | None = None
    requires_republish: bool | None = None
    volume_lifecycle_modes: tuple[str, ...] | None = None


class _CSIDriver(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _CSIDriverSpec = _CSIDriverSpec()


def _csi_driver(each: _CSIDriver) -> Row:
    """printers.go: printCSIDriver."""
    spec = each.spec
    cells = [
        each.metadata.name,
        True if spec.attach_required is None else spec.attach_required,
        bool(spec.pod_info_on_mount),
        bool(spec.storage_capacity),
        UNSET if spec.token_requests is None else ",".join([token.audience for token in spec.token_requests]),
        bool(spec.requires_republish),
        ",".join(spec.volume_lifecycle_modes or ()) or NONE,
        None,
    ]
    return aged(cells, (7, each.metadata.creation_timestamp))


PERSISTENT_VOLUMES = TypedPrinter(
    (
        NAME,
        Column("Capacity", description=described("PersistentVolumeSpec.capacity")),
        Column("Access Modes", description=described("PersistentVolumeSpec.accessModes")),
        Column("Reclaim Policy", description=described("PersistentVolumeSpec.persistentVolumeReclaimPolicy")),
        Column("Status", description=described("PersistentVolumeStatus.phase")),
        Column("Claim", description=described("PersistentVolumeSpec.claimRef")),
        Column("StorageClass", description="StorageClass of the pv"),
        Column("VolumeAttributesClass", description="VolumeAttributesClass of the pv"),
        Column("Reason", description=described("PersistentVolumeStatus.reason")),
        AGE,
        wide("VolumeMode", described("PersistentVolumeSpec.volumeMode")),
    ),
    _Volume,
    _volume,
)

PERSISTENT_VOLUME_CLAIMS = TypedPrinter(
    (
        NAME,
        Column("Status", description=described("PersistentVolumeClaimStatus.phase")),
        Column("Volume", description=described("PersistentVolumeClaimSpec.volumeName")),
        Column("Capacity", description=described("PersistentVolumeClaimStatus.capacity")),
        Column("Access Modes", description=described("PersistentVolumeClaimStatus.accessModes")),
        Column("StorageClass", description="StorageClass of the pvc"),
        Column("VolumeAttributesClass", description="VolumeAttributesClass of the pvc"),
        AGE,
        wide("VolumeMode", described("PersistentVolumeClaimSpec.volumeMode")),
    ),
    _Claim,
    _claim,
)

STORAGE_CLASSES = TypedPrinter(
    (
        NAME,
        Column("Provisioner", description=described("StorageClass.provisioner")),
        Column("ReclaimPolicy", description=described("StorageClass.reclaimPolicy")),
        Column("VolumeBindingMode", description=described("StorageClass.volumeBindingMode")),
        Column("AllowVolumeExpansion", description=described("StorageClass.allowVolumeExpansion")),
        AGE,
    ),
    _StorageClass,
    _storage_class,
)

VOLUME_ATTRIBUTES_CLASSES = TypedPrinter(
    (NAME, Column("DriverName", description=described("VolumeAttributesClass.driverName")), AGE),
    _AttributesClass,
    _attributes_class,
)

VOLUME_ATTACHMENTS = TypedPrinter(
    (
        NAME,
        Column("Attacher", format="name", description=described("VolumeAttachmentSpec.attacher")),
        Column("PV", description=described("VolumeAttachmentSource.persistentVolumeName")),
        Column("Node", description=described("VolumeAttachmentSpec.nodeName")),
        Column("Attached", "boolean", description=described("VolumeAttachmentStatus.attached")),
        AGE,
    ),
    _Attachment,
    _attachment,
)

CSI_NODES = TypedPrinter(
    (
        NAME,
        Column(
            "Drivers",
            "integer",
            description="Drivers indicates the number of CSI drivers registered on the node",
        ),
        AGE,
    ),
    _CSINode,
    _csi_node,
)

CSI_DRIVERS = TypedPrinter(
    (
        NAME,
        Column("AttachRequired", "boolean", description=described("CSIDriverSpec.attachRequired")),
        Column("PodInfoOnMount", "boolean", description=described("CSIDriverSpec.podInfoOnMount")),
        Column("StorageCapacity", "boolean", description=described("CSIDriverSpec.storageCapacity")),
        Column("TokenRequests", description=described("CSIDriverSpec.tokenRequests")),
        Column("RequiresRepublish", "boolean", description=described("CSIDriverSpec.requiresRepublish")),
        Column("Modes", description=described("CSIDriverSpec.volumeLifecycleModes")),
        AGE,
    ),
    _CSIDriver,
    _csi_driver,
)
