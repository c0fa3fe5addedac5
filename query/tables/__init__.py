"""Tables: the cells that `kubectl get` shows, made from objects' JSON as the Kubernetes API servers make them.

`printer_for` finds the `Printer` of a resource type; its `row` reads an object once and can be kept; `Row.cells` tells
the cells at a time, for only ages change.
"""

from __future__ import annotations

from query.tables.columns import Column, Printer, PrinterColumn, Row
from query.tables.printers import printer_for

__all__ = ["Column", "Printer", "PrinterColumn", "Row", "printer_for"]
