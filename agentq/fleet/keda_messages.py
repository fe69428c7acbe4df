"""The messages of KEDA's external scalers, as protobuf has them: names and numbers are KEDA's.

They are made of a description when this is imported, so that no generated code binds agentq to one version of protobuf.
Source: https://keda.sh/docs/latest/concepts/external-scalers/
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE: Final = "externalscaler"

SERVICE: Final = f"{PACKAGE}.ExternalScaler"

_FIELD: Any = descriptor_pb2.FieldDescriptorProto
_TEXT, _BOOL, _INT, _FLOAT = _FIELD.TYPE_STRING, _FIELD.TYPE_BOOL, _FIELD.TYPE_INT64, _FIELD.TYPE_DOUBLE

_MESSAGES: Final[dict[str, tuple[tuple[str, Any, bool], ...]]] = {
    "ScaledObjectRef": (("name", _TEXT, False), ("namespace", _TEXT, False), ("scalerMetadata", "Entry", True)),
    "IsActiveResponse": (("result", _BOOL, False),),
    "GetMetricSpecResponse": (("metricSpecs", "MetricSpec", True),),
    "MetricSpec": (("metricName", _TEXT, False), ("targetSize", _INT, False), ("targetSizeFloat", _FLOAT, False)),
    "GetMetricsRequest": (("scaledObjectRef", "ScaledObjectRef", False), ("metricName", _TEXT, False)),
    "GetMetricsResponse": (("metricValues", "MetricValue", True),),
    "MetricValue": (("metricName", _TEXT, False), ("metricValue", _INT, False), ("metricValueFloat", _FLOAT, False)),
}
"""By message its fields, numbered from 1 in this order: name, type or message, and whether there may be many."""

_ENTRY: Final = "ScaledObjectRef.ScalerMetadataEntry"
"""What protobuf makes of a map of texts."""


def _described() -> Any:
    file: Any = descriptor_pb2.FileDescriptorProto(name="agentq/externalscaler.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, is_many) in enumerate(fields, 1):
            made = message.field.add(
                name=field, number=number, label=_FIELD.LABEL_REPEATED if is_many else _FIELD.LABEL_OPTIONAL
            )
            if isinstance(kind, str):
                made.type = _FIELD.TYPE_MESSAGE
                made.type_name = f".{PACKAGE}.{_ENTRY if kind == 'Entry' else kind}"
            else:
                made.type = kind
    entry = file.message_type[0].nested_type.add(name="ScalerMetadataEntry")
    entry.options.map_entry = True
    for number, field in enumerate(("key", "value"), 1):
        entry.field.add(name=field, number=number, type=_TEXT, label=_FIELD.LABEL_OPTIONAL)
    return file


# A pool of its own: KEDA's generated code may be in the same process under the same names.
_pool: Any = descriptor_pool.DescriptorPool()
_pool.Add(_described())


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


ScaledObjectRef: Final = _class("ScaledObjectRef")
IsActiveResponse: Final = _class("IsActiveResponse")
GetMetricSpecResponse: Final = _class("GetMetricSpecResponse")
GetMetricsRequest: Final = _class("GetMetricsRequest")
GetMetricsResponse: Final = _class("GetMetricsResponse")
