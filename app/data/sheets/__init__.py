"""Spreadsheets: Excel workbooks and OpenDocument spreadsheets.

They are parsed in a child process with limits on memory and time, because a short file can expand to any size.
"""
