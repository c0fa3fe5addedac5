"""Tables: the cells that `kubectl get` shows, made from objects' JSON as the Kubernetes API servers make them.

`printer_for` finds the `Printer` of a resource type; its `row` reads an object; `Row.cells` tells the cells at a time,
for only ages change. `KeptRows` keeps rows as text, so that a table of objects seen before costs but their ages.
"""

from __future__ import annotations

from query.tables.columns import Column, Printer, PrinterColumn, Row, RowCondition
from query.tables.kept import KeptRows, row_of
from query.tables.printers import printer_for

__all__ = ["Column", "KeptRows", "Printer", "PrinterColumn", "Row", "RowCondition", "printer_for", "row_of"]
