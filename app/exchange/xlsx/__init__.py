"""A workbook with live formulas."""
